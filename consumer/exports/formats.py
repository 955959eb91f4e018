"""What kind of file an export is, by its first bytes, and the JSON documents in it (specification 1)."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from typing import IO

from consumer.exports.archive import DirectoryReader, documents_of_zip
from consumer.exports.file import ExportFile
from consumer.exports.limits import PIECE_BYTES, ExportLimits, Meter, too_large
from consumer.exports.window import unreadable

_FIRST_READ_BYTES = 1024
_HEAD_BYTES = 4

_GZIP = b"\x1f\x8b"
_ZIP = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")

_NOT_JSON = (
    (_GZIP, "a gzip file inside of another file"),
    (b"PK", "a ZIP archive inside of another file, or one part of several"),
    (b"<", "HTML or XML"),
    (b"\xff\xfe", "text in UTF-16 or UTF-32"),
    (b"\xfe\xff", "text in UTF-16"),
    (b"Rar!", "a RAR archive"),
    (b"7z\xbc\xaf", "a 7-Zip archive"),
    (b"BZh", "a bzip2 file"),
    (b"\xfd7zX", "an xz file"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file"),
    (b"%PDF", "a PDF"),
    (b"MZ", "a program"),
)


def documents(file: ExportFile, limits: ExportLimits) -> Iterator[Iterator[bytes]]:
    """The JSON documents of an export, each as its pieces; one has to be read before the next is asked for.

    Raises:
        FinalError: `export_too_large` beyond a limit; `export_unreadable` for an archive that is damaged, cut off or encrypted,
            or has no conversations in it, and for a document that is known not to be JSON by its first bytes.
    """
    if file.size > limits.max_bytes:
        raise too_large(f"it has {file.size} bytes, and {limits.max_bytes} are read (FULL_PASS_MAX_EXPORT_BYTES)")
    reader = DirectoryReader(file, PIECE_BYTES)
    first = reader.peek(_HEAD_BYTES)[:_HEAD_BYTES]
    if first.startswith(_ZIP):
        for document in documents_of_zip(reader, file.size, limits):
            yield _json(document)
    elif first.startswith(_GZIP):
        yield _json(Meter(file.size, limits).pass_on(_unpack_gzip(reader)))
    else:
        yield _json(Meter(file.size, limits).pass_on(_pieces(reader)))


def _json(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The same document, unless its first bytes tell what else it is: an error that says so helps whoever uploaded it."""
    head = b""
    for piece in pieces:
        head += piece
        if len(head) >= _HEAD_BYTES:
            break
    other = _known_otherwise(head)
    if other:
        raise unreadable(f"expected JSON in UTF-8, and it is {other}; upload what was downloaded, or its conversations.json")
    if head:
        yield head
    yield from pieces


def _known_otherwise(head: bytes) -> str | None:
    if not head:
        return "empty"
    if not head[:_HEAD_BYTES].strip(b"\0"):
        return "zeros, as after a transfer that failed"
    if b"\0" in head[:2]:
        return "text in UTF-16 or UTF-32"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    return next((what for magic, what in _NOT_JSON if text.startswith(magic)), None)


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    while piece := file.read(PIECE_BYTES):
        yield piece


def _unpack_gzip(file: DirectoryReader) -> Iterator[bytes]:
    """One or more members, which zeros may follow."""
    while True:
        yield from _unpack_gzip_member(file)
        following = _behind_zeros(file)
        if not following:
            return
        if not following.startswith(_GZIP[:1]):
            raise unreadable("it is a gzip file with something behind its end")


def _unpack_gzip_member(file: DirectoryReader) -> Iterator[bytes]:
    """A member; afterwards the file stands behind it.

    What is read too much of the following ones is in proportion to what was unpacked: there may be millions.
    """
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    size = _FIRST_READ_BYTES
    while not unpacker.eof:
        packed = unpacker.unconsumed_tail
        if not packed:
            packed = file.read(size)
            size = min(2 * size, PIECE_BYTES)
        try:
            piece = unpacker.decompress(packed, PIECE_BYTES)
        except zlib.error:
            raise unreadable("it is a gzip file that is damaged") from None
        if piece:
            yield piece
        elif not packed:
            raise unreadable("it is a gzip file that is cut off; upload it again")
    file.seek(-len(unpacker.unused_data), os.SEEK_CUR)


def _behind_zeros(file: DirectoryReader) -> bytes:
    """What the file then stands at: the next bytes, unless they are zeros. (`peek` would copy all that was read ahead.)"""
    while ahead := file.read(_FIRST_READ_BYTES):
        rest = ahead.lstrip(b"\0")
        if rest:
            file.seek(-len(rest), os.SEEK_CUR)
            return rest
    return b""
