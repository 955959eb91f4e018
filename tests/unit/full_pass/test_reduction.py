"""Reduction: batches, what counts as one that succeeded, and the cut at the end."""

from __future__ import annotations

import json
import re

import pytest

from consumer.claude.requests import Answer
from consumer.full_pass.categories import DatedEvent, Fact, Project, facts_of, to_json
from consumer.full_pass.reduction import Batch, cut_to, judge_reduction, reduction_request, to_batches
from consumer.full_pass.verdicts import Verdict

BATCH = Batch("preferences", tuple(f"Likes tea number {number}." for number in range(10)))


def answer(facts: dict[str, list[Fact]], stop_reason: str = "end_turn") -> Answer:
    return Answer("0" * 64, to_json(facts_of(facts)), stop_reason, 10, 10, recorded=False)


def test_a_batch_is_asked_for_as_one_json_object_with_the_five_categories_in_its_fence() -> None:
    request = reduction_request(Batch("dates", (DatedEvent("Fête", "14 juillet"),)))
    fence = re.fullmatch(r"<facts-([0-9a-f]{12})>\n(.*)\n</facts-\1>", request.user)
    assert fence is not None
    assert fence[2] == (
        '{"preferences": [], "projects": [], "dates": [{"event": "Fête", "date": "14 juillet"}], "beliefs": [], "decisions": []}'
    )


def test_a_reduction_takes_the_place_of_its_batch() -> None:
    verdict, reduced = judge_reduction(answer({"preferences": ["Likes ten teas."], "beliefs": ["not asked for"]}), BATCH)
    assert verdict is None
    assert reduced == Batch("preferences", ("Likes ten teas.",))


def test_a_reduction_to_more_than_half_is_better_than_none() -> None:
    """Half is what is asked for. What is still too much is reduced again, or cut."""
    kept = list(BATCH.facts[:8])
    assert judge_reduction(answer({"preferences": kept}), BATCH) == (None, Batch("preferences", tuple(kept)))


@pytest.mark.parametrize(
    ("given", "verdict"),
    [
        (answer({"preferences": ["half"]}, "max_tokens"), Verdict.TRUNCATED),
        (answer({}, "refusal"), Verdict.REFUSED),
        (answer({}), Verdict.INVALID),
        (answer({"beliefs": ["in the wrong list"]}), Verdict.INVALID),
        (answer({"preferences": list(BATCH.facts)}), Verdict.INVALID),
        (answer({"preferences": [*BATCH.facts, "Is musical."]}), Verdict.INVALID),
        (answer({"preferences": ["x" * 1_000]}), Verdict.INVALID),
        (Answer("0" * 64, "not JSON", "end_turn", 1, 1, recorded=False), Verdict.INVALID),
    ],
)
def test_a_batch_whose_reduction_fails_is_kept_as_it_was(given: Answer, verdict: Verdict) -> None:
    assert judge_reduction(given, BATCH) == (verdict, BATCH)


def test_batches_hold_every_fact_of_one_category_each_and_are_of_about_20_000_tokens() -> None:
    projects = [Project(f"p{number % 50}", "d" * 200, str(number)) for number in range(3_000)]
    facts = facts_of({"projects": projects, "beliefs": ["one"]})
    batches = to_batches(facts)
    assert [fact for batch in batches if batch.category == "projects" for fact in batch.facts] == projects
    assert Batch("beliefs", ("one",)) in batches
    sizes = [facts_of({batch.category: batch.facts}).to_tokens() for batch in batches]
    assert max(sizes) <= 40_500
    assert sum(sizes) / len(sizes) > 10_000


def test_the_cut_is_proportional_and_keeps_the_newest() -> None:
    facts = facts_of(
        {
            "preferences": [f"Likes tea number {number}." for number in range(1_000)],
            "projects": [Project(f"project {number}", "茶" * 30, "") for number in range(2_000)],
            "dates": [],
        }
    )
    tokens = facts.to_tokens() // 2
    cut = cut_to(facts, tokens)
    assert tokens * 0.98 <= cut.to_tokens() <= tokens
    assert cut.preferences == facts.preferences[-len(cut.preferences) :]
    assert cut.projects == facts.projects[-len(cut.projects) :]
    assert len(cut.preferences) == pytest.approx(500, abs=10)
    assert len(cut.projects) == pytest.approx(1_000, abs=20)


def test_facts_that_fit_are_not_cut() -> None:
    facts = facts_of({"preferences": ["a", "b"]})
    assert cut_to(facts, facts.to_tokens() + 1) == facts
    assert cut_to(facts_of({}), 0) == facts_of({})


def test_a_cut_to_nothing_ends() -> None:
    """The context's own count may ask for ever less."""
    assert not cut_to(facts_of({"preferences": ["a" * 1_000]}), 1)


def test_the_size_of_facts_is_the_one_the_specification_names() -> None:
    facts = facts_of({"preferences": ["茶が好き"], "dates": [DatedEvent("a", "b")]})
    shown = {
        "preferences": ["茶が好き"],
        "projects": [],
        "dates": [{"event": "a", "date": "b"}],
        "beliefs": [],
        "decisions": [],
    }
    assert facts.to_tokens() == len(json.dumps(shown, ensure_ascii=False)) // 4
