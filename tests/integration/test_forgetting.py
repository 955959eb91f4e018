"""`users forget` on PostgreSQL: what goes, what stays as a fence, and what comes after it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from consumer.errors import CommandError, LostLease, Outage
from consumer.postgres.chunks import CHANGEOVER_KEY, DELETED_AT_ONCE
from consumer.postgres.forgetting import BATCH_ROWS, Erased, Forgetting
from consumer.postgres.outbox import announce
from consumer.postgres.runs import Claim
from consumer.postgres.saving import saving
from schemas.events import ErrorCode, MemorySaved
from tests.integration import test_gate_record as gate
from tests.integration.executor_work import Work, accepted, pass_well, until, wait_for_status, with_executor
from tests.integration.postgres_world import FIRST, World, in_world
from tests.integration.test_records import billed, chunk
from tests.integration.test_saving import save_sections

pytestmark = pytest.mark.guarantee("G11")

KEPT = ("full_pass_runs", "full_pass_outbox", "full_pass_model_calls", "full_pass_forgotten", "full_pass_spend")
DOCUMENTS = ("memory_md", "soul_md", "identity_md", "user_md", "agents_md", "tools_md", "soulprint_text")
LATER = 30 * 365 * 86_400
"""Seconds after the first event: an event that is completed after whatever a test forgets."""


async def forget(world: World, user_id: UUID, *, profile: bool = False, **more: Any) -> Erased:
    return await Forgetting(world.database, **more).forget(user_id, profile=profile)


async def passed(world: World, user_id: UUID, key: str = "key", **more: Any) -> Claim:
    """A run of the user that went well, with a chunk, an answer and its events, one of them published."""
    await world.accept(user_id, key, **more)
    claim = await world.claimed()
    await world.profiles.begin(claim)
    await world.chunks.replace(claim, [[chunk(content="what they said")]])
    await world.answers.record(claim.run_id, user_id, billed(hashlib.sha256(key.encode()).hexdigest()))
    await world.profiles.save_memory(claim, "MEMORY", 3, 1.0)
    [row] = [row for row in await world.outbox.unpublished(1000) if row.user_id == user_id]
    await world.outbox.mark_published([row.event_id])
    await save_sections(world, claim)
    return claim


async def traces_of(world: World, user_id: UUID) -> dict[str, int]:
    """In how many rows of which tables of ours the user stands."""
    found = {}
    for table in (*KEPT, "conversation_chunks"):
        found[table] = await world.value(f"SELECT count(*) FROM {table} AS it WHERE it::text LIKE :user", user=f"%{user_id}%")
    return {table: count for table, count in found.items() if count}


def test_all_that_is_kept_of_a_user_goes_and_nothing_of_another(database_url: str) -> None:
    async def work(world: World) -> None:
        user, other = await world.user(), await world.user()
        for each in (user, other):
            await passed(world, each)
        before = await traces_of(world, other)
        profiles = [await world.profile(each) for each in (user, other)]
        assert await traces_of(world, user) == before
        erased = await forget(world, user)
        assert (erased.runs, erased.recorded_answers, erased.chunks, erased.outbox_rows) == (1, 1, 1, 2)
        assert (erased.profile, erased.profile_version) == ("kept", 2)
        assert await traces_of(world, user) == {}
        assert await traces_of(world, other) == before
        assert [await world.profile(each) for each in (user, other)] == profiles

    in_world(database_url, work)


def test_what_stays_is_a_hash_the_time_and_the_version(database_url: str) -> None:
    async def work(world: World) -> None:
        user = await world.user(profile_version=9)
        erased = await forget(world, user)
        [row] = await world.sql("SELECT * FROM full_pass_forgotten")
        assert row == {
            "user_sha256": hashlib.sha256(str(user).encode()).digest(),
            "forgotten_at": erased.forgotten_at,
            "profile_version": 9,
        }
        assert await world.value("SELECT clock_timestamp() - forgotten_at < interval '10 s' FROM full_pass_forgotten")

    in_world(database_url, work)


def test_processing_goes_back_to_pending_and_no_other_status_changes(database_url: str) -> None:
    async def work(world: World) -> None:
        for status, after in (("processing", "pending"), ("failed", "failed"), ("complete", "complete"), (None, None)):
            user = await world.user(full_pass_status=status)
            await forget(world, user)
            assert (await world.profile(user))["full_pass_status"] == after

    in_world(database_url, work)


def test_with_profile_memory_sections_and_soulprint_are_emptied_under_a_new_version(database_url: str) -> None:
    """A reader that compares versions when it reads must drop the prompt that it made of them."""

    async def work(world: World) -> None:
        user = await world.user()
        await passed(world, user)
        erased = await forget(world, user, profile=True)
        row = await world.profile(user)
        assert [row[name] for name in DOCUMENTS] == [None] * 7
        assert (row["full_pass_status"], row["full_pass_completed_at"], row["profile_version"]) == ("pending", None, 3)
        assert (erased.profile, erased.profile_version) == ("emptied", 3)
        assert (await forget(world, user, profile=True)).profile_version == 3
        assert (await world.profile(user))["profile_version"] == 3

    in_world(database_url, work)


def test_without_a_profile_row_there_is_a_fence_all_the_same(database_url: str) -> None:
    async def work(world: World) -> None:
        user = await world.user()
        await passed(world, user)
        await world.sql("DELETE FROM user_profiles")
        erased = await forget(world, user, profile=True)
        assert (erased.profile, erased.profile_version) == ("none", 2)

    in_world(database_url, work)


@pytest.mark.guarantee("G5")
def test_the_version_goes_on_above_that_of_the_forgotten_in_a_row_made_anew(database_url: str) -> None:
    async def work(world: World) -> None:
        user = await world.user()
        await passed(world, user)
        await forget(world, user)
        await world.sql("DELETE FROM user_profiles")
        await world.sql("INSERT INTO user_profiles (user_id) VALUES (:id)", id=user)
        await passed(world, user, "later", seconds=LATER)
        assert (await world.profile(user))["profile_version"] == 4
        for above in (5, 6):
            await world.sql("UPDATE user_profiles SET profile_version = 0, soul_md = 'of another quick pass'")
            assert (await forget(world, user, profile=True)).profile_version == above

    in_world(database_url, work)


def test_an_event_that_was_completed_before_is_not_taken_again_and_one_completed_later_is(database_url: str) -> None:
    async def work(world: World) -> None:
        user = await world.user()
        await passed(world, user)
        await forget(world, user)
        for key, more in (("key", {}), ("another", {"seconds": 5}), ("key", {"generation": 7})):
            await world.accept(user, key, **more)  # type: ignore[arg-type]
        assert await world.sql("SELECT 1 FROM full_pass_runs") == []
        await passed(world, user, "later", seconds=LATER)
        assert (await world.profile(user))["profile_version"] == 4

    in_world(database_url, work)


def test_an_event_of_a_clock_that_is_ahead_counts_as_before_once_it_was_taken(database_url: str) -> None:
    async def work(world: World) -> None:
        user = await world.user()
        await world.accept(user, "ahead", seconds=LATER)
        assert (await forget(world, user)).runs == 1
        await world.accept(user, "ahead", seconds=LATER)
        assert await world.claim() is None

    in_world(database_url, work)


async def fence(world: World, user_id: UUID) -> None:
    """The fence alone, as it stands where the command was killed behind it."""
    values = {"hash": hashlib.sha256(str(user_id).encode()).digest(), "at": FIRST + timedelta(seconds=1)}
    await world.sql("INSERT INTO full_pass_forgotten (user_sha256, forgotten_at) VALUES (:hash, :at)", **values)


def test_a_run_that_slipped_in_is_removed_by_its_claim_and_the_next_one_is_taken(database_url: str) -> None:
    """Intake's insert may have begun before the fence stood."""

    async def work(world: World) -> None:
        user = await world.user()
        claim = await passed(world, user)
        await world.sql("UPDATE full_pass_runs SET status = 'pending', due_at = '2020-01-01'")
        await world.accept(user, "slipped in")
        other = await world.accept(await world.user())
        later = await world.accept(user, "later", seconds=2)
        await fence(world, user)
        assert {(await world.claimed()).run_id for _ in range(2)} == {other.run_id, later.run_id}
        await world.sql("UPDATE full_pass_runs SET status = 'completed' WHERE run_id = :id", id=later.run_id)
        assert await world.claim() is None
        assert {row["run_id"] for row in await world.sql("SELECT run_id FROM full_pass_runs")} == {other.run_id, later.run_id}
        assert await world.sql("SELECT 1 FROM full_pass_outbox WHERE run_id = :id", id=claim.run_id) == []
        assert await world.sql("SELECT 1 FROM full_pass_model_calls") == []

    in_world(database_url, work)


@pytest.mark.guarantee("G6")
def test_the_door_lets_nothing_of_a_forgotten_user_in(database_url: str) -> None:
    async def work(world: World) -> None:
        claim = await world.started()
        await fence(world, claim.user_id)
        before = await world.profile(claim.user_id)
        ways: Iterable[Awaitable[Any]] = (
            world.profiles.begin(claim),
            world.chunks.replace(claim, [[chunk()]]),
            world.profiles.save_memory(claim, "MEMORY", 3, 1.0),
            save_sections(world, claim),
            world.profiles.end_failed(claim, ErrorCode.INTERNAL, "why"),
        )
        for way in ways:
            with pytest.raises(LostLease):
                await way
        assert await world.profile(claim.user_id) == before
        assert await world.events() == []

    in_world(database_url, work)


def test_whoever_holds_the_run_of_a_forgotten_user_has_lost_it(database_url: str) -> None:
    async def work(world: World) -> None:
        claim = await world.started()
        erased = await forget(world, claim.user_id)
        assert erased.runs == 1
        assert await world.ledger.renew([claim], 30) == {claim.run_id}
        assert not await world.ledger.put_back_failed(claim, "internal", "why", 0)
        with pytest.raises(LostLease):
            await world.ledger.enter_stage(claim, "facts", 30)
        with pytest.raises(LostLease):
            await world.profiles.end_failed(claim, ErrorCode.INTERNAL, "why")
        with pytest.raises(LostLease):
            await world.answers.record(claim.run_id, claim.user_id, billed())
        assert await traces_of(world, claim.user_id) == {}

    in_world(database_url, work)


async def while_it_waits(world: World, forgetting: Awaitable[Erased], then: Callable[[], Awaitable[Any]]) -> Erased:
    """Start forgetting, and do something as soon as it waits for a lock."""
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(forgetting)  # type: ignore[arg-type]
        async with asyncio.timeout(10):
            while not await world.sql("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"):
                await asyncio.sleep(0.01)
        await then()
    return task.result()  # type: ignore[no-any-return]


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


COUNT_DELETES = """
    CREATE TABLE deletes (of text, rows bigint);
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO deletes SELECT TG_TABLE_NAME, count(*) FROM old; RETURN NULL; END $$;
"""


async def count_deletes(world: World, *tables: str) -> None:
    triggers = [
        f"CREATE TRIGGER note AFTER DELETE ON {table} REFERENCING OLD TABLE AS old FOR EACH STATEMENT EXECUTE FUNCTION note()"
        for table in tables
    ]
    for statement in (*filter(str.strip, COUNT_DELETES.split(";\n    ")), *triggers):
        await world.sql(statement)


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
