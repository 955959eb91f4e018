"""`users forget` beside saves, runs and calls that are under way, and interrupted in the middle."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from consumer.errors import CommandError, LostLease, Outage
from consumer.postgres.chunks import CHANGEOVER_KEY, DELETED_AT_ONCE
from consumer.postgres.forgetting import BATCH_ROWS, Erased
from consumer.postgres.outbox import announce
from consumer.postgres.runs import Claim
from consumer.postgres.saving import saving
from schemas.events import MemorySaved
from tests.integration import test_gate_record as gate
from tests.integration.executor_work import Work, accepted, pass_well, until, wait_for_status, with_executor
from tests.integration.postgres_world import FIRST, World, count_deletes, in_world
from tests.integration.test_forgetting import forget, passed, traces_of
from tests.integration.test_records import chunk

pytestmark = pytest.mark.guarantee("G11")


async def while_it_waits(world: World, forgetting: Coroutine[Any, Any, Erased], then: Callable[[], Awaitable[Any]]) -> Erased:
    """Start forgetting, and do something as soon as it waits for a lock."""
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(forgetting)
        async with asyncio.timeout(10):
            while not await world.sql("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"):
                await asyncio.sleep(0.01)
        await then()
    return task.result()


def test_forgetting_waits_for_a_save_that_is_under_way_and_what_it_wrote_goes(database_url: str) -> None:
    async def work(world: World) -> None:
        claim = await world.started()
        door = saving(world.database, claim)
        transaction = await door.__aenter__()

        async def save() -> None:
            await transaction.execute(text("UPDATE user_profiles SET memory_md = 'saved', profile_version = 5"))
            await transaction.execute(text("UPDATE full_pass_runs SET memory_saved_at = now(), profile_version = 5"))
            saved = MemorySaved(
                user_id=claim.user_id,
                idempotency_key=claim.idempotency_key,
                generation=0,
                run_id=claim.run_id,
                profile_version=5,
                memory_sha256="0" * 64,
                memory_chars=5,
                fact_count=1,
                coverage=1,
                saved_at=FIRST,
            )
            await announce(transaction, saved, claim.traceparent, FIRST)
            await door.__aexit__(None, None, None)

        erased = await while_it_waits(world, forget(world, claim.user_id, profile=True), save)
        row = await world.profile(claim.user_id)
        assert (row["memory_md"], row["profile_version"], erased.profile_version) == (None, 6, 6)
        assert (erased.runs, erased.outbox_rows) == (1, 1)
        assert await traces_of(world, claim.user_id) == {}

    in_world(database_url, work)


@asynccontextmanager
async def locked(world: World, lock: str, user_id: UUID):  # type: ignore[no-untyped-def]
    async with world.database.transaction() as transaction:
        await transaction.execute(text(f"SELECT {lock}({CHANGEOVER_KEY})"), {"user_id": user_id})
        yield


def test_forgetting_waits_for_chunks_that_are_changing_over_and_says_so_when_that_takes_too_long(database_url: str) -> None:
    async def work(world: World) -> None:
        claim = await world.started()
        async with locked(world, "pg_advisory_xact_lock_shared", claim.user_id):
            with pytest.raises(CommandError, match="run the command again"):
                await forget(world, claim.user_id, changeover_wait_seconds=0.2)
            assert await world.sql("SELECT 1 FROM full_pass_forgotten") == []
        await world.chunks.replace(claim, [[chunk()]])
        assert (await forget(world, claim.user_id)).chunks == 1

    in_world(database_url, work)


def test_a_later_run_replaces_no_chunks_while_the_old_ones_are_being_erased(database_url: str) -> None:
    """They would go with the old ones. It is handed back, costs no failure and comes again."""

    async def work(world: World) -> None:
        claim, other = await world.started(), await world.started()
        async with locked(world, "pg_advisory_xact_lock", claim.user_id):
            with pytest.raises(Outage):
                await world.chunks.replace(claim, [[chunk(content="new")]])
            await world.chunks.replace(other, [[chunk(content="theirs")]])
        await world.chunks.replace(claim, [[chunk(content="new")]])
        assert await world.value("SELECT count(*) FROM conversation_chunks") == 2

    in_world(database_url, work)


def test_what_a_later_run_has_is_not_taken_with_the_old(database_url: str) -> None:
    """Forgetting may take long; meanwhile an event that was completed later may come."""

    async def work(world: World) -> None:
        user = await world.user()
        await passed(world, user)
        await world.sql("""
            CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                INSERT INTO full_pass_runs (run_id, user_id, idempotency_key, completed_at, event, traceparent, status)
                SELECT gen_random_uuid(), user_id, 'later', '2060-01-01', event, traceparent, 'running' FROM full_pass_runs;
                UPDATE user_profiles SET full_pass_status = 'processing';
                INSERT INTO full_pass_model_calls SELECT user_id, 'later', run_id, 'facts', 'm', '', '', 1, 1
                FROM full_pass_runs WHERE idempotency_key = 'later';
                INSERT INTO full_pass_outbox (event_id, event_type, run_id, user_id, data, traceparent, occurred_at)
                SELECT gen_random_uuid(), 'memory-saved', run_id, user_id, '', '', now()
                FROM full_pass_runs WHERE idempotency_key = 'later';
                RETURN NULL; END $$""")
        await world.sql("CREATE TRIGGER late AFTER INSERT ON full_pass_forgotten EXECUTE FUNCTION late()")
        erased = await forget(world, user)
        assert (erased.runs, erased.recorded_answers, erased.outbox_rows) == (1, 1, 2)
        assert await traces_of(world, user) == {"full_pass_runs": 1, "full_pass_outbox": 1, "full_pass_model_calls": 1}
        assert (await world.profile(user))["full_pass_status"] == "processing"

    in_world(database_url, work)


@pytest.mark.guarantee("G10")
def test_a_user_who_has_very_much_is_erased_in_statements_that_stay_short(database_url: str) -> None:
    async def work(world: World) -> None:
        claim = await world.started()
        await world.sql("ALTER TABLE conversation_chunks ALTER created_at DROP NOT NULL")
        await world.sql(
            """INSERT INTO conversation_chunks
               SELECT user_id, n::text, '', '', 1, 0, 1, 1, '', true,
                      CASE WHEN n % 3 > 0 THEN now() - make_interval(secs => n / 1000) END
               FROM full_pass_runs, generate_series(1, :chunks) AS n""",
            chunks=2 * DELETED_AT_ONCE,
        )
        await world.sql(
            """INSERT INTO full_pass_model_calls
               SELECT user_id, n::text, run_id, '', '', '', '', 1, 1 FROM full_pass_runs, generate_series(1, :answers) AS n""",
            answers=2 * BATCH_ROWS + 5,
        )
        await count_deletes(world, "conversation_chunks", "full_pass_model_calls")
        erased = await forget(world, claim.user_id)
        assert (erased.chunks, erased.recorded_answers) == (2 * DELETED_AT_ONCE, 2 * BATCH_ROWS + 5)
        most = {row["of"]: row["most"] for row in await world.sql("SELECT of, max(rows) AS most FROM deletes GROUP BY of")}
        assert most == {"conversation_chunks": DELETED_AT_ONCE, "full_pass_model_calls": BATCH_ROWS}

    in_world(database_url, work)


def test_a_command_that_was_interrupted_goes_on_when_it_is_run_again(database_url: str) -> None:
    async def work(world: World) -> None:
        user = await world.user()
        await passed(world, user)
        await world.sql("CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'stop'; END $$")
        await world.sql("CREATE TRIGGER stop BEFORE DELETE ON full_pass_runs EXECUTE FUNCTION stop()")
        with pytest.raises(Exception, match="stop"):
            await forget(world, user)
        assert await traces_of(world, user) == {"full_pass_runs": 1}
        await world.sql("DROP TRIGGER stop ON full_pass_runs")
        await forget(world, user)
        assert await traces_of(world, user) == {}

    in_world(database_url, work)


def test_the_worker_that_has_the_run_stops_it_and_goes_on_with_others(database_url: str) -> None:
    async def carry(work: Work, claim: Claim) -> None:
        if len(work.claims) == 1:
            await work.world.profiles.begin(claim)
            await asyncio.Event().wait()
        await pass_well(work, claim)

    async def test(work: Work) -> None:
        run_id = await accepted(work)
        await until(lambda: bool(work.claims))
        await forget(work.world, work.claims[0].user_id)
        await until(lambda: work.sample("leases_lost_total") == 1)
        other = await accepted(work)
        await wait_for_status(work, other, "completed")
        assert [claim.run_id for claim in work.claims] == [run_id, other]
        assert await traces_of(work.world, work.claims[0].user_id) == {}
        assert work.sample("runs_ended_total", status="failed", code="internal") == 0

    with_executor(database_url, carry, test)


def test_calls_that_wait_for_their_turn_are_not_made_for_a_run_that_is_gone(database_url: str) -> None:
    """Those in flight come to their end and are paid for; at most one more takes the place of each in that very moment."""

    async def main() -> None:
        async with gate.a_world(database_url, model_concurrency=1) as world:
            run_id, claude = await world.run()
            await world.stand_in.script([{"times": None, "fault": {"kind": "latency", "seconds": 0.2}}])
            async with asyncio.TaskGroup() as tasks:
                asking = [tasks.create_task(outcome(claude.ask(gate.question(number)))) for number in range(12)]
                await until(lambda: len(world.stand_in.requests()) == 1)
                await world.sql("DELETE FROM full_pass_runs WHERE run_id = :id", id=run_id)
            assert {type(task.result()) for task in asking} == {LostLease}
            assert len(world.stand_in.requests()) <= 2

    asyncio.run(main())


async def outcome(asking: Awaitable[Any]) -> Any:
    try:
        return await asking
    except LostLease as lost:
        return lost
