"""What kind of file an export is, by its first bytes, and the JSON documents in it (specification 1)."""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO

from consumer.errors import FinalError
from consumer.exports.file import ExportFile
from consumer.exports.limits import ExportLimits
from consumer.exports.window import unreadable
from schemas.events import ErrorCode

PIECE_BYTES = 1024 * 1024
_MAX_DIRECTORY_BYTES = 8 * 1024 * 1024  # some 80,000 members; the standard library holds all of them in memory

_GZIP = b"\x1f\x8b"
_ZIP = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
_END_OF_ZIP = b"PK\x05\x06"
_END_OF_ZIP_BYTES = 22
_ENCRYPTED = 0x1
_PART = re.compile(r"conversations-([0-9]+)\.json")


def documents(file: ExportFile, limits: ExportLimits) -> Iterator[Iterator[bytes]]:
    """The JSON documents of an export, each as its pieces; one has to be read before the next is asked for.

    Raises:
        FinalError: `export_too_large` beyond a limit; `export_unreadable` for an archive that is damaged, cut off or encrypted,
            or has no conversations in it.
    """
    if file.size > limits.max_bytes:
        raise _too_large(f"more than {limits.max_bytes} bytes", "FULL_PASS_MAX_EXPORT_BYTES")
    buffered = _Buffered(file, PIECE_BYTES)
    first = buffered.peek(4)[:4]
    if first.startswith(_ZIP):
        yield from _documents_of_zip(buffered, file.size, limits)
    elif first.startswith(_GZIP):
        yield _Meter(file.size, limits).pass_on(_unpack_gzip(buffered))
    else:
        yield _Meter(file.size, limits).pass_on(_pieces(buffered))


def _too_large(what: str, setting: str) -> FinalError:
    return FinalError(ErrorCode.EXPORT_TOO_LARGE, f"The export has {what}, which is the limit ({setting}).")


class _Buffered(io.BufferedReader):
    """Never reads more at once than a ZIP's directory may have: how much that is stands in the file, which may lie."""

    def read(self, size: int | None = -1, /) -> bytes:
        whole_rest = size is None or size < 0
        data = super().read(_MAX_DIRECTORY_BYTES if whole_rest else min(size or 0, _MAX_DIRECTORY_BYTES + 1))
        if len(data) > _MAX_DIRECTORY_BYTES or (whole_rest and self.peek(1)):
            raise FinalError(ErrorCode.EXPORT_TOO_LARGE, "The export is an archive whose directory has more than 8 MiB.")
        return data


class _Meter:
    """Counts what was unpacked, of all documents together, and stops at the limits while it is being unpacked."""

    def __init__(self, packed_bytes: int, limits: ExportLimits) -> None:
        self._limits = limits
        self._most_by_ratio = limits.max_compression_ratio * packed_bytes
        self._unpacked_bytes = 0

    def pass_on(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """The same pieces, up to a limit."""
        for piece in pieces:
            self._unpacked_bytes += len(piece)
            if self._unpacked_bytes > self._limits.max_uncompressed_bytes:
                raise _too_large(
                    f"more than {self._limits.max_uncompressed_bytes} bytes when it is unpacked",
                    "FULL_PASS_MAX_EXPORT_UNCOMPRESSED_BYTES",
                )
            if self._unpacked_bytes > self._most_by_ratio:
                raise _too_large(
                    f"more than {self._limits.max_compression_ratio} times its size when it is unpacked",
                    "FULL_PASS_MAX_COMPRESSION_RATIO",
                )
            yield piece


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    while piece := file.read(PIECE_BYTES):
        yield piece


def _unpack_gzip(file: io.BufferedReader) -> Iterator[bytes]:
    """One or more members, which zeros may follow."""
    packed = file.read(PIECE_BYTES)
    while packed:
        unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        while not unpacker.eof:
            try:
                piece = unpacker.decompress(packed, PIECE_BYTES)
            except zlib.error:
                raise unreadable("it is a damaged gzip file, or has something behind its end") from None
            if piece:
                yield piece
            packed = unpacker.unconsumed_tail or (file.read(PIECE_BYTES) if not unpacker.eof else b"")
            if not packed and not piece and not unpacker.eof:
                raise unreadable("it is a gzip file that is cut off")
        packed = _behind_zeros(unpacker.unused_data, file)


def _behind_zeros(rest: bytes, file: io.BufferedReader) -> bytes:
    while True:
        rest = rest.lstrip(b"\0")
        if rest:
            return rest
        rest = file.read(PIECE_BYTES)
        if not rest:
            return b""


_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OverflowError, KeyError)


def _documents_of_zip(file: _Buffered, size: int, limits: ExportLimits) -> Iterator[Iterator[bytes]]:
    try:
        archive = zipfile.ZipFile(file)
    except _DAMAGED:
        raise unreadable("it is a ZIP archive that is damaged or cut off") from None
    with archive:
        file.seek(max(0, size - _END_OF_ZIP_BYTES - len(archive.comment)))
        if file.read(len(_END_OF_ZIP)) != _END_OF_ZIP:
            raise unreadable("it is a ZIP archive with something behind its end")
        members = _conversation_members(archive)
        meter = _Meter(min(size, sum(member.compress_size for member in members)), limits)
        for member in members:
            yield meter.pass_on(_unpack_member(archive, member))


def _conversation_members(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """`conversations.json` where it lies least deep, or else the parts `conversations-N.json` that do, by number."""
    files = {path: member for path, member in map(_path_of, archive.infolist()) if path}
    whole = [path for path in files if path[-1] == "conversations.json"]
    if whole:
        return [files[min(whole, key=len)]]
    parts = [path for path in files if _PART.fullmatch(path[-1])]
    least = min(map(len, parts), default=0)
    if not parts:
        raise unreadable("it is a ZIP archive without conversations.json or conversations-N.json")
    return [files[path] for path in sorted(parts, key=_part_order) if len(path) == least]


def _path_of(member: zipfile.ZipInfo) -> tuple[tuple[str, ...], zipfile.ZipInfo]:
    """A member's folders and name; none for a folder and for a path that leaves the archive."""
    path = tuple(member.filename.replace("\\", "/").split("/"))
    return (() if {"", ".."} & set(path) else path), member


def _part_order(path: tuple[str, ...]) -> tuple[int, str, tuple[str, ...]]:
    match = _PART.fullmatch(path[-1])
    number = match[1].lstrip("0") if match else ""
    return len(number), number, path


def _unpack_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[bytes]:
    if member.flag_bits & _ENCRYPTED:
        raise unreadable("it is an encrypted ZIP archive")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise unreadable(f"its ZIP archive uses compression method {member.compress_type}; 0 and 8 (deflate) are read")
    try:
        with archive.open(member) as unpacked:
            yield from _pieces(unpacked)
    except _DAMAGED:
        raise unreadable("its ZIP archive is damaged or cut off") from None
