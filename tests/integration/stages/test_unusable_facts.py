"""Answers of the facts stage that are no use: what is asked for instead, and what becomes of the chunks."""

from __future__ import annotations

from uuid import uuid4

import pytest

from consumer.errors import FinalError, Outage, PassingFailure, RunError
from consumer.full_pass.facts import Outcome
from schemas.events import ErrorCode
from tests.integration.stages.world import World, conversation, extracted, fault, in_a_world


@pytest.mark.parametrize(
    ("kind", "verdict"),
    [("max_tokens", "truncated"), ("refusal", "refused"), ("invalid_json", "invalid"), ("wrong_schema", "invalid")],
)
def test_an_unusable_answer_is_asked_for_again_in_smaller_packs_down_to_halves_of_a_chunk(
    database_url: str, kind: str, verdict: str
) -> None:
    async def main(world: World) -> None:
        await world.stand_in.script(fault(kind, "facts", times=2))
        result = await extracted(await world.run(), [conversation(1), conversation(2)])
        asked = world.asked("facts")
        assert [len(user.split("<conversation-")) - 1 for user in asked] == [2, 1, 1, 1, 1]
        assert len(set(asked)) == 5
        assert result.coverage == 1.0
        assert result.facts.preferences == ("I like tea number 1.", "I like tea number 2.")
        assert await world.verdicts() == [verdict, verdict]

    in_a_world(database_url, main)


def test_a_chunk_that_is_refused_to_the_end_costs_its_neighbours_nothing_and_ends_the_run_for_good(database_url: str) -> None:
    """Waiting would not make it better, so the run must not be tried five times."""

    async def main(world: World) -> None:
        await world.stand_in.script(fault("refusal", "facts", contains="poison"))
        poisoned = conversation(2, "I like the word poison. I like it so much, all poison is good, I say poison often.")
        result = await extracted(await world.run(), [conversation(1), poisoned, conversation(3)])
        assert result.facts.preferences[0] == "I like tea number 1."
        assert result.facts.preferences[-1] == "I like tea number 3."
        assert (result.answered, result.outcomes[Outcome.REFUSED]) == (2, 1)
        result.require_coverage(0.6)
        with pytest.raises(FinalError) as caught:
            result.require_coverage(0.9)
        assert caught.value.code is ErrorCode.COVERAGE_TOO_LOW

    in_a_world(database_url, main)


def test_a_chunk_counts_only_when_both_its_halves_were_answered(database_url: str) -> None:
    async def main(world: World) -> None:
        second_half_alone = "<conversation-"
        await world.stand_in.script([*fault("max_tokens", "facts", times=1), *fault("max_tokens", "facts", contains="LASTWORD")])
        chunk = conversation(1, "I like the first half. " + "x" * 200 + "\nI like the second half. LASTWORD")
        result = await extracted(await world.run(), [chunk])
        assert len(world.asked(kind="facts")) == 3
        assert all(user.startswith(second_half_alone) for user in world.asked("facts"))
        assert (result.answered, result.outcomes[Outcome.TRUNCATED]) == (0, 1)
        assert result.facts.preferences == ("I like the first half.",)
        with pytest.raises(PassingFailure):
            result.require_coverage(0.9)

    in_a_world(database_url, main)


@pytest.mark.parametrize(
    ("kind", "outcome", "error"),
    [
        ("max_tokens", Outcome.TRUNCATED, PassingFailure),
        ("refusal", Outcome.REFUSED, FinalError),
        ("invalid_json", Outcome.INVALID, FinalError),
    ],
)
def test_answers_that_are_never_any_use_are_asked_for_a_bounded_number_of_times_and_not_again_in_the_next_attempt(
    database_url: str, kind: str, outcome: Outcome, error: type[RunError]
) -> None:
    """A pack of five: itself, four smaller ones with more than one chunk or one, five chunks, ten halves; and no quarter."""

    async def main(world: World) -> None:
        await world.stand_in.script(fault(kind, "facts"))
        run, chunks = await world.run(), [conversation(number) for number in range(5)]
        result = await extracted(run, chunks)
        asked = world.asked("facts")
        assert len(set(asked)) == len(asked) == 4 * 5 - 1
        assert {name: count for name, count in result.outcomes.items() if count} == {outcome: 5}
        assert not result.facts
        with pytest.raises(error) as caught:
            result.require_coverage(0.9)
        assert caught.value.code is ErrorCode.COVERAGE_TOO_LOW

        again = await extracted(run, chunks)
        assert (len(world.asked("facts")), again.outcomes) == (len(asked), result.outcomes)

    in_a_world(database_url, main)


def test_a_chunk_whose_halves_end_differently_is_missing_by_the_worse_one(database_url: str) -> None:
    async def main(world: World) -> None:
        await world.stand_in.script(
            [
                *fault("max_tokens", "facts", times=1),
                *fault("invalid_json", "facts", contains="first"),
                *fault("refusal", "facts", contains="LAST"),
            ]
        )
        result = await extracted(
            await world.run(), [conversation(1, "I like the first half. " + "x" * 200 + "\nI like the LAST half.")]
        )
        assert {name: count for name, count in result.outcomes.items() if count} == {Outcome.REFUSED: 1}

    in_a_world(database_url, main)


@pytest.mark.parametrize("error", [500, 529])
def test_an_outage_amid_smaller_pieces_is_no_outcome_and_what_was_answered_is_not_bought_again(
    database_url: str, error: int
) -> None:
    async def main(world: World) -> None:
        chunks = [conversation(1), conversation(2, "I like the LAST tea.")]
        await world.stand_in.script(
            [*fault("max_tokens", "facts", times=1), *fault("status", "facts", contains="LAST", status=error)]
        )
        run_id = uuid4()
        run = await world.run(run_id)
        with pytest.raises(Outage):
            await extracted(run, chunks)
        before = len(world.asked("facts"))
        await world.stand_in.clear_script()
        result = await extracted(world.next_attempt(run_id), chunks)
        assert result.coverage == 1.0
        assert result.facts.preferences == ("I like tea number 1.", "I like the LAST tea.")
        assert len(world.asked("facts")) == before + 1

    in_a_world(database_url, main)
