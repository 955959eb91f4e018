"""Reduction of facts that are too many, against the stand-in on the wire."""

from __future__ import annotations

import json

import pytest

from consumer.full_pass import reduction
from consumer.full_pass.categories import CATEGORIES, Decision, Facts, Project, facts_of, to_json
from consumer.full_pass.reduction import FACTS_TOKENS_MAX, reduce_facts
from tests.integration.stages.world import World, fault, in_a_world


def many_facts(count: int) -> Facts:
    return facts_of(
        {
            "preferences": [f"I like tea number {number} with {'milk and ' * 8}honey." for number in range(count)],
            "beliefs": [f"I believe in tea number {number}." for number in range(count // 10)],
            "decisions": [Decision("I decided to drink tea.", "It is good.")],
        }
    )


def test_facts_that_fit_are_not_reduced(database_url: str) -> None:
    async def main(world: World) -> None:
        facts = many_facts(500)
        assert await reduce_facts(facts, await world.run()) == facts
        assert not world.stand_in.requests()

    in_a_world(database_url, main)


def test_too_many_facts_are_reduced_in_rounds_until_they_fit(database_url: str) -> None:
    async def main(world: World) -> None:
        facts = many_facts(13_000)
        assert facts.to_tokens() > 300_000
        reduced = await reduce_facts(facts, await world.run())
        assert reduced.to_tokens() <= FACTS_TOKENS_MAX
        assert set(reduced.preferences) < set(facts.preferences)
        assert len(reduced.beliefs) > 100
        shown = [json.loads(user.split("\n")[1]) for user in world.asked("reduction")]
        assert all(sum(bool(given[category]) for category in CATEGORIES) == 1 for given in shown)
        assert reduced.decisions == facts.decisions
        assert not any(given["decisions"] for given in shown)  # of one fact there is nothing to merge

    in_a_world(database_url, main)


def test_a_batch_whose_reduction_fails_stays_and_what_is_still_too_much_is_cut(database_url: str) -> None:
    async def main(world: World) -> None:
        await world.stand_in.script(fault("refusal", "reduction"))
        facts = many_facts(11_000)
        reduced = await reduce_facts(facts, await world.run())
        assert len(set(world.asked("reduction"))) == len(world.asked("reduction"))
        assert await world.verdicts() == ["refused"] * len(world.asked("reduction"))
        assert FACTS_TOKENS_MAX * 0.98 < reduced.to_tokens() <= FACTS_TOKENS_MAX
        assert reduced.preferences[-1] == facts.preferences[-1]
        assert reduced.beliefs[-1] == facts.beliefs[-1]

    in_a_world(database_url, main)


def test_facts_are_reduced_from_the_first_token_over_200_000_on(database_url: str) -> None:
    async def main(world: World) -> None:
        facts = [f"I like tea number {number:06}." for number in range(27_000)]
        room = 4 * FACTS_TOKENS_MAX + 3 - len(to_json(facts_of({"preferences": [*facts, ""]})))
        fit = facts_of({"preferences": [*facts, "x" * room]})
        assert len(json.dumps(fit.by_category(), ensure_ascii=False)) // 4 == FACTS_TOKENS_MAX
        assert await reduce_facts(fit, await world.run()) is fit
        assert not world.stand_in.requests()
        await reduce_facts(facts_of({"preferences": [*facts, "x" * (room + 1)]}), await world.run())
        assert world.asked("reduction")

    in_a_world(database_url, main)


def test_what_batches_leave_of_one_project_stands_together_again(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the next round, or MEMORY, can merge it."""
    monkeypatch.setattr(reduction, "FACTS_TOKENS_MAX", 20_000)

    async def main(world: World) -> None:
        made = [Project(("Tidemark", "Beacon")[n % 2], f"An app. {'It is nice. ' * 40}", f"Version {n}.") for n in range(800)]
        names = [project.name for project in (await reduce_facts(facts_of({"projects": made}), await world.run())).projects]
        assert len(world.asked("reduction")) > 2
        assert len(names) > 2
        assert names == sorted(names, reverse=True)

    in_a_world(database_url, main)


def test_each_round_halves_what_the_one_before_left_and_after_the_third_the_oldest_are_cut(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reduction, "FACTS_TOKENS_MAX", 20_000)

    async def main(world: World) -> None:
        facts = facts_of(
            {"preferences": [f"I like tea number {number} with {'milk and ' * 40}honey." for number in range(2_000)]}
        )
        assert 190_000 < facts.to_tokens() < 210_000
        reduced = await reduce_facts(facts, await world.run())
        assert 19_500 < reduced.to_tokens() <= 20_000
        assert reduced.preferences[-1] == facts.preferences[-1]
        shown = sum(len(json.loads(user.split("\n")[1])["preferences"]) for user in world.asked("reduction"))
        assert shown == pytest.approx(2_000 + 1_000 + 500, rel=0.02)

    in_a_world(database_url, main)
