"""What goes over the wire, and the key under which its answer is recorded."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.claude.models import known_models
from consumer.claude.requests import THINKING_MAX_TOKENS, Request

MODEL = "claude-haiku-4-5-20251001"
FACTS = Request("facts", "Extract facts.", "I moved to Porto.", 2_000, {"type": "object", "properties": {"preferences": {}}})


def test_a_request_has_the_model_the_limit_the_instructions_and_one_user_message_and_nothing_else() -> None:
    plain = replace(FACTS, kind="memory", schema=None)
    assert plain.body(MODEL) == {
        "model": MODEL,
        "max_tokens": 2_000,
        "system": "Extract facts.",
        "messages": [{"role": "user", "content": "I moved to Porto."}],
    }


def test_a_schema_asks_for_structured_output() -> None:
    assert FACTS.body(MODEL)["output_config"] == {"format": {"type": "json_schema", "schema": FACTS.schema}}


def test_every_part_of_the_request_and_the_model_change_the_key() -> None:
    """A recorded answer to another question must never be taken for this one's."""
    others = [
        replace(FACTS, system="Extract."),
        replace(FACTS, user="I moved to Lisbon."),
        replace(FACTS, max_tokens=2_001),
        replace(FACTS, schema=None),
        replace(FACTS, schema={"type": "object"}),
    ]
    keys = {request.sha256(MODEL) for request in [FACTS, *others]} | {FACTS.sha256("claude-opus-4-8")}
    assert len(keys) == 7


def test_the_key_is_the_same_in_every_release() -> None:
    """Pinned: were it to change, every user's recorded answers would be bought again."""
    assert FACTS.sha256(MODEL) == "750f464f3c1ed206431dec69e91bf292b00f05c8e7b943301fd6dae03f713c91"


@given(st.text(), st.text())
def test_any_text_has_a_key(system: str, user: str) -> None:
    assert len(Request("facts", system, user + "\ud800", 1).sha256(MODEL)) == 64


@pytest.mark.parametrize(
    ("model", "thinking", "effort", "max_tokens"),
    [
        ("claude-haiku-4-5", None, None, 2_000),
        ("claude-opus-4-8", None, None, 2_000),
        ("claude-haiku-5-5", {"type": "disabled"}, None, 2_000),
        ("claude-sonnet-5", {"type": "disabled"}, None, 2_000),
        ("claude-sonnet-5-5", {"type": "between_tools"}, None, 2_000),
        ("claude-opus-5-5", None, "low", 2_000 + THINKING_MAX_TOKENS),
        ("claude-mythos-5-1", None, "low", 2_000 + THINKING_MAX_TOKENS),
        ("claude-haiku-9", None, None, 2_000 + THINKING_MAX_TOKENS),
    ],
)
def test_a_model_that_thinks_by_itself_is_kept_from_it_or_gets_room_for_it(
    model: str, thinking: dict[str, str] | None, effort: str | None, max_tokens: int
) -> None:
    """Thinking takes from `max_tokens`: answers of the usual size would be cut off. Each model refuses what another wants."""
    for request in (FACTS, replace(FACTS, kind="memory", schema=None)):
        body = request.body(model)
        assert (body.get("thinking"), body.get("output_config", {}).get("effort")) == (thinking, effort)
        assert body["max_tokens"] == max_tokens
        assert ("format" in body.get("output_config", {})) == (request.schema is not None)


def test_every_known_model_gets_room_for_the_longest_answer() -> None:
    for model in known_models():
        assert replace(FACTS, max_tokens=32_000).body(model.name)["max_tokens"] <= model.max_output_tokens


def test_what_cannot_be_kept_from_thinking_is_expected_to_use_more() -> None:
    assert FACTS.expected_tokens("claude-opus-5-5")[1] > FACTS.expected_tokens("claude-opus-4-8")[1] + 500
