"""The top level of an export, cut into elements (specification 1)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.errors import FinalError
from consumer.exports.splitting import split
from schemas.events import ErrorCode

_NONE = object()


def _decode(data: memoryview) -> Any:
    """A JSON value (null as a mark, since None says that there is none)."""
    try:
        value = json.loads(bytes(data))
    except ValueError:
        return None
    return _NONE if value is None else value


def _pieces(document: bytes, size: int) -> Iterator[bytes]:
    return (document[start : start + size] for start in range(0, len(document), size))


def _split(document: bytes | str, size: int = 1 << 20) -> list[Any]:
    data = document.encode() if isinstance(document, str) else document
    return [None if value is _NONE else value for value, _ in split(_pieces(data, size), _decode)]


def _unreadable(document: bytes | str, size: int = 1 << 20) -> None:
    with pytest.raises(FinalError) as caught:
        _split(document, size)
    assert caught.value.code is ErrorCode.EXPORT_UNREADABLE


_TRICKY = st.sampled_from(["},{", '"', "\\", '\\"', "}]", "[{", '","', "é", "\n", "\u2028", ""])
_TEXT = st.lists(st.one_of(st.text(max_size=5), _TRICKY), max_size=4).map("".join)
_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), _TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(_TEXT, inner, max_size=4)),
    max_leaves=12,
)


@given(st.lists(_JSON, max_size=6), st.integers(1, 40), st.sampled_from([None, 0, 2]), st.booleans())
def test_elements_are_what_a_json_parser_finds_wherever_the_pieces_end(
    elements: list[Any], size: int, indent: int | None, ascii_only: bool
) -> None:
    document = json.dumps(elements, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    assert _split(document, size) == elements


@given(
    st.lists(_JSON, max_size=4),
    st.dictionaries(_TEXT, _JSON, max_size=3),
    st.dictionaries(_TEXT, _JSON, max_size=3),
    st.integers(1, 40),
)
def test_the_array_conversations_is_found_among_other_members(
    elements: list[Any], before: dict[str, Any], after: dict[str, Any], size: int
) -> None:
    document = json.dumps({**before, "conversations": elements, **after}, ensure_ascii=True)
    assert _split(document, size) == elements


@given(st.lists(_JSON, min_size=1, max_size=3), st.integers(1, 40), st.randoms(use_true_random=False))
def test_a_document_that_is_cut_off_anywhere_is_unreadable(elements: list[Any], size: int, place: Random) -> None:
    document = json.dumps(elements).encode()
    for end in (place.randrange(len(document)), len(document) - 1):
        _unreadable(document[:end], size)


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("tail", ["]", "x", "[]", "{}", ",", "0", '""', "\ufeff", "\0"])
def test_text_after_the_end_makes_the_whole_file_unreadable(tail: str, size: int) -> None:
    _unreadable('[{"a": 1}, {"b": 2}] ' + tail, size)
    _unreadable('{"conversations": [{"a": 1}, {"b": 2}]} ' + tail, size)
    _unreadable('{"mapping": {}} ' + tail, size)


def test_white_space_after_the_end_is_no_text() -> None:
    assert _split('[{"a": 1}]\r\n\t \n') == [{"a": 1}]


def test_a_second_array_after_the_end_is_seen_even_between_objects() -> None:
    _unreadable('[{"a": 1}] [{"b": 2}, {"c": 3}]')


@pytest.mark.parametrize(
    "document", ["", " \n", '"text"', "17", "null", "<html>", "PK", "nonsense", "}", "]", "\ufeff", "\0\0\0\0"]
)
def test_what_is_neither_array_nor_object_is_unreadable(document: str) -> None:
    _unreadable(document)


@pytest.mark.parametrize(
    "document",
    [
        '[{"a": 1},]',
        '[{"a": 1} {"b": 2}]',
        '[{"a": 1}, {"b": 2} {"c": 3}, {"d": 4}]',
        "[,]",
        '[{"a": 1}}, {"b": 2}]',
        '[{"a": 1}, nonsense]',
        '[{"a": 1}, {"b": 2}',
        '{"conversations": [{"a": 1}], "more"}',
        '{"conversations": [{"a": 1}] "more": 1}',
        '{"conversations": [{"a": 1}]]',
        '{"conversations" [{"a": 1}]}',
        '{"a": }',
        '{"a": 1',
    ],
)
def test_brackets_and_commas_that_dont_add_up_make_the_file_unreadable(document: str) -> None:
    for size in (1, 1000):
        with pytest.raises(FinalError) as caught:
            list(split(_pieces(document.encode(), size), _decode))
        assert caught.value.code is ErrorCode.EXPORT_UNREADABLE


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_malformed_element_is_none_and_its_neighbours_are_read(size: int) -> None:
    document = '[{"a": 1}, {"b": nonsense}, {"c": 3}, {[}], [1 2], {"d": 4}]'
    assert [value for value, _ in split(_pieces(document.encode(), size), _decode)] == [
        {"a": 1}, None, {"c": 3}, None, None, {"d": 4}
    ]  # fmt: skip


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_elements_that_are_no_objects_stand_where_they_stood(size: int) -> None:
    assert _split('[1, {"a": 1}, null, "},{", [[{}, {}]], {"b": {"c": [{}, {}]}}, true, -1.5e3]', size) == [
        1, {"a": 1}, None, "},{", [[{}, {}]], {"b": {"c": [{}, {}]}}, True, -1500.0
    ]  # fmt: skip


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_an_object_without_conversations_comes_as_a_whole(size: int) -> None:
    document = b'{"title": "},{", "mapping": {"conversations": [1]}, "conversations": "none"}'
    assert list(split(_pieces(document, size), _decode)) == [(json.loads(document), True)]


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_a_byte_order_mark_is_no_text(size: int) -> None:
    assert _split(b'\xef\xbb\xbf[{"a": 1}]', size) == [{"a": 1}]


def test_an_empty_array_has_no_elements() -> None:
    assert _split("[ ]") == []
    assert _split('{"conversations": []}') == []


def test_elements_come_before_the_rest_of_the_document_is_read() -> None:
    """Memory would grow with the export otherwise."""
    read = 0

    def pieces() -> Iterator[bytes]:
        nonlocal read
        for piece in (b"[", *[b'{"a": "' + b"x" * 1000 + b'"},'] * 100, b"0]"):
            read += len(piece)
            yield piece

    elements = split(pieces(), _decode)
    for count in range(1, 101):
        next(elements)
        assert read < (count + 2) * 1010


def test_an_element_that_is_larger_than_what_can_be_held_is_too_large() -> None:
    document = b'[{"a": "' + b"x" * 5000 + b'"}, {"b": 1}]'
    with pytest.raises(FinalError) as caught:
        list(split(_pieces(document, 100), _decode, max_conversation_bytes=2000))
    assert caught.value.code is ErrorCode.EXPORT_TOO_LARGE


@pytest.mark.parametrize("size", [1, 5, 64, 10_000])
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), (",\n ", ": ")])
def test_what_looks_like_the_end_of_a_conversation_inside_of_one_is_not_taken_for_it(
    size: int, separators: tuple[str, str]
) -> None:
    """The end of an element is guessed from the one before it."""
    inner = [{"title": 1}, {"title": '}, {"title": 2}, {"title": '}, {"title": {"a": [{"title": 3}, {"title": 4}]}}]
    elements = [
        {"title": "a"},
        {"title": "b"},
        {"title": "c", "parts": inner},
        {"title": "d"},
        {"id": "e"},
        {"title": "f", "more": inner},
    ]
    assert _split(json.dumps(elements, separators=separators), size) == elements


def test_a_guess_that_never_comes_true_is_given_up_before_it_fills_the_memory() -> None:
    """Elements that don't begin like those before them would otherwise be held until the end of the document."""
    elements = [{"title": 1}, {"title": 2}, *[{"id": "x" * 10_000}] * 1_000]
    pieces = _pieces(json.dumps(elements).encode(), 1 << 16)
    assert len(list(split(pieces, _decode, max_conversation_bytes=5_000_000))) == len(elements)
