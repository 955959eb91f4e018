"""Pace while it is shut: one probe passes, and what it finds out opens or shuts, in virtual time."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from tests.unit.claude.test_pace import (
    BROKEN,
    REFUSED_KEY,
    SLOW,
    A,
    B,
    C,
    a_pace,
    refused,
    shut,
    success,
    trouble,
    waiting,
)
from tests.unit.claude.virtual_time import now, run, settle


def test_before_the_backoff_has_passed_nothing_may_be_claimed_and_then_one_probe() -> None:
    async def main() -> None:
        pace = a_pace(backoff_seconds=5)
        assert pace.claimable() == "any"
        await shut(pace)
        assert pace.claimable() == "none"
        assert pace.claimable(now() + 5) == "probe"
        await asyncio.sleep(5)
        assert pace.claimable() == "probe"
        pace.begin_probe(B)
        assert pace.claimable() == "none"
        assert pace.reopens_in_seconds is None

    run(main())


def test_the_first_call_of_the_probes_run_goes_alone_and_the_others_follow_its_success_one_by_one() -> None:
    async def main() -> None:
        pace = a_pace()
        await shut(pace)
        await asyncio.sleep(5)
        pace.begin_probe(B)
        async with pace.slot(B) as probe, waiting(pace.slot(B), pace.slot(B)) as (second, third):
            await refused(pace, C)
            await settle()
            assert not second.done()
            pace.succeeded(probe)
            assert pace.is_open
            assert pace.width == 1
            await settle()
            assert not second.done()
            # The probe leaves its slot below; the second call, a success, makes room for itself and for the third.
            pace.succeeded(probe)
            await settle()
            assert second.done()
            assert not third.done()
            pace.succeeded(second.result())

    run(main())


def test_a_failed_probe_shuts_it_again_for_twice_as_long_at_most_a_minute() -> None:
    async def main() -> None:
        pace = a_pace(backoff_seconds=5)
        await shut(pace)
        backoffs = []
        for _ in range(6):
            backoffs.append(pace.reopens_in_seconds)
            await asyncio.sleep(pace.reopens_in_seconds or 0)
            pace.begin_probe(B)
            await trouble(pace, B, BROKEN)
            assert await refused(pace, B)
        assert backoffs == pytest.approx([5, 10, 20, 40, 60, 60])

    run(main())


def test_after_it_opened_the_backoff_begins_anew() -> None:
    async def main() -> None:
        pace = a_pace(backoff_seconds=5)
        for _ in range(2):
            await shut(pace)
            assert pace.reopens_in_seconds == pytest.approx(5)
            await asyncio.sleep(5)
            pace.begin_probe(A)
            await success(pace, A)

    run(main())


def test_a_probe_that_decides_nothing_makes_way_for_the_next_one_at_once() -> None:
    """Its run may find every answer recorded, or end before it calls."""

    async def main() -> None:
        pace = a_pace()
        await shut(pace)
        await asyncio.sleep(5)
        pace.begin_probe(B)
        async with pace.slot(B):
            pass
        pace.end_probe(B)
        assert not pace.is_open
        assert pace.claimable() == "probe"
        await refused(pace, B)

    run(main())


def test_the_end_of_another_run_does_not_end_the_probe() -> None:
    async def main() -> None:
        pace = a_pace()
        await shut(pace)
        await asyncio.sleep(5)
        pace.begin_probe(B)
        pace.end_probe(A)
        await success(pace, B)
        assert pace.is_open

    run(main())


def test_calls_that_hang_since_before_it_shut_keep_no_probe_from_passing() -> None:
    async def main() -> None:
        pace = a_pace(concurrency=2)
        async with pace.slot(A) as first, pace.slot(A) as second:
            pace.troubled(first, REFUSED_KEY)
            await asyncio.sleep(5)
            pace.begin_probe(B)
            async with asyncio.timeout(1):
                await success(pace, B)
            pace.succeeded(second)
        assert pace.is_open

    run(main())


def test_calls_that_hang_since_before_it_shut_still_count_against_the_setting() -> None:
    """Only the probe may go beyond it; else an outage with long deadlines would pile up connections."""

    async def main() -> None:
        pace = a_pace(concurrency=2)
        async with AsyncExitStack() as hanging:
            first = await hanging.enter_async_context(pace.slot(A))
            await hanging.enter_async_context(pace.slot(A))
            pace.troubled(first, REFUSED_KEY)
            await asyncio.sleep(5)
            pace.begin_probe(B)
            await success(pace, B)
            async with asyncio.TaskGroup() as group:
                waiter = group.create_task(success(pace, B))
                await settle()
                assert not waiter.done()
                await hanging.aclose()

    run(main())


def test_calls_from_before_it_shut_can_fail_as_they_like_without_shutting_it_longer_or_taking_the_probe_away() -> None:
    async def main() -> None:
        pace = a_pace(backoff_seconds=5)
        async with pace.slot(A) as first, pace.slot(A) as second, pace.slot(A) as third:
            pace.troubled(first, REFUSED_KEY)
            pace.troubled(second, SLOW)
            assert pace.reopens_in_seconds == pytest.approx(5)
            await asyncio.sleep(5)
            pace.begin_probe(B)
            pace.troubled(third, SLOW)
            await success(pace, B)
        assert pace.is_open

    run(main())
