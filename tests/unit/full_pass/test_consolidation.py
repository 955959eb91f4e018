"""Consolidation: repetitions go, what belongs together stands together, nothing that differs is lost."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.full_pass.categories import DatedEvent, Decision, Facts, Project, facts_of, fields_of
from consumer.full_pass.consolidation import consolidated

exactly = settings(deadline=None, derandomize=True, database=None, max_examples=200)
word = st.sampled_from(["", " ", "a", "A", " a ", "b", "ß", "SS", "Café", "café ", "B b"])
some_facts = st.builds(
    lambda p, j, d, b, c: facts_of({"preferences": p, "projects": j, "dates": d, "beliefs": b, "decisions": c}),
    st.lists(word, max_size=5),
    st.lists(st.builds(Project, word, word, word), max_size=5),
    st.lists(st.builds(DatedEvent, word, word), max_size=5),
    st.lists(word, max_size=5),
    st.lists(st.builds(Decision, word, word), max_size=5),
)


def keys_of(facts: Facts, category: str) -> list[tuple[str, ...]]:
    return [tuple(field.strip().casefold() for field in fields_of(fact)) for fact in facts.by_category()[category]]


@exactly
@given(st.lists(some_facts, max_size=4))
def test_nothing_that_differs_is_lost_and_nothing_is_there_twice(found: list[Facts]) -> None:
    result = consolidated(*found)
    for category in result.by_category():
        given_keys = {key for facts in found for key in keys_of(facts, category) if any(key)}
        kept = keys_of(result, category)
        assert set(kept) == given_keys
        assert len(kept) == len(given_keys)


@exactly
@given(st.lists(some_facts, max_size=4))
def test_facts_about_one_thing_stand_together_in_the_order_in_which_they_were_said(found: list[Facts]) -> None:
    result = consolidated(*found)
    for category in ("projects", "dates", "decisions"):
        about = [key[0] for key in keys_of(result, category)]
        blocks = [name for index, name in enumerate(about) if index == 0 or about[index - 1] != name]
        assert len(blocks) == len(set(blocks))
        said = [key for facts in found for key in keys_of(facts, category)]
        for name in blocks:
            order = [said.index(key) for key in keys_of(result, category) if key[0] == name]
            assert order == sorted(order)


@exactly
@given(st.lists(some_facts, max_size=4))
def test_consolidating_twice_changes_nothing_more(found: list[Facts]) -> None:
    once = consolidated(*found)
    assert consolidated(once) == once


def test_the_first_wording_is_kept_without_the_space_around_it() -> None:
    facts = facts_of({"preferences": [" Likes Tea. ", "likes tea."], "beliefs": ["likes tea."]})
    assert consolidated(facts) == facts_of({"preferences": ["Likes Tea."], "beliefs": ["likes tea."]})


def test_a_fact_with_one_field_left_is_no_blank_one() -> None:
    project = Project(name="", description="", details="in Kotlin")
    assert consolidated(facts_of({"projects": [project, Project(" ", "", "\n")]})).projects == (project,)


@pytest.mark.parametrize("what", ["same", "same, but for its context", "another"])
def test_twice_as_many_facts_take_twice_as_many_steps(what: str) -> None:
    """Linear time: an export of 200,000 conversations has to go through. Steps are lines of the code, so no clock is asked."""

    def facts(count: int) -> Facts:
        made = [Decision("same" if what != "another" else str(n), "why" if what == "same" else str(n)) for n in range(count)]
        return facts_of({"decisions": made})

    assert steps_of(facts(2_000)) == pytest.approx(2 * steps_of(facts(1_000)), rel=0.02)


def steps_of(facts: Facts) -> int:
    """Lines of the project's code that run while the facts are consolidated."""
    steps = 0

    def trace(_frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal steps
        steps += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        consolidated(facts)
    finally:
        sys.settrace(before)
    return steps
