"""The five sections, whatever the user said."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from sandbox.anthropic.answers import Kind, answer_to, question_of
from sandbox.anthropic.names import FORBIDDEN, archetype, creative_name

LISTS = {
    ("soul", "personality_traits"),
    ("user", "relationships"),
    ("user", "interests"),
    ("agents", "behavioral_rules"),
    ("agents", "do_not"),
    ("tools", "likely_usage"),
    ("tools", "capabilities_emphasis"),
}
FIELDS = {
    "soul": "communication_style personality_traits tone_preferences boundaries humor_style formality_level emotional_patterns",
    "identity": "ai_name archetype vibe emoji_style signature_greeting",
    "user": "name location occupation relationships interests life_context preferred_address",
    "agents": "response_style behavioral_rules context_adaptation memory_directives do_not",
    "tools": "likely_usage capabilities_emphasis output_preferences depth_preference",
}


def object_of(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "required": list(properties), "properties": properties}


SCHEMA = object_of(
    {
        section: object_of(
            {
                name: {"type": "array", "items": {"type": "string"}} if (section, name) in LISTS else {"type": "string"}
                for name in names.split()
            }
        )
        for section, names in FIELDS.items()
    }
)
CONVERSATION = """=== Conversation: "Hello" (2025-01-01) ===
User: Hey there. My name is Ana Duarte, but call me Annie. I live in Porto and I work as a veterinary nurse.
Assistant: Hello! I'm Claude, and I live nowhere.
User: Please keep answers short. Never use emojis with me 🙂. My sister loves horses. I feel nervous about horses and horses.
Can you write a table of horses?"""


def sections(text: str) -> dict[str, Any]:
    params = {
        "max_tokens": 8_192,
        "messages": [{"role": "user", "content": text}],
        "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
    }
    question = question_of(params)
    assert question.kind is Kind.SECTIONS
    value: dict[str, Any] = json.loads(answer_to(question))
    jsonschema.validate(value, SCHEMA)
    return value


def test_the_fields_are_the_users_own_words() -> None:
    made = sections(CONVERSATION)
    assert made["user"]["name"] == "Ana Duarte"
    assert made["user"]["preferred_address"] == "Annie"
    assert made["user"]["location"] == "Porto"
    assert made["user"]["occupation"] == "a veterinary nurse"
    assert made["user"]["interests"][0] == "horses"
    assert made["user"]["relationships"] == ["My sister loves horses."]
    assert made["soul"]["communication_style"] == "Please keep answers short."
    assert made["identity"]["emoji_style"] == "🙂"
    assert made["tools"]["likely_usage"] == ["Can you write a table of horses?"]


@pytest.mark.parametrize(
    "text",
    [
        CONVERSATION,
        "User: ok",
        "",
        "User: 今日はとても寒いですね。散歩に行きたいです。",
        "User: AI bot helper buddy assistant. AI bot helper buddy assistant.",
        '=== Conversation: "Untitled" (unknown date) ===\nUser: 42\nAssistant: fine',
        "User: " + "I always love my dog, please never forget. " * 3_000,
    ],
)
def test_any_text_gives_sections_within_the_rules(text: str) -> None:
    made = sections(text)
    assert 3 <= len(made["soul"]["personality_traits"]) <= 7
    assert 3 <= len(made["agents"]["behavioral_rules"]) <= 7
    assert len(set(made["agents"]["behavioral_rules"])) == len(made["agents"]["behavioral_rules"])
    assert 2 <= len(made["identity"]["archetype"].split()) <= 4
    assert made["identity"]["ai_name"].casefold() not in FORBIDDEN | {""}
    assert all(value for fields in made.values() for value in fields.values() if isinstance(value, str))


def test_where_there_is_no_evidence_the_field_says_so() -> None:
    made = sections("User: 42.")
    assert made["user"]["name"] == "not enough data"
    assert made["user"]["relationships"] == []


@pytest.mark.parametrize("words", [(), ("ai",), ("aids", "plai"), ("b", "xxot"), ("horses", "garden"), ("日本語です",)])
def test_a_made_up_name_is_the_same_every_time_and_never_a_forbidden_one(words: tuple[str, ...]) -> None:
    assert creative_name(words) == creative_name(words)
    assert creative_name(words).casefold() not in FORBIDDEN
    assert len(archetype(words).split()) == 2
