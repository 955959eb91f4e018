"""JSON, gzip and ZIP, whole and damaged (specification 1)."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
import zlib
from dataclasses import replace
from typing import Any

import pytest

from consumer.errors import FinalError
from consumer.exports.conversations import Conversation, Skipped
from schemas.events import ErrorCode
from tests.unit.exports.examples import LIMITS, node, read, simple


def _json(*names: str) -> bytes:
    return json.dumps([simple(name) for name in names]).encode()


def _zip(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _said(content: bytes) -> list[str]:
    return [element.messages[0].text for element in read(content) if isinstance(element, Conversation)]


def _fails(content: bytes | Any, code: ErrorCode = ErrorCode.EXPORT_UNREADABLE, **limits: int) -> FinalError:
    with pytest.raises(FinalError) as caught:
        read(content, replace(LIMITS, **limits))
    assert caught.value.code is code
    return caught.value


def test_an_array_an_object_with_conversations_and_one_conversation_are_read() -> None:
    assert _said(_json("a", "b")) == ["a", "b"]
    assert _said(b'{"user": {}, "conversations": ' + _json("a", "b") + b', "more": [{}, {}]}') == ["a", "b"]
    assert _said(json.dumps(simple("a")).encode()) == ["a"]
    assert _said(b"\xef\xbb\xbf" + _json("a")) == ["a"]


@pytest.mark.parametrize("document", [{}, {"a": 1}, {"mapping": []}, {"data": {"conversations": []}}, {"conversations": {}}])
def test_an_object_that_holds_no_conversation_is_unreadable(document: Any) -> None:
    _fails(document)


def test_an_empty_array_yields_nothing() -> None:
    assert read(b"[]") == []


def test_what_is_no_conversation_is_skipped_by_its_index() -> None:
    document = [simple("a"), 7, None, "text", [simple("b")], {}, {"mapping": []}, {"messages": {}}, simple("c")]
    skipped = [element.index for element in read(document) if isinstance(element, Skipped)]
    assert skipped == [1, 2, 3, 4, 5, 6, 7]


def test_a_malformed_conversation_among_good_ones_is_skipped() -> None:
    elements = read(
        b"[" + json.dumps(simple("a")).encode() + b', {"mapping": nonsense}, ' + json.dumps(simple("b")).encode() + b"]"
    )
    assert [type(element) for element in elements] == [Conversation, Skipped, Conversation]


def test_a_file_of_nothing_but_malformed_elements_is_unreadable() -> None:
    _fails(b'[{"mapping": nonsense}]')


DEEP = b"[" * 100_000 + b"]" * 100_000


def test_nesting_that_no_parser_takes_costs_what_is_nested() -> None:
    message = b'{"role": "user", "content": "x"}'
    beside, inside = (
        b'"messages": [' + message + b'], "more": ' + DEEP,
        b'"messages": [{"content": ' + DEEP + b"}, " + message + b"]",
    )
    elements = read(b"[{" + beside + b"}, {" + inside + b"}, " + DEEP + b", " + json.dumps(simple("a")).encode() + b"]")
    assert [type(element) for element in elements] == [Conversation, Conversation, Skipped, Conversation]
    for element in elements[:2]:
        assert isinstance(element, Conversation)
        assert [each.text for each in element.messages] == ["x"]


def test_nesting_that_no_parser_takes_in_a_large_conversation_costs_what_is_nested() -> None:
    deep = b"[" * 1_100_000 + b"]" * 1_100_000
    parts = b'{"parts": ["x", ' + deep + b', "y"]}'
    [found] = read(b'[{"messages": [{"role": "user", "content": ' + parts + b'}, {"role": "user", "content": "z"}]}]')
    assert isinstance(found, Conversation)
    assert [each.text for each in found.messages] == ["x\ny", "z"]


def test_a_node_that_is_nested_too_deeply_keeps_its_place_and_what_can_be_read_of_it() -> None:
    nodes = {"a": node("a", None, ["b"]), "b": node("b", "a", ["c"]), "c": node("c", "b")}
    nodes["b"]["message"]["metadata"] = {"more": "DEEP"}
    document = json.dumps([{"mapping": nodes, "current_node": "c"}]).encode().replace(b'"DEEP"', DEEP)
    [found] = read(document)
    assert isinstance(found, Conversation)
    assert len(found.messages) == 3


def test_conversations_before_the_damage_dont_save_a_file_that_is_cut_off() -> None:
    content = _json("a", "b")
    for end in (1, 20, len(content) // 2, len(content) - 1):
        _fails(content[:end])


# What a file is by its first bytes


@pytest.mark.parametrize(("content", "said"), [
    (b"", "empty"), (gzip.compress(b""), "empty"), (bytes(5_000), "zeros"), (b"<!DOCTYPE html><html>", "HTML"),
    (b"\xef\xbb\xbf<html>", "HTML"), (b"\r\n <html>", "HTML"),
    (b"Rar!\x1a\7", "RAR"), (b"7z\xbc\xaf\x27\x1c", "7-Zip"), (b"BZh91AY", "bzip2"), (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd\4", "Zstandard"), (b"%PDF-1.7", "PDF"), (gzip.compress(b"PK\3\4"), "inside of another file"),
])  # fmt: skip
def test_a_file_that_is_known_to_be_something_else_is_called_so(content: bytes, said: str) -> None:
    detail = _fails(content).detail
    assert said in detail
    assert "expected JSON" in detail


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
def test_text_in_utf_16_or_32_is_unreadable_and_says_so(encoding: str) -> None:
    """Windows writes UTF-16 where somebody sends a text through its shell."""
    for text in (_json("a").decode(), '{"conversations": []}', " [\n]"):
        for content in (text.encode(encoding), ("\ufeff" + text).encode(encoding), gzip.compress(text.encode(encoding))):
            assert "UTF-8" in _fails(content).detail


@pytest.mark.parametrize(
    "content", [b" \n\t ", b" " * 5_000_000, b"null", b"3", b'"x"', b"true", b"\xef\xbb\xbf", b"conversations"]
)
def test_what_is_no_array_and_no_object_is_unreadable(content: bytes) -> None:
    for each in (content, gzip.compress(content), _zip({"conversations.json": content})):
        _fails(each)


def test_json_lines_are_no_export() -> None:
    _fails(b"\n".join(json.dumps(simple(text)).encode() for text in "abc"))
    _fails(b"[]\n[]")


def test_a_file_that_is_shorter_than_any_first_bytes_is_unreadable() -> None:
    for content in (b"P", b"PK", b"PK\3", b"PK\3\4", b"\x1f", b"\x1f\x8b", b"\x1f\x8b\x08", b"{", b"["):
        _fails(content)


# ZIP


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_zip_is_known_by_its_first_bytes(method: int) -> None:
    assert _said(_zip({"chat.html": b"<html>", "conversations.json": _json("a", "b")}, method)) == ["a", "b"]


def test_the_shallowest_conversations_json_wins() -> None:
    members = {
        "x/y/conversations.json": _json("deep"),
        "x/conversations.json": _json("less"),
        "conversations-1.json": _json("part"),
    }
    assert _said(_zip(members)) == ["less"]
    assert _said(_zip({"x\\y\\conversations.json": _json("deep"), "z/conversations.json": _json("less")})) == ["less"]


def test_parts_are_read_in_the_order_of_their_numbers() -> None:
    members = {f"x/conversations-{number}.json": _json(number) for number in ("10", "002", "0", "1", "00000000000000000000011")}
    members |= {
        "export_manifest.json": b"{}",
        "conversations-x.json": b"x", "x-conversations-1.json": b"", "x/conversations-1.json.bak": b"x",
        "x/y/conversations-3.json": _json("deeper"), "conversations-٣.json": b"x",
    }  # fmt: skip
    assert _said(_zip(members)) == ["0", "1", "002", "10", "00000000000000000000011"]


def test_positions_go_on_across_parts() -> None:
    elements = read(_zip({"conversations-0.json": b'[7, {"mapping": {}}]', "conversations-1.json": _json("a")}))
    assert [element.index for element in elements] == [0, 1, 2]
    assert elements[2].conversation_id == "conv_2"  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["Conversations.json", "conversations.json/x", "my-conversations.json", "conversations.json.gz"])
def test_a_zip_without_conversations_is_unreadable(name: str) -> None:
    _fails(_zip({name: _json("a")}))
    _fails(_zip({}))


@pytest.mark.parametrize(
    "name", ["../conversations.json", "/conversations.json", "x/../../conversations.json", "..\\conversations.json"]
)
def test_a_member_whose_name_leaves_the_archive_is_not_read(name: str) -> None:
    assert _said(_zip({name: _json("outside"), "x/y/z/conversations.json": _json("inside")})) == ["inside"]
    _fails(_zip({name: _json("outside")}))


def _set_flag(content: bytes, flag: int) -> bytes:
    """The archive with a flag set in the headers of its only member."""
    changed = bytearray(content)
    changed[6] |= flag
    changed[content.index(b"PK\x01\x02") + 8] |= flag
    return bytes(changed)


def test_an_encrypted_zip_is_unreadable_and_says_so() -> None:
    assert "encrypted" in _fails(_set_flag(_zip({"conversations.json": _json("a")}), 1)).detail


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_compression_that_unpacks_without_bound_is_unreadable_and_says_which(method: int) -> None:
    assert str(method) in _fails(_zip({"conversations.json": _json("a")}, method)).detail


def test_a_zip_that_is_cut_off_anywhere_is_unreadable() -> None:
    content = _zip({"conversations.json": _json("a", "b")})
    for end in range(4, len(content)):
        _fails(content[:end])


def test_a_zip_that_is_damaged_anywhere_never_says_something_else() -> None:
    """Either what the archive says of itself no longer holds, or the damage is where nobody looks."""
    content = _zip({"conversations.json": _json("a", "b")})
    for place in range(4, len(content)):
        for bit in (1, 128):
            damaged = content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :]
            try:
                assert _said(damaged) == ["a", "b"]
            except FinalError as error:
                assert error.code in (ErrorCode.EXPORT_UNREADABLE, ErrorCode.EXPORT_TOO_LARGE)  # noqa: PT017


def test_a_zip_with_something_behind_its_end_is_unreadable() -> None:
    _fails(_zip({"conversations.json": _json("a")}) + b"more")


def test_the_members_of_a_zip_are_json_and_nothing_else() -> None:
    _fails(_zip({"conversations.json": gzip.compress(_json("a"))}))
    _fails(_zip({"conversations.json": _zip({"conversations.json": _json("a")})}))


# Limits


def test_a_file_may_be_exactly_as_large_as_the_limit() -> None:
    content = _json("a")
    assert len(read(content, replace(LIMITS, max_bytes=len(content), max_uncompressed_bytes=len(content)))) == 1
    _fails(content, ErrorCode.EXPORT_TOO_LARGE, max_bytes=len(content) - 1)
    _fails(content, ErrorCode.EXPORT_TOO_LARGE, max_uncompressed_bytes=len(content) - 1)


def _packed_spaces() -> list[bytes]:
    spaces = b"[" + b" " * 3_000_000 + b"]"
    return [
        gzip.compress(spaces),
        _zip({"conversations.json": spaces}),
        _zip({"conversations-1.json": b"[]", "conversations-2.json": spaces}),
    ]


@pytest.mark.parametrize("content", _packed_spaces())
def test_a_bomb_is_too_large_by_what_it_unpacks_to_and_by_its_ratio(content: bytes) -> None:
    assert read(content) == []
    _fails(content, ErrorCode.EXPORT_TOO_LARGE, max_uncompressed_bytes=2_000_000)
    _fails(content, ErrorCode.EXPORT_TOO_LARGE, max_compression_ratio=200)


def test_a_bomb_is_not_unpacked_beyond_its_limit() -> None:
    """The rest is nonsense: it would be unreadable if it were looked at."""
    packer = zlib.compressobj(wbits=31)
    content = packer.compress(b"[" + b" " * 5_000_000 + b"nonsense") + packer.flush()
    _fails(content, ErrorCode.EXPORT_TOO_LARGE, max_compression_ratio=100)


def test_parts_count_together() -> None:
    parts = {f"conversations-{number}.json": _json("x" * 1000) for number in range(5)}
    _fails(_zip(parts, zipfile.ZIP_STORED), ErrorCode.EXPORT_TOO_LARGE, max_uncompressed_bytes=4_000)


def test_a_member_that_lies_about_its_packed_size_has_no_more_room() -> None:
    content = bytearray(_zip({"conversations.json": b"[" + b" " * 1_000_000 + b"]"}))
    packed_size = content.index(b"PK\x01\x02") + 20
    content[packed_size : packed_size + 4] = (1 << 30).to_bytes(4, "little")
    with pytest.raises(FinalError):
        read(bytes(content), replace(LIMITS, max_compression_ratio=100))


def test_a_directory_that_would_fill_the_memory_is_too_large() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("conversations.json", _json("a"))
        for number in range(200):
            archive.writestr(f"{number}/" + "x" * 60_000, b"")
    _fails(buffer.getvalue(), ErrorCode.EXPORT_TOO_LARGE, max_bytes=100_000_000)


def test_conversations_beyond_the_limit_are_too_large() -> None:
    assert len(read(_json("a", "b"), replace(LIMITS, max_conversations=2))) == 2
    _fails(_json("a", "b", "c"), ErrorCode.EXPORT_TOO_LARGE, max_conversations=2)


def test_details_quote_nothing_of_the_file() -> None:
    for content in (b"SECRET", b'[{"a": SECRET}]', b'["a" SECRET]', b'{"SECRET": 1}', _zip({"SECRET": b""}), b"PK\x03\x04SECRET"):
        assert "SECRET" not in _fails(content).detail
