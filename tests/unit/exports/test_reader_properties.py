"""Whatever a file holds: the reader ends, or says that it can't be read; what comes out can be stored (specification 1 to 3)."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from random import Random
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from consumer.exports.conversations import Conversation
from tests.fuzz import check, outcome
from tests.unit.exports.examples import LIMITS

_CALM = settings(deadline=None)  # a machine under load is no fault of the reader
_RANDOM = st.randoms(use_true_random=False)
_TEXT = st.one_of(
    st.text(st.characters(exclude_categories=()), max_size=8),
    st.sampled_from(["user", "assistant", "all", "a", "b", "},{", '"', "\\", "\0", "\ud800", "x" * 9_000, "Words. " * 2_000]),
)
_ANY = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), _TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_TEXT, inner, max_size=3)),
    max_leaves=6,
)


def _fields(**values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """An object that may have these fields; each may hold anything instead."""
    return st.one_of(st.fixed_dictionaries({}, optional={name: st.one_of(value, _ANY) for name, value in values.items()}), _ANY)


_CONTENT = st.one_of(_TEXT, _fields(content_type=_TEXT, text=_TEXT, parts=st.lists(_fields(text=_TEXT), max_size=3)))
_MESSAGE = _fields(
    author=_fields(role=_TEXT), role=_TEXT, sender=_TEXT, recipient=_TEXT, text=_TEXT, content=_CONTENT,
    metadata=_fields(is_user_system_message=st.booleans(), is_visually_hidden_from_conversation=st.booleans()),
)  # fmt: skip
_KEY = st.sampled_from(["a", "b", "c"])
_NODE = _fields(message=_MESSAGE, parent=_KEY, children=st.lists(_KEY, max_size=3))
_CONVERSATION = _fields(
    mapping=st.dictionaries(_KEY, _NODE, max_size=3), current_node=_KEY, messages=st.lists(_MESSAGE, max_size=3),
    chat_messages=st.lists(_MESSAGE, max_size=3), title=_TEXT, name=_TEXT, id=_TEXT, create_time=st.one_of(st.floats(), _TEXT),
)  # fmt: skip


def _bytes(document: Any) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogatepass")


@_CALM
@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"[", b"{", b'[{"mapping":', b"\x1f\x8b\x08\0", b"PK\x03\x04", b"PK\x05\x06"]),
    _RANDOM,
)
@example(b"", b"", Random(0))
def test_bytes_of_any_kind_are_read_or_refused(content: bytes, begin: bytes, draw: Random) -> None:
    check(begin + content, draw)


@_CALM
@given(st.text('[]{}",:\\ntrue0.-eE\n ', max_size=60), _RANDOM)
def test_text_that_looks_like_json_is_read_or_refused(text: str, draw: Random) -> None:
    check(text.encode(), draw)


@_CALM
@given(st.lists(_CONVERSATION, max_size=4), _RANDOM)
def test_an_array_is_read_to_its_end_whatever_its_elements_hold(elements: list[Any], draw: Random) -> None:
    """A conversation that is odd costs itself at most, and those that are not well-formed are none of these."""
    content = _bytes(elements)
    assert check(content, draw) == "read"
    assert len(outcome(content)[1]) == len(elements)


@_CALM
@given(st.lists(_CONVERSATION, max_size=2), st.dictionaries(_TEXT, _ANY, max_size=2))
def test_the_same_comes_out_of_every_kind_of_file(elements: list[Any], more: dict[str, Any]) -> None:
    content = _bytes(elements)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/conversations.json", content)
    more.pop("conversations", None)
    for other in (
        gzip.compress(content),
        buffer.getvalue(),
        _bytes({"conversations": elements, **more}),
        b"\xef\xbb\xbf" + content,
    ):
        assert outcome(other, LIMITS) == outcome(content, LIMITS)


@_CALM
@given(
    st.lists(_CONVERSATION, min_size=1, max_size=3),
    st.integers(0, 3),
    st.sampled_from(['{"mapping": {"a": {"message": }}}', '{"a" 1}', '{"mapping": tru}', "[1 2]"]),
)
def test_a_broken_element_leaves_its_neighbours_as_they_are(elements: list[Any], place: int, broken: str) -> None:
    written = [_bytes(element) for element in elements]
    written.insert(place, broken.encode())
    ending, found = outcome(b"[" + b",".join(written) + b"]")
    place = min(place, len(elements))
    good = outcome(_bytes(elements))[1]
    assert [_same(each) for each in found[:place] + found[place + 1 :]] == [_same(each) for each in good]
    assert not isinstance(found[place], Conversation)
    assert ending == ("read" if any(isinstance(each, Conversation) for each in good) else "export_unreadable")


def _same(element: Any) -> Any:
    """What of an element doesn't depend on its place."""
    return (element.title, element.create_time, element.messages) if isinstance(element, Conversation) else element.reason
