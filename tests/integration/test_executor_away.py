"""An executor whose PostgreSQL is away, and its runs meanwhile."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import asyncpg
import pytest

from consumer.postgres.database import DatabaseUnavailable
from consumer.postgres.runs import Claim
from sandbox.postgres import PostgresServer
from tests.integration.executor_work import Work, accepted, at_work, never_end, pass_well, until, wait_for_status, with_executor
from tests.integration.postgres_world import a_world


@pytest.mark.guarantee("G6")
def test_runs_go_on_while_the_executor_is_started_again(database_url: str) -> None:
    """All its sessions are ended by the server, the listening one too; a run under way must not feel it."""
    release = asyncio.Event()

    async def carry(work: Work, claim: Claim) -> None:
        await release.wait()
        await pass_well(work, claim)

    async def test(work: Work) -> None:
        run_id = await accepted(work)
        await until(lambda: bool(work.claims))
        await work.world.sql(
            """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE datname = current_database() AND pid <> pg_backend_pid()"""
        )
        await until(lambda: work.sample("part_restarts_total", part="executor") >= 1)
        await until(lambda: work.worker.health.ready)
        release.set()
        run = await wait_for_status(work, run_id, "completed")
        assert (run["attempt"], run["failures"]) == (1, 0)

    with_executor(database_url, carry, test)


def test_a_postgresql_that_is_killed_in_the_middle_of_a_run_costs_no_failure(own_postgres: PostgresServer) -> None:
    """The run's next save fails; when the server is back, it is handed back, claimed again and completed."""
    killed = asyncio.Event()

    async def carry(work: Work, claim: Claim) -> None:
        await killed.wait()
        await pass_well(work, claim)

    async def main() -> None:
        own_postgres.create_database("killed")
        async with a_world(own_postgres.url("killed")) as world, at_work(world, carry) as work:
            run_id = await accepted(work)
            await until(lambda: bool(work.claims))
            await asyncio.to_thread(own_postgres.kill)
            killed.set()
            await until(lambda: "executor" in work.worker.health.reasons())
            assert "PostgreSQL" in work.worker.health.reasons()["executor"]
            await asyncio.to_thread(own_postgres.start)
            run = await wait_for_status(work, run_id, "completed")
            assert (run["attempt"], run["failures"]) == (2, 0)
            await until(lambda: work.worker.health.ready)

    asyncio.run(main())


def test_for_a_lease_after_an_executor_lost_postgresql_it_counts_no_lease_as_expired(database_url: str) -> None:
    """Whoever was cut off with it is alive, and could renew no more than it could."""

    async def test(work: Work) -> None:
        clock = asyncio.get_running_loop().time
        await until(lambda: work.world.value("SELECT now() > pg_postmaster_start_time() + interval '2 s'"))
        await accepted(work)
        await until(lambda: bool(work.claims))  # it is connected
        cut_off_at = clock()
        await work.world.sql(
            """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE datname = current_database() AND pid <> pg_backend_pid()"""
        )
        await until(lambda: work.sample("part_restarts_total", part="executor") >= 1)
        await work.world.sql(
            """INSERT INTO full_pass_runs
                   (run_id, user_id, idempotency_key, status, attempt, lease_until, completed_at, event, traceparent)
               VALUES (:id, :id, 'silent', 'running', 1, now() - interval '1 hour', now(), '{"storage_path": "a/b"}', '')""",
            id=uuid4(),
        )
        await until(lambda: len(work.claims) == 2)
        assert work.claims[1].failures == 1
        assert clock() - cut_off_at >= 2

    with_executor(database_url, never_end, test, shutdown_seconds=0.2)


@pytest.mark.guarantee("G6")
def test_a_run_that_was_taken_over_while_postgresql_was_away_does_not_hold_the_executor_up(
    database_url: str, database: str, postgres: PostgresServer
) -> None:
    """It can't be handed back any more; the executor drops it and works on."""

    def let_in(whether: bool) -> None:
        postgres.run_sql(f"ALTER DATABASE {database} ALLOW_CONNECTIONS {whether}")

    async def carry(work: Work, claim: Claim) -> None:
        if claim.idempotency_key == "first":
            await until(lambda: "executor" in work.worker.health.reasons())
        await pass_well(work, claim)

    async def test(work: Work) -> None:
        first = await accepted(work, key="first")
        await until(lambda: bool(work.claims))
        other_worker = await asyncpg.connect(database_url)
        try:
            await asyncio.to_thread(let_in, False)
            await other_worker.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            await until(lambda: work.sample("part_restarts_total", part="executor") >= 2)
            await other_worker.execute("UPDATE full_pass_runs SET attempt = 2, lease_until = now() + interval '1 hour'")
            await asyncio.to_thread(let_in, True)
        finally:
            await other_worker.close()
        second = await accepted(work, key="second")
        await wait_for_status(work, second, "completed")
        run = await work.world.run(first)
        assert (run["status"], run["attempt"], run["failures"]) == ("running", 2, 0)

    with_executor(database_url, carry, test)


def test_a_commit_whose_answer_was_lost_is_believed(database_url: str) -> None:
    """The run had ended before its worker heard that PostgreSQL was away; it isn't run or ended again."""

    async def carry(work: Work, claim: Claim) -> None:
        await pass_well(work, claim)
        if claim.idempotency_key == "first":
            raise DatabaseUnavailable("the answer to the commit was lost")

    async def test(work: Work) -> None:
        first, second = await accepted(work, key="first"), await accepted(work, key="second")
        await wait_for_status(work, second, "completed")
        await wait_for_status(work, first, "completed")
        assert await work.world.value("SELECT count(*) FROM full_pass_outbox WHERE event_type <> 'memory-saved'") == 2
        assert work.sample("part_restarts_total", part="executor") == 0

    with_executor(database_url, carry, test)
