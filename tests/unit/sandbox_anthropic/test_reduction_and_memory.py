"""Facts that come back as JSON: merged to half, or written out as MEMORY."""

from __future__ import annotations

import json
import time
from typing import Any

from sandbox.anthropic.facts import CATEGORIES
from sandbox.anthropic.reduction import facts_object, memory_of, reduce_facts
from sandbox.anthropic.tokens import count_tokens

HEADINGS = ["## Preferences", "## Projects", "## Important Dates", "## Beliefs & Values", "## Decisions & Context"]


def facts(**given: list[Any]) -> dict[str, list[Any]]:
    return {category: given.get(category, []) for category in CATEGORIES}


def test_the_facts_are_found_wherever_they_stand() -> None:
    given = facts(preferences=['I like {curly} "quotes".'], dates=[{"event": "Trip", "date": "2025-01-01"}])
    for text in (
        json.dumps(given),
        f"Facts so far {{not json}}:\n<facts>\n{json.dumps(given, indent=2)}\n</facts>\nMissing: ## Projects",
        f"```json\n{json.dumps(given)}\n```",
    ):
        assert facts_object(text) == given


def test_one_category_alone_is_an_object_of_facts_and_anything_else_is_not() -> None:
    assert facts_object('{"beliefs": ["x"]}') == facts(beliefs=["x"])
    assert facts_object('{"beliefs": "x"}') is None
    assert facts_object('{"name": "x"} and {"beliefs": ["x"') is None


def test_looking_for_facts_takes_linear_time() -> None:
    started = time.process_time()
    assert facts_object('{"beliefs": [' * 100_000) is None
    assert time.process_time() - started < 2


def test_a_reduction_keeps_the_newest_half_and_merges_equals() -> None:
    given = facts(
        preferences=["a", "b", "I like tea.", "c", "i like  TEA."],
        projects=[
            {"name": "Oven", "description": "old"},
            {"name": "Boat", "description": "x"},
            {"name": "oven", "description": "new"},
        ],
        beliefs=["only one"],
    )
    reduced = reduce_facts(given)
    assert reduced["preferences"] == ["c", "i like  TEA."]
    assert reduced["projects"] == [{"name": "oven", "description": "new"}]
    assert reduced["beliefs"] == ["only one"]
    assert reduced["dates"] == []


def test_memory_has_the_five_headings_and_a_line_per_fact_in_its_own_words() -> None:
    memory = memory_of(
        facts(
            preferences=["I like tea.", "I like  TEA.", "I like tea."],
            projects=[{"name": "Oven", "description": "I'm building an oven.", "details": "It is hot."}],
            dates=[{"event": "My flight is on 12 May.", "date": "12 May"}, {"event": "Exam", "date": "June"}],
            decisions=[{"decision": "I chose oak because it lasts.", "context": "because it lasts."}],
        ),
        4_096,
    )
    assert memory.split("\n\n") == [
        "## Preferences\n- I like TEA.\n- I like tea.",
        "## Projects\n- I'm building an oven.",
        "## Important Dates\n- My flight is on 12 May.\n- Exam (June)",
        "## Beliefs & Values\nNo data yet.",
        "## Decisions & Context\n- I chose oak because it lasts.\n",
    ]


def test_facts_that_share_a_sentence_keep_a_line_each_where_they_say_more() -> None:
    """MEMORY is held to a least number of lines by its reader."""
    told = [{"name": "Oven", "description": "I'm building an oven.", "details": details} for details in ("Hot.", "Big.", "Big.")]
    assert memory_of(facts(projects=told), 4_096).split("\n\n")[1].splitlines()[1:] == [
        "- I'm building an oven. Hot.",
        "- I'm building an oven.",
    ]


def test_a_memory_of_too_many_facts_keeps_the_newest_whole_lines_of_each_category() -> None:
    given = facts(preferences=[f"I like number {n}." for n in range(5_000)], beliefs=["I believe in one thing."])
    memory = memory_of(given, 500)
    lines = [line for line in memory.splitlines() if line]
    assert [line for line in lines if line.startswith("##")] == HEADINGS
    assert count_tokens(memory) <= 500
    kept = [line for line in lines if line.startswith("- I like")]
    assert kept == [f"- I like number {n}." for n in range(5_000 - len(kept), 5_000)]
    assert len(kept) > 50
    assert "- I believe in one thing." in lines
