"""The JSON documents in a ZIP archive, which may say anything of itself (specification 1)."""

from __future__ import annotations

import io
import re
import stat
import zipfile
import zlib
from bisect import bisect_right
from collections.abc import Iterator

from consumer.errors import FinalError
from consumer.exports.limits import PIECE_BYTES, ExportLimits, Meter, too_large
from consumer.exports.window import unreadable

_MAX_DIRECTORY_BYTES = 8 * 1024 * 1024  # some 80,000 members; the standard library holds all of them in memory

_END_OF_ZIP = b"PK\x05\x06"
_END_OF_ZIP_BYTES = 22
_LOCAL_HEADER_BYTES = 30
_ENCRYPTED = 0x1
_NAME_IN_UTF_8 = 0x800
_PART = re.compile(r"conversations-([0-9]+)\.json")
_NO_FOLDER = {"", "..", "__MACOSX"}  # nothing, one outside, and where macOS puts what belongs to files, not files

_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, OverflowError)

_MemberPath = tuple[str, ...]


class DirectoryReader(io.BufferedReader):
    """Never reads more at once than a ZIP's directory may have: how much that is stands in the file, which may lie."""

    def read(self, size: int | None = -1, /) -> bytes:
        whole_rest = size is None or size < 0
        data = super().read(_MAX_DIRECTORY_BYTES if whole_rest else min(size or 0, _MAX_DIRECTORY_BYTES + 1))
        if len(data) > _MAX_DIRECTORY_BYTES or (whole_rest and self.peek(1)):
            raise too_large(f"it is a ZIP archive whose directory has more than {_MAX_DIRECTORY_BYTES} bytes")
        return data


def documents_of_zip(file: DirectoryReader, size: int, limits: ExportLimits) -> Iterator[Iterator[bytes]]:
    """The documents in an archive of `size` bytes, each as its pieces; one has to be read before the next is asked for.

    Members that overlap are refused, so that the ratio limits what all of them unpack to.

    Raises:
        FinalError: `export_too_large` beyond a limit; `export_unreadable` for everything else.
    """
    try:
        archive = zipfile.ZipFile(file)
    except _DAMAGED:
        raise _damaged() from None
    with archive:
        _check_end(file, size, archive)
        members = _conversation_members(archive)
        _check_apart(archive, members)
        meter = Meter(min(size, sum(member.compress_size for member in members)), limits)
        for member in members:
            yield meter.pass_on(_unpack_member(archive, member))


def _damaged(how: str = "") -> FinalError:
    return unreadable(f"it is a ZIP archive that is damaged or cut off{how}; upload it again")


def _check_end(file: DirectoryReader, size: int, archive: zipfile.ZipFile) -> None:
    """The record that ends an archive has to end the file, too."""
    file.seek(max(0, size - _END_OF_ZIP_BYTES - len(archive.comment)))
    end = file.read(_END_OF_ZIP_BYTES)
    if not end.startswith(_END_OF_ZIP):
        raise unreadable("it is a ZIP archive with something behind its end")
    if int.from_bytes(end[-2:], "little") != len(archive.comment):
        raise _damaged()


def _conversation_members(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """`conversations.json` where it lies least deep, or else the parts `conversations-N.json` that do, by number."""
    files = {path: member for member in archive.infolist() if (path := _path_of(member))}
    whole = [path for path in files if path[-1] == "conversations.json"]
    if whole:
        return [files[min(whole, key=len)]]
    parts = [path for path in files if _PART.fullmatch(path[-1])]
    least = min(map(len, parts), default=0)
    if not parts:
        raise unreadable("it is a ZIP archive without conversations.json or conversations-N.json; upload the export itself")
    return [files[path] for path in sorted(parts, key=_part_order) if len(path) == least]


def _path_of(member: zipfile.ZipInfo) -> _MemberPath | None:
    """A member's folders and name; none for what is no file, such as a link, and for a path that leaves the archive."""
    path = tuple(member.orig_filename.replace("\\", "/").split("/"))
    kind = stat.S_IFMT(member.external_attr >> 16)
    return None if _NO_FOLDER & set(path) or kind not in (0, stat.S_IFREG) else path


def _part_order(path: _MemberPath) -> tuple[int, str, _MemberPath]:
    match = _PART.fullmatch(path[-1])
    number = match[1].lstrip("0") if match else ""
    return len(number), number, path


def _check_apart(archive: zipfile.ZipFile, members: list[zipfile.ZipInfo]) -> None:
    """No member that is read may reach into another one or the directory: a small archive could unpack to anything."""
    begins = sorted([*(member.header_offset for member in archive.infolist()), archive.start_dir])
    for member in members:
        name = member.orig_filename.encode("utf-8" if member.flag_bits & _NAME_IN_UTF_8 else "cp437")
        end = member.header_offset + _LOCAL_HEADER_BYTES + len(name) + member.compress_size
        following = bisect_right(begins, member.header_offset)
        shared = following > 1 and begins[following - 2] == member.header_offset
        if shared or (following < len(begins) and end > begins[following]):
            raise _damaged(", its members overlap")


def _unpack_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[bytes]:
    if member.flag_bits & _ENCRYPTED:
        raise unreadable("it is an encrypted ZIP archive; upload it without a password")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise unreadable(
            f"its ZIP archive uses compression method {member.compress_type}, and 0 and 8 (deflate) are read; pack it again"
        )
    if member.volume:
        raise unreadable("it is one part of a ZIP archive in several files; put them together")
    try:
        with archive.open(member) as unpacked:
            while piece := unpacked.read(PIECE_BYTES):
                yield piece
    except _DAMAGED:
        raise _damaged() from None
