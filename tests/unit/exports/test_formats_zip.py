"""ZIP archives: which members are read, and archives that are damaged, hostile or unusual (specification 1)."""

from __future__ import annotations

import gzip
import io
import json
import stat
import struct
import zipfile
from typing import Any

import pytest

from consumer.errors import FinalError
from consumer.exports.limits import ExportLimits
from schemas.events import ErrorCode
from tests.unit.exports.examples import read, simple
from tests.unit.exports.raw_zip import (
    ENCRYPTED,
    STREAMED,
    UTF_8,
    Member,
    quoting_the_next_header,
    raw_zip,
    sharing_one_kernel,
)
from tests.unit.exports.test_formats import _fails, _json, _said, _zip

NO_LIMITS = ExportLimits(1 << 40, 1 << 40, 1 << 30, 1 << 30)
NAME = b"conversations.json"


# Which members


def test_conversations_json_is_read_and_parts_beside_it_are_not() -> None:
    assert _said(_zip({"conversations-000.json": _json("part"), "x/conversations.json": _json("whole")})) == ["whole"]


def test_parts_are_read_with_and_without_a_manifest_and_less_deep_ones_before_others() -> None:
    parts = {f"x/conversations-{number}.json": _json(str(number)) for number in (2, 10, 1)}
    deeper = {"x/y/conversations-0.json": _json("deeper")}
    manifest = {"x/export_manifest.json": b'{"files": ["conversations-10.json"]}'}
    for more in ({}, deeper, manifest, {**manifest, **deeper}):
        assert _said(_zip({**more, **parts})) == ["1", "2", "10"]


def test_of_two_members_with_one_name_the_last_counts() -> None:
    """As unpacking to a folder would leave it."""
    content = raw_zip(Member(NAME, _json("old")), Member(NAME, _json("new")))
    assert _said(content) == ["new"]


def test_what_macos_stores_beside_files_is_no_export() -> None:
    members = {
        "__MACOSX/conversations.json": b"\0\5\x16\7",
        "__MACOSX/x/._conversations.json": b"\0",
        "x/conversations.json": _json("a"),
    }
    assert _said(_zip(members)) == ["a"]
    _fails(_zip({"__MACOSX/conversations.json": _json("a"), "._conversations.json": _json("a")}))


def test_a_link_is_not_followed_and_not_taken_for_the_file() -> None:
    link = Member(NAME, b"../../etc/passwd", external_attr=(stat.S_IFLNK | 0o777) << 16)
    assert _said(raw_zip(link, Member(b"x/" + NAME, _json("a")))) == ["a"]
    _fails(raw_zip(link))


def test_a_folder_named_like_the_file_is_not_taken_for_it() -> None:
    inside = Member(b"x/y/" + NAME, _json("a"))
    assert _said(raw_zip(Member(NAME + b"/", method=0), inside)) == ["a"]
    assert _said(raw_zip(Member(NAME, method=0, external_attr=(stat.S_IFDIR | 0o755) << 16), inside)) == ["a"]


@pytest.mark.parametrize(
    "name", [b"conversations.json\0.html", b"x\0/conversations.json\0", b"C:\\..\\conversations.json", b"\\\\h\\s\\..\\" + NAME]
)
def test_a_name_that_isnt_what_it_seems_is_not_read(name: bytes) -> None:
    _fails(raw_zip(Member(name, _json("a"))))


@pytest.mark.parametrize(
    ("folder", "flags"), [("Übung".encode(), UTF_8), ("データ".encode(), UTF_8), (b"\x9abung", 0), (b"\xff\xfe", 0)]
)
def test_folders_may_have_any_name_in_either_encoding(folder: bytes, flags: int) -> None:
    assert _said(raw_zip(Member(folder + b"/" + NAME, _json("a"), flags=flags))) == ["a"]


# Ways to write an archive


class _Unseekable(io.BytesIO):
    def seekable(self) -> bool:
        return False

    def tell(self) -> int:
        raise OSError


def test_an_archive_that_was_written_to_a_pipe_is_read() -> None:
    buffer = _Unseekable()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as writer:
        writer.writestr("conversations.json", _json("a", "b"))
    assert buffer.getvalue()[6] & STREAMED
    assert _said(buffer.getvalue()) == ["a", "b"]
    assert _said(raw_zip(Member(NAME, _json("a"), flags=STREAMED))) == ["a"]


def _zip64() -> bytes:
    """An archive whose directory is said to be where only the records for large archives tell."""
    content = bytearray(_zip({"chat.html": b"<html>" * 50, "conversations.json": _json("a", "b")}))
    end = content.index(b"PK\5\6")
    count, size, offset = struct.unpack("<H2I", content[end + 10 : end + 20])
    large = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, offset)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, end, 1)
    content[end + 8 : end + 20] = b"\xff" * 12
    content[end:end] = large + locator
    return bytes(content)


def test_zip64_is_read() -> None:
    assert _said(_zip64()) == ["a", "b"]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as writer, writer.open("conversations.json", "w", force_zip64=True) as member:
        member.write(_json("a"))
    assert _said(buffer.getvalue()) == ["a"]


def test_an_archive_may_have_a_comment_even_one_that_speaks_of_zip() -> None:
    for comment in (b"made by hand", b"PK\5\6", b"x" * 65_535):
        buffer = io.BytesIO(_zip({"conversations.json": _json("a")}))
        with zipfile.ZipFile(buffer, "a") as writer:
            writer.comment = comment
        if comment != b"PK\5\6":
            assert _said(buffer.getvalue()) == ["a"]
        for cut in (1, len(comment) // 2):
            _fails(buffer.getvalue()[:-cut])


def test_an_archive_behind_a_program_is_no_zip_by_its_first_bytes() -> None:
    assert "program" in _fails(b"MZ" + b"\0" * 500 + _zip({"conversations.json": _json("a")})).detail


def test_one_file_of_an_archive_in_several_is_unreadable_and_says_so() -> None:
    assert "in several files" in _fails(raw_zip(Member(NAME, _json("a"), volume=1), disk=1)).detail
    _fails(b"PK\7\x08" + _zip({"conversations.json": _json("a")})[:100])


@pytest.mark.parametrize("method", [1, 6, 9, 12, 14, 93, 98, 99])
def test_a_compression_that_isnt_read_is_named(method: int) -> None:
    """9 is what Windows uses beyond 2 GB."""
    assert f"method {method}," in _fails(raw_zip(Member(NAME, method=method, packed=b"xx"))).detail


@pytest.mark.parametrize(("flags", "method"), [(ENCRYPTED, 8), (ENCRYPTED | STREAMED, 8), (ENCRYPTED | 0x40, 8), (ENCRYPTED, 99)])
def test_every_kind_of_encryption_is_called_so(flags: int, method: int) -> None:
    content = raw_zip(Member(NAME, method=method, flags=flags, packed=b"x" * 40))
    assert "without a password" in _fails(content).detail


def test_other_members_may_be_encrypted_or_packed_in_other_ways() -> None:
    others = (Member(b"chat.html", flags=ENCRYPTED, packed=b"x" * 40), Member(b"a.png", method=93, packed=b"xx"))
    assert _said(raw_zip(*others, Member(NAME, _json("a")))) == ["a"]


# Damage


@pytest.mark.parametrize("signature", [b"PK\1\2", b"PK\5\6"])
def test_each_record_that_is_damaged_makes_the_archive_unreadable(signature: bytes) -> None:
    content = raw_zip(Member(NAME, _json("a")))
    assert _said(content) == ["a"]
    place = content.index(signature)
    _fails(content[: place + 2] + b"\3\3" + content[place + 4 :])


def test_records_for_large_archives_that_are_damaged_make_it_unreadable() -> None:
    content = _zip64()
    for signature in (b"PK\6\6", b"PK\6\7"):
        _fails(content.replace(signature, b"PKxx"))
    place = content.index(b"PK\6\6")
    for start in (place + 40, place + 48):
        for value in (b"\xff" * 8, b"\xff" * 7 + b"\x7f", b"\1" + b"\0" * 7):
            _fails(content[:start] + value + content[start + 8 :])
    _fails(content[: place + 56 + 16] + b"\2\0\0\0" + content[place + 56 + 20 :])


def test_content_that_isnt_what_was_packed_is_unreadable_even_after_conversations_were_read() -> None:
    content = _zip({"conversations.json": _json("a", "b")}, zipfile.ZIP_STORED)
    _fails(content.replace(b'"b"', b'"c"'))


@pytest.mark.parametrize("member", [
    Member(NAME, _json("a"), size=10), Member(NAME, _json("a"), packed_size=10), Member(NAME, _json("a"), packed=b"\xff" * 30),
    Member(NAME, _json("a"), offset=1), Member(NAME, _json("a"), offset=(1 << 32) - 1),
    Member(NAME, _json("a"), packed_size=1 << 30), Member(b"\xff" + NAME, _json("a"), flags=UTF_8),
    Member(NAME, _json("a"), flags=0x20),
])  # fmt: skip
def test_a_member_that_says_something_wrong_of_itself_is_unreadable(member: Member) -> None:
    _fails(raw_zip(member))


# Bombs


@pytest.mark.parametrize("made", [sharing_one_kernel, quoting_the_next_header])
def test_members_that_overlap_are_refused_before_anything_is_unpacked(made: Any) -> None:
    """A few kilobytes would become gigabytes otherwise, and not all versions of the library notice."""
    kernel = json.dumps([simple("x" * 30_000)]).encode()
    names = [b"conversations-%d.json" % number for number in range(100)]
    content = made(names, kernel)
    assert len(content) * 100 < len(kernel) * len(names)
    assert _said(made(names[:1], kernel)) == ["x" * 5_001]
    with pytest.raises(FinalError) as caught:
        read(content, NO_LIMITS)
    assert caught.value.code is ErrorCode.EXPORT_UNREADABLE
    assert "overlap" in caught.value.detail


def test_members_with_one_place_are_refused() -> None:
    names = [b"conversations-1.json", b"conversations-2.json"]
    content = raw_zip(Member(names[0], _json("a")), Member(names[1], _json("b"), offset=0))
    assert "overlap" in _fails(content).detail


def test_a_long_name_doesnt_hide_that_members_overlap() -> None:
    """Otherwise the beginning of the next member seems to stand behind the end of the one before."""
    names = [b"d" * 15_000 + b"/conversations-%d.json" % number for number in range(3)]
    assert "overlap" in _fails(sharing_one_kernel(names, _json("x" * 1_000_000))).detail


def test_what_the_whole_archive_unpacks_to_counts_against_its_ratio_and_not_what_each_member_does() -> None:
    spaces = b"[" + b" " * 500_000 + b"]"
    content = _zip({f"conversations-{number}.json": spaces for number in range(5)})
    assert read(content) == []
    _fails(content, ErrorCode.EXPORT_TOO_LARGE, max_compression_ratio=100)
    _fails(content, ErrorCode.EXPORT_TOO_LARGE, max_uncompressed_bytes=2_000_000)


def test_padding_doesnt_make_room_for_a_bomb() -> None:
    """The ratio is that of the members that are read."""
    content = _zip({"padding": bytes(1_000_000), "conversations.json": b"[" + b" " * 1_000_000 + b"]"})
    padded = raw_zip(Member(b"padding", bytes(1_000_000), method=0), Member(NAME, b"[" + b" " * 1_000_000 + b"]"))
    for each in (content, padded):
        _fails(each, ErrorCode.EXPORT_TOO_LARGE, max_compression_ratio=100)


def test_archives_inside_of_the_archive_are_not_unpacked() -> None:
    inner = _zip({"conversations.json": _json("a")})
    _fails(_zip({"inner.zip": inner, "x/conversations.json.zip": inner}))
    assert "inside of another file" in _fails(_zip({"conversations.json": inner})).detail
    assert "inside of another file" in _fails(_zip({"conversations.json": gzip.compress(_json("a"))})).detail
    assert "inside of another file" in _fails(gzip.compress(inner)).detail


def test_a_directory_size_that_lies_doesnt_fill_the_memory() -> None:
    content = bytearray(raw_zip(Member(NAME, _json("a"))))
    end = content.rindex(b"PK\5\6")
    padded = content[:end] + bytes(9 * 1024 * 1024) + content[end:]
    at = len(padded) - 22 + 12
    padded[at : at + 4] = (len(padded) - 22).to_bytes(4, "little")
    _fails(bytes(padded), ErrorCode.EXPORT_TOO_LARGE, max_bytes=20_000_000)


def test_limits_of_a_member_hold_whatever_it_says_of_its_size() -> None:
    content = raw_zip(Member(NAME, b"[" + b" " * 3_000_000 + b"]", size=(1 << 32) - 2))
    _fails(content, ErrorCode.EXPORT_TOO_LARGE, max_uncompressed_bytes=2_000_000)
