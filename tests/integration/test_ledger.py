"""Claims under contention, and after PostgreSQL was started again."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest
from sqlalchemy import text

from consumer.postgres.claiming import REPLAY_PRIORITY
from sandbox.postgres import PostgresServer
from tests.integration.postgres_world import World, a_world, in_world, new_run


def test_a_replayed_run_never_holds_back_the_live_run_of_its_user_although_it_is_newer(database_url: str) -> None:
    async def work(world: World) -> None:
        user = await world.user()
        live = await world.accept(user, "live")
        replayed = await world.accept(user, "replayed", seconds=9, generation=1, priority=REPLAY_PRIORITY)
        assert (await world.claimed()).run_id == live.run_id
        await world.sql("UPDATE full_pass_runs SET status = 'completed' WHERE run_id = :id", id=live.run_id)
        assert (await world.claimed()).run_id == replayed.run_id

    in_world(database_url, work)


def test_a_newer_run_that_is_not_due_yet_does_not_hold_back_an_older_one(database_url: str) -> None:
    """It waits for an hour, perhaps; the user need not."""

    async def work(world: World) -> None:
        user = await world.user()
        older = await world.accept(user, "older")
        newer = await world.accept(user, "newer", seconds=9)
        await world.sql("UPDATE full_pass_runs SET due_at = now() + interval '1 hour' WHERE run_id = :id", id=newer.run_id)
        assert (await world.claimed()).run_id == older.run_id

    in_world(database_url, work)


def test_a_claim_that_another_workers_claim_for_the_same_user_beats_looks_again(database_url: str) -> None:
    """The index that keeps two runs of a user apart refuses it; that is no error, and another user's run is there to be had."""

    async def work(world: World) -> None:
        user = await world.user()
        older = await world.accept(user, "older")
        async with world.database.engine.begin() as other_worker:
            await other_worker.execute(
                text("UPDATE full_pass_runs SET status = 'running' WHERE run_id = :id"), {"id": older.run_id}
            )
            await world.accept(user, "newer", seconds=9)
            claiming = asyncio.create_task(world.claim())
            async with asyncio.timeout(10):
                while not await world.sql("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"):
                    await asyncio.sleep(0.01)
            theirs = await world.accept(await world.user(), "somebody else's")
        claim = await claiming
        assert claim is not None
        assert claim.run_id == theirs.run_id

    in_world(database_url, work)


@pytest.mark.guarantee("G2")
def test_many_workers_claim_each_run_once_and_leave_none(database_url: str) -> None:
    async def work(world: World) -> None:
        runs = [new_run(await world.user()) for _ in range(60)]
        await world.ledger.accept(runs)
        taken: list[UUID] = []

        async def worker() -> None:
            while (claim := await world.claim()) is not None:
                taken.append(claim.run_id)

        async with asyncio.TaskGroup() as workers:
            for _ in range(6):
                workers.create_task(worker())
        assert sorted(taken) == sorted(run.run_id for run in runs)
        assert await world.value("SELECT max(attempt) FROM full_pass_runs") == 1

    in_world(database_url, work)


@pytest.mark.guarantee("G6")
def test_after_a_start_of_postgresql_no_lease_counts_as_expired_until_its_holder_could_have_renewed_it(
    own_postgres: PostgresServer,
) -> None:
    """Every holder was cut off at once and is alive: taking its runs over would cost each of them a failure."""

    async def main() -> None:
        async with a_world(own_postgres.url(), lease_seconds=2) as world:
            silent = await world.started()
            await world.expire(silent)
        await asyncio.to_thread(own_postgres.restart)
        async with a_world(own_postgres.url(), lease_seconds=2) as world:
            started = "SELECT extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())::float8"
            claim = None
            async with asyncio.timeout(10):
                while claim is None:
                    claim = await world.ledger.claim(2, (), expired_count=True, suspects=True)
                    await asyncio.sleep(0.02)
            assert claim.run_id == silent.run_id
            assert await world.value(started) > 2

    asyncio.run(main())


def test_a_replayed_run_never_starts_while_a_live_one_of_its_user_waits_for_its_time(database_url: str) -> None:
    """Started in the minute before, it would hold the live one up for as long as it takes. Other users' go on."""

    async def work(world: World) -> None:
        user = await world.user()
        live = await world.accept(user, "live")
        await world.sql("UPDATE full_pass_runs SET due_at = now() + interval '1 minute'")
        await world.accept(user, "replayed", seconds=9, generation=1, priority=REPLAY_PRIORITY)
        others = await world.accept(await world.user(), "others", generation=1, priority=REPLAY_PRIORITY)
        assert (await world.claimed()).run_id == others.run_id
        assert await world.claim() is None
        await world.sql("UPDATE full_pass_runs SET status = 'completed' WHERE run_id = :id", id=live.run_id)
        assert (await world.claimed()).idempotency_key == "replayed"

    in_world(database_url, work)


def test_a_live_run_goes_before_every_replayed_one_also_of_the_same_moment_and_of_other_users(database_url: str) -> None:
    """The replay's run is the newer of the two by its generation, and has been due for longer."""

    async def work(world: World) -> None:
        user = await world.user()
        for each in (user, await world.user()):
            await world.accept(each, "replayed", generation=7, priority=REPLAY_PRIORITY)
        await world.sql("UPDATE full_pass_runs SET due_at = now() - interval '1 hour'")
        live = await world.accept(user, "live")
        assert (await world.claimed()).run_id == live.run_id

    in_world(database_url, work)
