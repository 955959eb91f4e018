"""Calls in flight: bounded, in order, and brought to their end when one of them fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable

import pytest

from consumer.errors import FinalError, LostLease, OperatorTrouble, Outage, PassingFailure, RunError
from consumer.full_pass.in_flight import IN_FLIGHT, in_order
from schemas.events import ErrorCode

OUTAGE = Outage(ErrorCode.MODEL_UNAVAILABLE, "away")
TROUBLE = OperatorTrouble(ErrorCode.MODEL_UNAVAILABLE, "refused key")
REJECTED = FinalError(ErrorCode.MODEL_REJECTED, "rejected")
PASSING = PassingFailure(ErrorCode.INTERNAL, "passing")
LOST = LostLease()


async def each(items: Iterable[int]) -> AsyncGenerator[int, None]:
    for item in items:
        yield item


def test_results_are_taken_in_order_whichever_comes_first() -> None:
    async def main() -> None:
        done: list[asyncio.Event] = [asyncio.Event() for _ in range(10)]
        finished: list[int] = []
        taken: list[int] = []

        async def ask(number: int) -> int:
            if number < 9:
                await done[number + 1].wait()
            done[number].set()
            finished.append(number)
            return number

        await in_order(each(range(10)), ask, taken.append)
        assert finished == list(reversed(range(10)))
        assert taken == list(range(10))

    asyncio.run(main())


def test_no_more_calls_are_in_flight_than_a_run_may_hold() -> None:
    async def main() -> None:
        now, most = 0, 0

        async def ask(number: int) -> int:
            nonlocal now, most
            now += 1
            most = max(most, now)
            for _ in range(3):
                await asyncio.sleep(0)
            now -= 1
            return number

        await in_order(each(range(1_000)), ask, lambda _: None)
        assert most == IN_FLIGHT

    asyncio.run(main())


def test_after_an_error_nothing_more_is_asked_and_what_is_in_flight_ends_by_itself() -> None:
    async def main() -> None:
        ended: list[int] = []

        async def ask(number: int) -> int:
            if number == 3:
                raise OUTAGE
            for _ in range(5):
                await asyncio.sleep(0)
            ended.append(number)
            return number

        with pytest.raises(Outage):
            await in_order(each(range(1_000)), ask, lambda _: None)
        assert len(ended) == len(set(ended)) <= 2 * IN_FLIGHT
        assert set(range(IN_FLIGHT)) - {3} <= set(ended)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("errors", "decides"),
    [
        ([OUTAGE, REJECTED, PASSING], REJECTED),
        ([OUTAGE, REJECTED, LOST], LOST),
        ([PASSING, OUTAGE, TROUBLE], TROUBLE),
        ([PASSING, OUTAGE], OUTAGE),
        ([PASSING], PASSING),
    ],
)
def test_of_several_errors_the_one_that_decides_most_is_raised(errors: list[RunError], decides: RunError) -> None:
    """And as itself, not in a group: the executor tells runs apart by the kind of their error."""

    async def ask(number: int) -> int:
        await asyncio.sleep(0)
        raise errors[number]

    with pytest.raises(RunError) as caught:
        asyncio.run(in_order(each(range(len(errors))), ask, lambda _: None))
    assert caught.value is decides


def test_an_error_of_the_source_is_raised_as_itself_after_the_calls_in_flight() -> None:
    ended: list[int] = []

    async def source() -> AsyncGenerator[int, None]:
        yield 1
        yield 2
        raise OUTAGE

    async def ask(number: int) -> int:
        await asyncio.sleep(0)
        ended.append(number)
        return number

    with pytest.raises(Outage):
        asyncio.run(in_order(source(), ask, lambda _: None))
    assert ended == [1, 2]


def test_a_cancelled_run_cancels_its_calls() -> None:
    async def main() -> None:
        cancelled: list[int] = []
        begun = asyncio.Event()

        async def ask(number: int) -> int:
            begun.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(number)
                raise
            return number

        async with asyncio.TaskGroup() as tasks:
            run = tasks.create_task(in_order(each(range(3)), ask, lambda _: None))
            await begun.wait()
            run.cancel()
        assert sorted(cancelled) == [0, 1, 2]

    asyncio.run(main())
