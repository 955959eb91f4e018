"""One call, tried again as far as Pace allows; and the one piece of work that outlives a cancellation for a moment."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from consumer.claude.gate import RECORDING_MAX_SECONDS, TRIES, persevere, to_its_end
from consumer.claude.pace import Call, Pace
from consumer.claude.trouble import Trouble
from consumer.errors import Outage
from consumer.metrics import Metrics
from schemas.events import ErrorCode
from tests.unit.claude.virtual_time import now, run, settle

RUN, OTHER = UUID(int=1), UUID(int=2)
BROKEN = Trouble("status 500", "status_500")
LIMITED = Trouble("status 429", "status_429", 7.0, crowded=True)


async def moments_of_calls(pace: Pace, outcomes: list[Trouble | str]) -> list[float]:
    """When each try was made, of a call that has these outcomes, while somebody else succeeds each time."""
    moments: list[float] = []

    async def once(_call: Call) -> Trouble | str:
        moments.append(now())
        outcome = outcomes[len(moments) - 1]
        async with pace.slot(OTHER) as other:
            pace.succeeded(other)
        return outcome

    await persevere(pace, RUN, 5, once)
    return moments


def test_a_failed_call_waits_twice_as_long_each_time() -> None:
    async def main() -> None:
        pace = Pace(32, 5, Metrics())
        assert await moments_of_calls(pace, [BROKEN, BROKEN, BROKEN, "answer"]) == pytest.approx([0, 5, 15, 35])

    run(main())


def test_a_call_that_was_told_when_to_come_back_comes_back_then() -> None:
    async def main() -> None:
        pace = Pace(32, 5, Metrics())
        assert await moments_of_calls(pace, [LIMITED, LIMITED, "answer"]) == pytest.approx([0, 7, 14])

    run(main())


def test_a_call_that_always_fails_stops_asking_after_a_few_tries_and_the_others_go_on() -> None:
    async def main() -> None:
        pace = Pace(32, 5, Metrics())
        with pytest.raises(Outage, match="status 500") as caught:
            await moments_of_calls(pace, [BROKEN] * TRIES)
        assert caught.value.retry_after_seconds == 5
        assert pace.is_open

    run(main())


def test_a_cancelled_caller_lets_the_work_come_to_its_end() -> None:
    async def main() -> None:
        done: list[float] = []

        async def work() -> None:
            await asyncio.sleep(3)
            done.append(now())

        async with asyncio.TaskGroup() as group:
            caller = group.create_task(to_its_end(work()))
            await settle()
            caller.cancel()
        assert caller.cancelled()
        assert done == [3]

    run(main())


def test_after_a_cancellation_the_work_has_only_so_long() -> None:
    """A worker that is told to stop must stop, even if PostgreSQL never answers."""

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            caller = group.create_task(to_its_end(asyncio.sleep(1_000_000)))
            await settle()
            caller.cancel()
        assert caller.cancelled()
        assert now() == pytest.approx(RECORDING_MAX_SECONDS)

    run(main())


def test_work_that_fails_fails_its_caller() -> None:
    async def main() -> None:
        async def work() -> None:
            raise Outage(ErrorCode.INTERNAL, "PostgreSQL is away")

        with pytest.raises(Outage, match="PostgreSQL is away"):
            await to_its_end(work())

    run(main())
