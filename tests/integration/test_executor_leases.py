"""Which runs an executor holds, and when it lets go of one."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from consumer.errors import LostLease
from consumer.postgres.runs import Claim
from tests.integration.executor_work import (
    Work,
    accepted,
    all_completed,
    at_work,
    pass_well,
    raising,
    until,
    wait_for_status,
    with_executor,
)
from tests.integration.postgres_world import a_world


@pytest.mark.guarantee("G6")
@pytest.mark.parametrize("how", ["taken over", "ended", "gone"])
def test_a_run_that_was_taken_away_is_stopped_and_nothing_is_written(database_url: str, how: str) -> None:
    stopped = asyncio.Event()
    takeaway = {
        "taken over": "UPDATE full_pass_runs SET attempt = attempt + 1, lease_until = now() + interval '1 hour'",
        "ended": "UPDATE full_pass_runs SET status = 'failed', error_code = 'cancelled', finished_at = now(), lease_until = NULL",
        "gone": "DELETE FROM full_pass_runs",
    }[how]

    async def carry(_work: Work, _claim: Claim) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    async def test(work: Work) -> None:
        await accepted(work)
        await until(lambda: bool(work.claims))
        await work.world.sql(takeaway)
        before = await work.world.sql("SELECT * FROM full_pass_runs")
        await until(stopped.is_set)
        await until(lambda: work.sample("leases_lost_total") == 1)
        assert await work.world.sql("SELECT * FROM full_pass_runs") == before
        assert await work.world.events() == []
        assert len(work.claims) == 1

    with_executor(database_url, carry, test)


@pytest.mark.guarantee("G6")
def test_a_run_that_finds_its_lease_lost_stops_quietly(database_url: str) -> None:
    async def test(work: Work) -> None:
        run_id = await accepted(work)
        await until(lambda: work.sample("leases_lost_total") == 1)
        run = await work.world.run(run_id)
        assert (run["status"], run["failures"]) == ("running", 0)

    with_executor(database_url, raising(LostLease()), test, lease_seconds=600)


def test_a_run_that_takes_longer_than_a_lease_stays_with_its_worker(database_url: str) -> None:
    release = asyncio.Event()

    async def carry(work: Work, claim: Claim) -> None:
        await release.wait()
        await pass_well(work, claim)

    async def test(work: Work) -> None:
        run_id = await accepted(work)
        await until(lambda: bool(work.claims))
        began = asyncio.get_running_loop().time()
        while asyncio.get_running_loop().time() - began < 2.6:
            assert await work.world.claim() is None
            await asyncio.sleep(0.1)
        release.set()
        run = await wait_for_status(work, run_id, "completed")
        assert (run["attempt"], run["failures"]) == (1, 0)

    with_executor(database_url, carry, test)


def test_a_worker_carries_no_more_runs_at_once_than_it_may(database_url: str) -> None:
    under_way: set[UUID] = set()
    most = 0

    async def carry(work: Work, claim: Claim) -> None:
        nonlocal most
        under_way.add(claim.run_id)
        most = max(most, len(under_way))
        await asyncio.sleep(0.05)
        await pass_well(work, claim)
        under_way.discard(claim.run_id)

    async def test(work: Work) -> None:
        runs = [await accepted(work) for _ in range(9)]
        for run_id in runs:
            await wait_for_status(work, run_id, "completed")
        assert most == 3

    with_executor(database_url, carry, test, run_concurrency=3)


@pytest.mark.guarantee("G10")
def test_a_worker_carries_one_run_with_two_failures_at_a_time(database_url: str) -> None:
    """If it is poison, it takes no other with it."""
    release = asyncio.Event()

    async def carry(work: Work, claim: Claim) -> None:
        await release.wait()
        await pass_well(work, claim)

    async def main() -> None:
        async with a_world(database_url) as world:
            for _ in range(3):
                await world.accept(await world.user())
            await world.sql("UPDATE full_pass_runs SET failures = 2")
            healthy = await world.accept(await world.user())
            async with at_work(world, carry) as work:
                await until(lambda: healthy.run_id in [claim.run_id for claim in work.claims])
                await until(lambda: _looked_again(work))
                assert sorted(claim.failures for claim in work.claims) == [0, 2]
                release.set()
                await until(lambda: all_completed(work, 4))

    asyncio.run(main())


async def _looked_again(work: Work) -> bool:
    """Whether the executor has been at the ledger again since it claimed: it has renewed the leases."""
    renewed = "SELECT bool_and(lease_until > started_at + interval '2.3 s') FROM full_pass_runs WHERE status = 'running'"
    return bool(await work.world.value(renewed))
