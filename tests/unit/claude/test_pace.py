"""Pace by itself, in virtual time: what opens it, what shuts it, who passes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from uuid import UUID

import pytest

from consumer.claude.pace import TROUBLES_UNTIL_SHUT, Call, Pace
from consumer.claude.rate_limits import Allowance
from consumer.claude.trouble import Trouble
from consumer.errors import OperatorTrouble, Outage
from consumer.metrics import Metrics
from tests.unit.claude.virtual_time import now, run, settle

A, B, C = (UUID(int=number) for number in (1, 2, 3))
BROKEN = Trouble("status 500", "status_500")
CROWDED = Trouble("status 529", "status_529", crowded=True)
SLOW = Trouble("no answer", "timeout", slow=True)
REFUSED_KEY = Trouble("status 401; check ANTHROPIC_API_KEY", "status_401", operator=True)


def a_pace(concurrency: int = 8, backoff_seconds: float = 5) -> Pace:
    return Pace(concurrency, backoff_seconds, Metrics())


def limited(retry_after_seconds: float) -> Trouble:
    return Trouble("status 429", "status_429", retry_after_seconds, crowded=True)


async def trouble(pace: Pace, run_id: UUID, what: Trouble, times: int = 1) -> None:
    for _ in range(times):
        async with pace.slot(run_id) as call:
            pace.troubled(call, what)


async def success(pace: Pace, run_id: UUID) -> None:
    async with pace.slot(run_id) as call:
        pace.succeeded(call)


async def shut(pace: Pace, what: Trouble = BROKEN) -> None:
    await trouble(pace, A, what, TROUBLES_UNTIL_SHUT)
    assert not pace.is_open


@asynccontextmanager
async def waiting(*slots: AbstractAsyncContextManager[Call]) -> AsyncIterator[list[asyncio.Task[Call]]]:
    """Callers of slots in tasks of their own; what they were given is returned at the end."""
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        yield [group.create_task(stack.enter_async_context(slot)) for slot in slots]


def test_three_troubles_in_a_row_shut_it_and_name_the_last_one() -> None:
    async def main() -> None:
        pace = a_pace()
        await trouble(pace, A, CROWDED, 2)
        assert pace.is_open
        await trouble(pace, A, BROKEN)
        assert not pace.is_open
        assert pace.reason == "status 500"
        assert pace.width == 0

    run(main())


def test_a_success_between_troubles_keeps_it_open() -> None:
    async def main() -> None:
        pace = a_pace()
        for _ in range(10):
            await trouble(pace, A, BROKEN, 2)
            await success(pace, A)
        assert pace.is_open

    run(main())


def test_operator_trouble_shuts_it_at_once_and_waiting_calls_learn_that_an_operator_is_needed() -> None:
    async def main() -> None:
        pace = a_pace(concurrency=1)
        async with pace.slot(A) as call:
            async with asyncio.TaskGroup() as group:
                waiter = group.create_task(refused(pace, B))
                await settle()
                pace.troubled(call, REFUSED_KEY)
            assert isinstance(waiter.result(), OperatorTrouble)
        assert "ANTHROPIC_API_KEY" in str(pace.reason)

    run(main())


async def refused(pace: Pace, run_id: UUID) -> Outage:
    with pytest.raises(Outage) as caught:
        async with pace.slot(run_id):
            pass
    return caught.value


def test_while_shut_a_call_is_refused_at_once_with_the_time_to_come_back_at() -> None:
    async def main() -> None:
        pace = a_pace(backoff_seconds=5)
        await shut(pace)
        began = now()
        error = await refused(pace, B)
        assert now() == began
        assert not isinstance(error, OperatorTrouble)
        assert error.retry_after_seconds == pytest.approx(5)

    run(main())


def test_a_burst_of_429_is_one_trouble() -> None:
    """Thirty calls meet the same limit in the same moment: that halves the width once, and shuts nothing."""

    async def main() -> None:
        pace = a_pace(concurrency=32)
        async with AsyncExitStack() as stack:
            calls = [await stack.enter_async_context(pace.slot(A)) for _ in range(32)]
            for call in calls:
                pace.troubled(call, CROWDED)
            assert pace.is_open
            assert pace.width == 16

    run(main())


def test_calls_that_use_up_their_deadline_count_each() -> None:
    """A deadline is ten minutes: waiting for three generations of calls would take half an hour to notice an outage."""

    async def main() -> None:
        pace = a_pace()
        async with AsyncExitStack() as stack:
            for call in [await stack.enter_async_context(pace.slot(A)) for _ in range(TROUBLES_UNTIL_SHUT)]:
                pace.troubled(call, SLOW)
            assert not pace.is_open

    run(main())


def test_a_retry_after_holds_every_new_call_back_until_then() -> None:
    async def main() -> None:
        pace = a_pace()
        await trouble(pace, A, limited(30))
        began = now()
        await success(pace, B)
        assert now() - began == pytest.approx(30)

    run(main())


def test_a_retry_after_that_is_too_long_to_wait_inside_a_run_shuts_it_until_then() -> None:
    async def main() -> None:
        pace = a_pace()
        await trouble(pace, A, limited(600))
        assert pace.reopens_in_seconds == pytest.approx(600)

    run(main())


def test_every_success_widens_by_one_up_to_the_setting() -> None:
    async def main() -> None:
        pace = a_pace(concurrency=8)
        await trouble(pace, A, CROWDED)
        widths = [pace.width]
        for _ in range(6):
            await success(pace, A)
            widths.append(pace.width)
        assert widths == [4, 5, 6, 7, 8, 8, 8]

    run(main())


def test_rate_limits_that_leave_room_for_a_few_calls_make_it_that_narrow() -> None:
    async def main() -> None:
        pace = a_pace(concurrency=8)
        async with pace.slot(A) as call:
            pace.succeeded(call, Allowance(calls=3, reset_seconds=20))
        assert pace.width == 3
        await success(pace, A)
        assert pace.width == 4

    run(main())


def test_rate_limits_that_are_used_up_hold_every_new_call_back_until_their_reset() -> None:
    async def main() -> None:
        pace = a_pace()
        async with pace.slot(A) as call:
            pace.succeeded(call, Allowance(calls=0, reset_seconds=20))
        began = now()
        await success(pace, B)
        assert now() - began == pytest.approx(20)

    run(main())


def test_success_of_a_call_from_before_the_trouble_does_not_widen() -> None:
    """Answers that were already on their way say nothing about the limit that was met since."""

    async def main() -> None:
        pace = a_pace(concurrency=8)
        async with pace.slot(A) as old:
            await trouble(pace, A, CROWDED)
            pace.succeeded(old)
        assert pace.width == 4

    run(main())


def test_success_of_a_call_from_before_the_trouble_does_not_open() -> None:
    async def main() -> None:
        pace = a_pace(concurrency=8)
        async with pace.slot(A) as old:
            await shut(pace)
            pace.succeeded(old)
        assert not pace.is_open

    run(main())


def test_who_waits_for_a_change_is_woken_when_it_shuts_and_when_it_opens() -> None:
    async def main() -> None:
        pace = a_pace()
        async with asyncio.TaskGroup() as group:
            seen = group.create_task(pace.wait_changed())
            await settle()
            await trouble(pace, A, REFUSED_KEY)
            await seen
            await asyncio.sleep(5)
            pace.begin_probe(A)
            seen = group.create_task(pace.wait_changed())
            await settle()
            await success(pace, A)
            await seen

    run(main())


def test_backing_off_ends_early_when_it_shuts() -> None:
    """The run is handed back then; it must not sit on its lease for the rest of a minute."""

    async def main() -> None:
        pace = a_pace()
        async with asyncio.TaskGroup() as group:
            group.create_task(pace.back_off(60))
            await settle()
            await trouble(pace, A, REFUSED_KEY)
        assert now() == 0
        await pace.back_off(60)
        assert now() == 0

    run(main())


def test_the_metrics_say_how_wide_it_is_and_whether_it_is_open() -> None:
    async def main() -> None:
        metrics = Metrics()
        pace = Pace(8, 5, metrics)

        def shown() -> tuple[float | None, float | None]:
            read = metrics.registry.get_sample_value
            return read("full_pass_pace_width"), read("full_pass_pace_open")

        assert shown() == (8, 1)
        await trouble(pace, A, CROWDED)
        assert shown() == (4, 1)
        await trouble(pace, A, REFUSED_KEY)
        assert shown() == (0, 0)

    run(main())
