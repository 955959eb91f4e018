"""`soulprint_text` (specification 8)."""

from __future__ import annotations

from consumer.full_pass.schema import SECTIONS
from consumer.full_pass.soulprint import soulprint_text

_EMPTY = {name: {field.name: [] if field.is_list else "x" for field in fields} for name, fields in SECTIONS.items()}

WHOLE = """\
## Communication Style & Personality
**Communication Style:** x
**Personality Traits:**
- curious
- kind
**Tone Preferences:** x
**Boundaries:** x
**Humor Style:** x
**Formality Level:** x
**Emotional Patterns:** x

## Your AI Identity
**Ai Name:** Ünal
**Archetype:** x
**Vibe:** x
**Emoji Style:** x
**Signature Greeting:** x

## About You
**Name:** x
**Location:** not enough data
**Occupation:** x
**Relationships:** not enough data
**Interests:** not enough data
**Life Context:** x
**Preferred Address:** x

## How I Operate
**Response Style:** x
**Behavioral Rules:** not enough data
**Context Adaptation:** x
**Memory Directives:** x
**Do Not:** not enough data

## My Capabilities
**Likely Usage:** not enough data
**Capabilities Emphasis:** not enough data
**Output Preferences:** x
**Depth Preference:** x

## Memory
## Preferences
- tea
"""


def test_the_text_is_exact() -> None:
    sections = {
        **_EMPTY,
        "soul": {**_EMPTY["soul"], "personality_traits": ["curious", "kind"]},
        "identity": {**_EMPTY["identity"], "ai_name": "Ünal"},
        "user": {**_EMPTY["user"], "location": " "},
    }
    assert soulprint_text(sections, "## Preferences\n- tea\n") == WHOLE


def test_the_order_is_the_schemas_and_not_the_answers() -> None:
    turned = {name: dict(reversed(fields.items())) for name, fields in reversed(_EMPTY.items())}
    assert soulprint_text(turned, "m") == soulprint_text(_EMPTY, "m")


def test_the_fields_are_those_of_the_quick_pass() -> None:
    assert {
        name: [(f.name, f.is_list, f.min_items, f.max_items) for f in fields if f.is_list] for name, fields in SECTIONS.items()
    } == {
        "soul": [("personality_traits", True, 3, 7)],
        "identity": [],
        "user": [("relationships", True, None, None), ("interests", True, None, None)],
        "agents": [("behavioral_rules", True, 3, 7), ("do_not", True, None, None)],
        "tools": [("likely_usage", True, None, None), ("capabilities_emphasis", True, None, None)],
    }
    assert [len(fields) for fields in SECTIONS.values()] == [7, 5, 7, 5, 4]
