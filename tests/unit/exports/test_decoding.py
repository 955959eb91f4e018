"""Two ways to decode a conversation, one result; and nothing that a file says goes beyond our errors."""

from __future__ import annotations

import gzip
import json
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.errors import FinalError
from consumer.exports.decoding import RawConversation, decode
from consumer.exports.large import read_large
from consumer.exports.messages import visible_messages
from consumer.exports.text import create_time_of, id_of, title_of
from schemas.events import ErrorCode
from tests.unit.exports.examples import LIMITS, node, read, simple, with_content
from tests.unit.exports.test_formats import _zip

SEED = 2026
_INSERTED = (b'"', b"{", b"}", b"[", b"]", b",", b"\\", b"\0", b"\xff", b"},{", b"1e999")

_KEYS = st.sampled_from(["a", "message", "parent", "children", "author", "role", "content", "content_type", "parts", "text"])
_ODD = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.floats(), st.text(max_size=3), st.just("user"), st.just("a")),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            _KEYS,
            inner,
            max_size=4,
        ),
    ),
    max_leaves=10,
)
_NODE = st.fixed_dictionaries({}, optional={"message": _ODD, "parent": _ODD, "children": _ODD})
_CONVERSATION = st.fixed_dictionaries(
    {},
    optional={
        "mapping": st.one_of(_ODD, st.dictionaries(st.sampled_from(["a", "b", "c"]), st.one_of(_NODE, _ODD), max_size=3)),
        **dict.fromkeys(("messages", "chat_messages", "current_node", "title", "create_time", "id", "other"), _ODD),
    },
)  # fmt: skip


def _at_once(data: memoryview) -> Any:
    raw = decode(data)
    return (raw, visible_messages(raw)) if isinstance(raw, RawConversation) else raw


def _seen(found: Any) -> Any:
    """What is seen of a conversation that was read either way."""
    if found is None or isinstance(found, str):
        return found
    raw, messages = found
    return id_of(raw), title_of(raw), create_time_of(raw), messages


@given(_CONVERSATION, st.sampled_from([None, 1]))
def test_a_large_conversation_that_is_decoded_in_parts_says_the_same(conversation: dict[str, Any], indent: int | None) -> None:
    data = memoryview(json.dumps(conversation, indent=indent).encode())
    assert _seen(read_large(data, piece_bytes=8)) == _seen(_at_once(data))


@pytest.mark.parametrize(
    "text",
    [b"{", b"{]", b'{"a" 1}', b'{"a": 1,}', b'{"a": nope}', b'{"mapping": {"a": {}', b'{"mapping": {"a": nope}}',
     b'{"mapping": {"a": {},}}', b'{"messages": [1 2]}', b'{"messages": [1,]}', b'{"messages": [nope]}', b'{1: 2}'],
)  # fmt: skip
def test_a_large_conversation_that_is_malformed_is_none(text: bytes) -> None:
    assert read_large(memoryview(text), piece_bytes=8) is None
    assert decode(memoryview(text)) is None


@given(_CONVERSATION)
def test_a_conversation_of_any_content_is_read_or_skipped(conversation: dict[str, Any]) -> None:
    [element, last] = read([conversation, simple("last")])
    assert (element.index, last.index) == (0, 1)


def _samples() -> list[bytes]:
    tree = {"mapping": {"a": node("a", None, ["b"]), "b": node("b", "a", role="assistant")}, "current_node": "b", "title": "},{"}
    spoken = with_content({"parts": [{"text": "z"}, {"a": 1}]})
    document = json.dumps([tree, simple("x", 'y"\\'), spoken]).encode()
    wrapped = b'{"user": {}, "conversations": ' + document + b"}"
    return [
        document,
        wrapped,
        gzip.compress(document),
        _zip({"conversations.json": document}),
        _zip({"conversations-1.json": document}),
    ]


@pytest.mark.parametrize("sample", range(5))
def test_no_damage_raises_anything_but_our_errors(sample: int) -> None:
    """The ends of a run are ours to name; a surprise would be tried again five times and then be `internal`."""
    chance = random.Random(SEED + sample)
    print(f"seed {SEED + sample}")  # noqa: T201  a failure can be repeated with it
    whole = _samples()[sample]
    limits = replace(LIMITS, max_uncompressed_bytes=1_000_000)
    for _ in range(1_500):
        damaged = bytearray(whole)
        for _ in range(chance.randrange(1, 4)):
            place = chance.randrange(len(damaged))
            kind = chance.randrange(4)
            if kind == 0:
                damaged[place] = chance.randrange(256)
            elif kind == 1:
                del damaged[place : place + chance.randrange(1, 20)]
            elif kind == 2:
                damaged[place:place] = chance.choice(
                    [b'"', b"{", b"}", b"[", b"]", b",", b"\\", b"\0", b"\xff", b"},{", b"1e999"]
                )
            else:
                start = chance.randrange(len(damaged))
                damaged[place:place] = damaged[start : start + 30]
        try:
            read(bytes(damaged), limits)
        except FinalError as error:
            assert error.code in (ErrorCode.EXPORT_UNREADABLE, ErrorCode.EXPORT_TOO_LARGE)  # noqa: PT017
