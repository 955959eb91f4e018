"""The facts stage, through the real gate and record, against the stand-in on the wire."""

from __future__ import annotations

import pytest

from consumer.errors import FinalError, Outage
from consumer.full_pass.facts import Outcome
from schemas.events import ErrorCode
from tests.integration.stages.world import World, conversation, extracted, fault, in_a_world


def test_every_chunk_is_read_and_the_facts_come_back_oldest_first(database_url: str) -> None:
    async def main(world: World) -> None:
        result = await extracted(await world.run(), [conversation(number) for number in range(400)])
        assert result.facts.preferences == tuple(f"I like tea number {number}." for number in range(400))
        assert (result.coverage, result.chunks, result.fact_count) == (1.0, 400, 400)
        assert len(world.asked("facts")) < 40

    in_a_world(database_url, main, latency_seconds=0.02)


def test_chunks_without_facts_are_answered_too(database_url: str) -> None:
    async def main(world: World) -> None:
        result = await extracted(await world.run(), [conversation(1, "What is the capital of Peru?")])
        assert result.outcomes[Outcome.NO_FACTS] == 1
        assert result.coverage == 1.0
        assert not result.facts

    in_a_world(database_url, main)


def test_an_outage_is_never_taken_for_no_facts(database_url: str) -> None:
    async def main(world: World) -> None:
        await world.stand_in.script(fault("status", "facts", status=500))
        with pytest.raises(Outage):
            await extracted(await world.run(), [conversation(number) for number in range(200)])

    in_a_world(database_url, main)


def test_a_request_that_the_api_never_takes_decides_over_an_outage_beside_it(database_url: str) -> None:
    async def main(world: World) -> None:
        refused = fault("status", "facts", contains="tea number 7.", status=400)
        await world.stand_in.script([*refused, *fault("status", "facts", status=500)])
        with pytest.raises(FinalError) as caught:
            await extracted(await world.run(), [conversation(number) for number in range(200)])
        assert caught.value.code is ErrorCode.MODEL_REJECTED

    in_a_world(database_url, main)


def test_after_an_error_the_calls_in_flight_still_come_to_their_end_and_are_recorded(database_url: str) -> None:
    """They are paid for; cancelled, the next attempt would pay for them again (guarantee G8 is about a kill alone)."""

    async def main(world: World) -> None:
        chunks = [conversation(number) for number in range(100)]
        await world.stand_in.script(fault("status", "facts", contains="tea number 0.", times=1, status=400))
        with pytest.raises(FinalError):
            await extracted(await world.run(), chunks)
        before = len(world.asked("facts"))
        result = await extracted(await world.run(), chunks)
        assert result.coverage == 1.0
        assert len(set(world.asked("facts"))) == len(world.asked("facts")) - 1
        assert before > 1

    in_a_world(database_url, main, latency_seconds=0.05)


def test_a_second_run_buys_nothing_and_a_grown_export_only_what_is_new(database_url: str) -> None:
    async def main(world: World) -> None:
        chunks = [conversation(number) for number in range(300)]
        await extracted(await world.run(), chunks)
        first = len(world.asked("facts"))
        again = await extracted(await world.run(), chunks)
        assert len(world.asked("facts")) == first
        assert len(again.facts) == 300
        added = conversation(100, "I decided to grow my own tea.", conversation_id="new")
        grown = await extracted(await world.run(), [*chunks[:100], added, *chunks[100:]])
        assert len(world.asked("facts")) - first <= 3
        assert grown.facts.decisions[0].decision == "I decided to grow my own tea."

    in_a_world(database_url, main)


@pytest.mark.parametrize("tokens_per_call", [500, 2_000, 8_000])
def test_a_request_holds_about_as_many_tokens_as_the_setting_says(database_url: str, tokens_per_call: int) -> None:
    async def main(world: World) -> None:
        chunks = [conversation(number, f"I like tea number {number}. {'It is good. ' * 30}") for number in range(200)]
        result = await extracted(await world.run(), chunks, tokens_per_call)
        asked = [len(user) // 4 for user in world.asked("facts")]
        assert max(asked) <= 2.1 * tokens_per_call
        assert 0.5 * tokens_per_call < sum(asked) / len(asked) < 1.5 * tokens_per_call
        assert (len(result.facts), result.coverage) == (200, 1.0)

    in_a_world(database_url, main)
