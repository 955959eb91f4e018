"""An executor that is told to stop."""

from __future__ import annotations

import asyncio

import asyncpg

from consumer.errors import FinalError
from consumer.postgres.runs import Claim
from schemas.events import ErrorCode
from tests.integration.executor_work import Work, accepted, never_end, pass_well, raising, until, with_executor


def test_at_shutdown_runs_finish_in_time_or_are_handed_back_without_a_failure(database_url: str) -> None:
    released = asyncio.Event()

    async def carry(work: Work, claim: Claim) -> None:
        await (released.wait() if claim.idempotency_key == "quick" else asyncio.Event().wait())
        await pass_well(work, claim)

    async def test(work: Work) -> None:
        slow, quick = await accepted(work, key="slow"), await accepted(work, key="quick")
        await until(lambda: len(work.claims) == 2)
        work.worker.stopping.set()
        late = await accepted(work, key="late")
        released.set()
        await work.stop()
        statuses = {run_id: (await work.world.run(run_id))["status"] for run_id in (slow, quick, late)}
        assert statuses == {slow: "pending", quick: "completed", late: "pending"}
        run = await work.world.run(slow)
        assert (run["failures"], run["held_up_since"], run["lease_until"]) == (0, None, None)
        assert work.sample("runs_handed_back_total", reason="shutdown") == 1
        assert (await work.world.claimed()).run_id in {slow, late}  # due at once

    with_executor(database_url, carry, test, shutdown_seconds=1)


def test_an_idle_executor_stops_at_once(database_url: str) -> None:
    async def test(work: Work) -> None:
        await until(lambda: work.worker.health.ready)
        async with asyncio.timeout(2):
            await work.stop()

    with_executor(database_url, never_end, test, poll_seconds=60, lease_seconds=600, shutdown_seconds=60)


def test_a_run_that_is_being_settled_at_shutdown_costs_no_failure(database_url: str) -> None:
    """Its end waits for a lock; the executor doesn't wait for it for ever, and hands the run back."""

    async def test(work: Work) -> None:
        run_id = await accepted(work)
        connection = await asyncpg.connect(work.world.database.url)
        try:
            async with connection.transaction():
                await connection.execute("LOCK TABLE full_pass_outbox IN ACCESS EXCLUSIVE MODE")
                await until(lambda: _waits_for_a_lock(connection))
                await work.stop()
        finally:
            await connection.close()
        run = await work.world.run(run_id)
        assert (run["status"], run["failures"]) == ("pending", 0)

    with_executor(
        database_url, raising(FinalError(ErrorCode.EXPORT_EMPTY, "empty")), test, shutdown_seconds=0.5, lease_seconds=600
    )


async def _waits_for_a_lock(connection: asyncpg.Connection) -> bool:
    question = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    return bool(await connection.fetchval(question))
