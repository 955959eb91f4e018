"""The sections stage: the request, the rules of an answer, what is kept of a block that is too long."""

from __future__ import annotations

import copy
import json
from itertools import pairwise
from typing import Any

import pytest

from consumer.claude.requests import Answer
from consumer.full_pass.richest import Block, Formatted
from consumer.full_pass.schema import SECTIONS
from consumer.full_pass.sections import judge_sections, sections_request, up_to, whole_size
from consumer.full_pass.sections_answer import parse_sections, sections_schema
from consumer.full_pass.sections_prompt import _ABOUT, SECTIONS_SYSTEM
from consumer.full_pass.verdicts import Verdict
from schemas.events import SECTION_NAMES

GOOD: dict[str, dict[str, Any]] = {
    section: {field.name: ["one", "two", "three"] if field.is_list else "three little words" for field in fields}
    for section, fields in SECTIONS.items()
}
BLOCK = Block(
    (
        Formatted(('=== Conversation: "A" (2025-03-14) ===', "User: a", "Assistant: b", "User: c")),
        Formatted(('=== Conversation: "B" (unknown date) ===', "User: d")),
        Formatted(('=== Conversation: "C" (2025-03-15) ===', "User: e")),
    )
)


def answer(text: str, stop_reason: str = "end_turn") -> Answer:
    return Answer("0" * 64, text, stop_reason, 10, 10, recorded=False)


def with_value(section: str, name: str, value: Any) -> str:
    changed = copy.deepcopy(GOOD)
    changed[section][name] = value
    return json.dumps(changed)


def test_the_request_is_conversations_a_blank_line_the_heading_and_memory() -> None:
    request = sections_request(BLOCK, "## Preferences\n- Tea.\n")
    assert request.user == f"{BLOCK.text}\n\n## MEMORY (verified facts about this user)\n## Preferences\n- Tea.\n"
    assert "You also have access to a MEMORY section with curated facts about this user" in request.system
    assert (request.kind, request.max_tokens) == ("sections", 8_192)


def test_the_instructions_hold_every_field_with_its_own_description() -> None:
    assert tuple(SECTIONS) == tuple(_ABOUT) == SECTION_NAMES
    for section, fields in SECTIONS.items():
        assert list(_ABOUT[section]) == [field.name for field in fields]
        for field in fields:
            assert f"- `{field.name}` (" in SECTIONS_SYSTEM
    assert "`personality_traits` (list of 3 to 7 strings)" in SECTIONS_SYSTEM


def test_every_property_of_the_schema_is_required_and_nothing_is_referred_to() -> None:
    schema = sections_schema()
    assert list(schema["properties"]) == list(SECTION_NAMES)
    for part in (schema, *schema["properties"].values()):
        assert part["required"] == list(part["properties"])
        assert part["additionalProperties"] is False
    assert "$ref" not in json.dumps(schema)
    assert "minItems" not in json.dumps(schema)


def test_a_good_answer_comes_back_in_the_order_of_the_schema() -> None:
    backwards = {section: dict(reversed(values.items())) for section, values in reversed(GOOD.items())}
    sections, errors = parse_sections(json.dumps(backwards))
    assert errors == []
    assert json.dumps(sections) == json.dumps(GOOD)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "the answer is not JSON"),
        ("[" * 100_000, "the answer is not JSON"),
        ("[]", "the answer is not a JSON object"),
        (json.dumps({**GOOD, "mood": {}, "aura": {}}), "the answer: has 2 properties too many"),
        (json.dumps({**GOOD, "soul": "kind"}), "soul: expected an object"),
        (json.dumps({name: values for name, values in GOOD.items() if name != "tools"}), "tools: expected an object"),
        (with_value("soul", "aura", "x"), "soul: has 1 properties too many"),
        (with_value("soul", "humor_style", None), "soul.humor_style: is missing"),
        (with_value("soul", "humor_style", ["dry"]), "soul.humor_style: expected a string"),
        (with_value("agents", "do_not", "shout"), "agents.do_not: expected a list of strings"),
        (with_value("agents", "do_not", ["shout", 3]), "agents.do_not: expected a list of strings"),
        (with_value("agents", "do_not", ["shout", " "]), "agents.do_not: holds a blank item"),
        (
            with_value("agents", "behavioral_rules", ["a", "b"]),
            "agents.behavioral_rules: has 2 items, expected 3 to 7, or none where evidence is missing",
        ),
        (
            with_value("soul", "personality_traits", list("abcdefgh")),
            "soul.personality_traits: has 8 items, expected 3 to 7, or none where evidence is missing",
        ),
        (with_value("identity", "archetype", "Sage"), "identity.archetype: has 1 words, expected 2 to 4"),
        (with_value("identity", "archetype", "a b c d e"), "identity.archetype: has 5 words, expected 2 to 4"),
        (with_value("identity", "archetype", ""), "identity.archetype: has 0 words, expected 2 to 4"),
        (with_value("identity", "archetype", "Bâtisseur"), "identity.archetype: has 1 words, expected 2 to 4"),
        (with_value("identity", "ai_name", ""), "identity.ai_name: expected a creative name, which needs no evidence"),
    ],
)
def test_each_rule_that_is_broken_is_told_by_field(text: str, error: str) -> None:
    sections, errors = parse_sections(text)
    assert errors == [error]
    assert sections == {}


@pytest.mark.parametrize(
    "name", ["Assistant", "HELPER", "ai", " Bot ", "buddy", "Bot.", "“Helper”", "**Buddy**", "A.I.", "ＡＩ", "AI 🤖"]
)
def test_the_forbidden_names_are_refused_in_any_case_and_any_dress(name: str) -> None:
    _, errors = parse_sections(with_value("identity", "ai_name", name))
    assert errors == ["identity.ai_name: expected a creative name, none of Assistant, Helper, AI, Bot, Buddy"]


@pytest.mark.parametrize("name", ["Aida", "Botanica", "Buddy Holly", "アイ", "AI 9000", "🦉"])
def test_names_that_only_contain_a_forbidden_one_are_good(name: str) -> None:
    assert parse_sections(with_value("identity", "ai_name", name))[1] == []


def test_missing_evidence_is_an_empty_list_or_not_enough_data() -> None:
    for section, fields in SECTIONS.items():
        for field in fields:
            assert parse_sections(with_value(section, field.name, [] if field.is_list else "not enough data"))[1] == []


@pytest.mark.parametrize("number", [3, 7])
def test_lists_of_three_and_of_seven_are_good(number: int) -> None:
    for section, name in (("soul", "personality_traits"), ("agents", "behavioral_rules")):
        assert parse_sections(with_value(section, name, ["x"] * number))[1] == []


@pytest.mark.parametrize("archetype", ["Quiet guide", "Keeper of the tides", "静かな案内人", "ผู้นำทาง"])
def test_archetypes_of_two_to_four_words_are_good(archetype: str) -> None:
    assert parse_sections(with_value("identity", "archetype", archetype))[1] == []


def test_an_item_of_a_list_is_one_line() -> None:
    """In `soulprint_text` each item is a line, and a second line of it would be no item."""
    assert parse_sections(with_value("agents", "do_not", ["shout\nor whisper", "b\n"]))[0]["agents"]["do_not"] == [
        "shout or whisper",
        "b",
    ]


def test_values_that_postgresql_does_not_take_are_made_storable_and_blank_ones_empty() -> None:
    sections, errors = parse_sections(with_value("soul", "humor_style", "a\x00b"))
    assert errors == []
    assert sections["soul"]["humor_style"] == "a\ufffdb"
    assert parse_sections(with_value("user", "name", " \n"))[0]["user"]["name"] == ""
    assert parse_sections(with_value("user", "interests", ["x\x00"]))[0]["user"]["interests"] == ["x\ufffd"]


@pytest.mark.parametrize(
    ("stop_reason", "verdict"),
    [("max_tokens", Verdict.TRUNCATED), ("refusal", Verdict.REFUSED), ("tool_use", Verdict.INVALID)],
)
def test_an_answer_that_did_not_come_to_its_end_is_unusable(stop_reason: str, verdict: Verdict) -> None:
    found, sections, errors = judge_sections(answer(json.dumps(GOOD), stop_reason))
    assert (found, sections) == (verdict, {})
    assert errors


def test_no_more_errors_are_told_than_the_room_for_them_holds() -> None:
    """They are added to a request that may fill the context to its last thousand tokens."""
    _, _, errors = judge_sections(answer(json.dumps({section: {} for section in SECTIONS})))
    assert errors[0] == "soul.communication_style: is missing"
    assert len(errors) == 20


def test_errors_never_quote_the_answer() -> None:
    """They end in an error's detail, which is published (guarantee G9)."""
    _, _, errors = judge_sections(answer(json.dumps({"swordfish": 1, "soul": {"swordfish": "swordfish"}})))
    assert errors
    assert "swordfish" not in " ".join(errors)


def test_asking_again_is_another_request_that_names_what_was_wrong() -> None:
    first, again = sections_request(BLOCK, "M"), sections_request(BLOCK, "M", ["soul.humor_style: is missing"])
    assert again.user == f"{first.user}\n\n## What was wrong with your previous answer\n- soul.humor_style: is missing"
    assert again.system == first.system
    assert "## What was wrong with your previous answer" in again.system


def test_a_block_is_shortened_from_its_end_and_the_only_conversation_left_to_its_first_messages() -> None:
    assert whole_size(BLOCK) == 5
    kept = [up_to(BLOCK, size) for size in range(6)]
    assert kept[5] == BLOCK
    assert [block.count for block in kept] == [0, 1, 1, 1, 2, 3]
    assert kept[1].text == '=== Conversation: "A" (2025-03-14) ===\nUser: a'
    assert kept[2].text.endswith("\nAssistant: b")
    assert all(shorter.text == longer.text[: len(shorter.text)] for shorter, longer in pairwise(kept))


def test_a_block_shortens_step_by_step_as_the_block_itself_says() -> None:
    block = BLOCK
    for size in range(whole_size(BLOCK), -1, -1):
        assert up_to(BLOCK, size) == block
        block = block.without_last()


def test_an_empty_block_stays_empty() -> None:
    assert whole_size(Block(())) == 0
    assert up_to(Block(()), 3) == Block(())
