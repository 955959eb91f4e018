"""What a body has to be to count as an answer."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consumer.claude.api import Message, NotAMessage, to_message, to_text

MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "content": [{"type": "text", "text": "Olá, "}, {"type": "thinking", "thinking": "…"}, {"type": "text", "text": "世界"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 10, "output_tokens": 3, "cache_read_input_tokens": None, "cache_creation_input_tokens": 4},
}


def changed(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(MESSAGE), **changes}


def test_a_message_keeps_its_content_as_it_came_and_counts_every_input_token() -> None:
    message = to_message(MESSAGE)
    assert json.loads(message.content) == MESSAGE["content"]
    assert message == Message(message.content, "end_turn", 14, 3)


def test_the_text_of_an_answer_is_its_text_blocks_alone() -> None:
    assert to_text(to_message(MESSAGE).content) == "Olá, 世界"


def test_what_postgresql_would_refuse_is_kept_in_the_record_as_an_escape_and_replaced_in_the_text() -> None:
    message = to_message(changed(content=[{"type": "text", "text": "a\ud83d\x00b"}]))
    assert message.content.encode("utf-8").isascii()
    assert to_text(message.content) == "a\ufffd\ufffdb"


def test_a_refusal_without_content_is_an_answer() -> None:
    """It may have been billed; the stage judges it."""
    message = to_message(changed(content=[], stop_reason="refusal"))
    assert message.stop_reason == "refusal"
    assert to_text(message.content) == ""


NO_MESSAGES: list[Any] = [
    None,
    [],
    "text",
    {},
    changed(type="error"),
    changed(content="text"),
    changed(content=[1]),
    changed(content=[{"type": "text"}]),
    changed(content=[{"type": "text", "text": None}]),
    changed(usage=None),
    changed(usage={"input_tokens": 1}),
    changed(usage={"input_tokens": True, "output_tokens": 1}),
    changed(usage={"input_tokens": 1, "output_tokens": -1}),
    changed(stop_reason=["end_turn"]),
]


@pytest.mark.parametrize("body", NO_MESSAGES)
def test_what_is_no_message_is_told_apart_without_being_quoted(body: Any) -> None:
    with pytest.raises(NotAMessage) as caught:
        to_message(body)
    assert "Olá" not in str(caught.value)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*MESSAGE, "text", "x"]), inner, max_size=4),
    max_leaves=10,
)


@settings(suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no fault of the code's
@given(st.dictionaries(st.sampled_from([*MESSAGE]), _json))
def test_any_json_is_a_message_or_is_told_apart(changes: dict[str, Any]) -> None:
    try:
        message = to_message(changed(**changes))
    except NotAMessage:
        return
    message.content.encode("utf-8")
    assert "\x00" not in to_text(message.content)
