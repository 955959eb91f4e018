"""The one door: what a run may write, and what readers see of it."""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import replace
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError

from consumer.errors import FinalError, LostLease, NotThereYet, Superseded
from consumer.postgres.saving import saving
from schemas.events import SECTION_NAMES, ErrorCode, MemorySaved, V2Completed, V2Failed, event_id_of
from tests.integration.postgres_world import LEASE_SECONDS, World, in_world

SECTIONS = {name: {"field": f"Zoë's {name}"} for name in SECTION_NAMES}
DETAIL = "two answers were invalid"


async def save_sections(world: World, claim, soulprint: str = "the soulprint") -> None:  # type: ignore[no-untyped-def]
    await world.profiles.save_sections(claim, SECTIONS, soulprint, conversations_sampled=7, model="claude")


@pytest.mark.guarantee("G6")
@pytest.mark.parametrize("loss", ["attempt = attempt + 1", "status = 'failed'", "status = 'pending'"])
def test_who_lost_the_run_writes_nothing(database_url: str, loss: str) -> None:
    async def work(world: World) -> None:
        claim = await world.started()
        before = await world.profile(claim.user_id)
        await world.sql(f"UPDATE full_pass_runs SET {loss}")
        ways = (
            world.profiles.save_memory(claim, "MEMORY", 3, 1.0),
            save_sections(world, claim),
            world.profiles.end_failed(claim, ErrorCode.INTERNAL, DETAIL),
            world.chunks.replace(claim, []),
            world.profiles.begin(claim),
        )
        for way in ways:
            with pytest.raises(LostLease):
                await way
        assert await world.profile(claim.user_id) == before
        assert await world.events() == []

    in_world(database_url, work)


@pytest.mark.guarantee("G6")
def test_a_save_that_meets_a_takeover_waits_for_it_and_then_writes_nothing(database_url: str) -> None:
    async def work(world: World) -> None:
        claim = await world.started()
        async with world.database.engine.begin() as takeover:
            await takeover.execute(text("UPDATE full_pass_runs SET attempt = attempt + 1"))
            save = asyncio.create_task(world.profiles.save_memory(claim, "MEMORY", 3, 1.0))
            async with asyncio.timeout(10):
                while not await world.sql("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"):
                    await asyncio.sleep(0.01)
        with pytest.raises(LostLease):
            await save
        assert (await world.profile(claim.user_id))["memory_md"] is None

    in_world(database_url, work)


def test_a_save_renews_the_lease(database_url: str) -> None:
    async def work(world: World) -> None:
        claim = await world.started()
        await world.sql("UPDATE full_pass_runs SET lease_until = clock_timestamp()")
        await world.profiles.save_memory(claim, "MEMORY", 3, 1.0)
        assert await world.value("SELECT lease_until > clock_timestamp() + interval '20 s' FROM full_pass_runs")

    in_world(database_url, work)


@pytest.mark.guarantee("G7")
@pytest.mark.parametrize(
    ("newer", "superseded"),
    [
        ({"seconds": 1}, True),
        ({"seconds": -1}, False),
        ({"generation": 1}, True),
        ({"seconds": -1, "generation": 5}, False),
    ],
    ids=["later", "earlier", "same time, higher generation", "earlier, higher generation"],
)
def test_a_run_is_superseded_by_a_newer_one_that_saved_its_memory(database_url: str, newer: dict, superseded: bool) -> None:  # type: ignore[type-arg]
    async def work(world: World) -> None:
        user = await world.user()
        run = await world.accept(user)
        claim = await world.claimed()
        await world.sql("UPDATE full_pass_runs SET status = 'failed'")
        other = await world.accept(user, "other", **newer)
        await world.sql("UPDATE full_pass_runs SET status = 'running' WHERE run_id = :id", id=run.run_id)
        await world.profiles.begin(claim)  # the other has not saved yet
        await world.sql("UPDATE full_pass_runs SET memory_saved_at = now() WHERE run_id = :id", id=other.run_id)
        if superseded:
            with pytest.raises(Superseded):
                await world.profiles.save_memory(claim, "MEMORY", 3, 1.0)
        else:
            await world.profiles.save_memory(claim, "MEMORY", 3, 1.0)

    in_world(database_url, work)


@pytest.mark.guarantee("G7")
def test_between_events_of_one_time_and_generation_the_greater_id_is_newer(database_url: str) -> None:
    async def work(world: World) -> None:
        user = await world.user()
        runs = sorted([await world.accept(user, key) for key in ("a", "b", "c")], key=lambda run: run.run_id)
        claim = await world.claimed()
        assert claim.run_id == runs[-1].run_id
        await world.profiles.save_memory(claim, "MEMORY", 3, 1.0)
        await save_sections(world, claim)
        with pytest.raises(Superseded):
            await world.profiles.begin(await world.claimed())

    in_world(database_url, work)


@pytest.mark.guarantee("G7")
def test_a_superseded_run_ends_and_changes_nothing_in_the_profile(database_url: str) -> None:
    async def work(world: World) -> None:
        user = await world.user(full_pass_status="processing", profile_version=4)
        await world.accept(user, "newer", seconds=1)
        await world.sql("UPDATE full_pass_runs SET memory_saved_at = now(), status = 'completed'")
        before = await world.profile(user)
        await world.accept(user, "older")
        claim = await world.claimed()
        await world.profiles.end_failed(claim, ErrorCode.SUPERSEDED, "newer")
        assert await world.profile(user) == before
        [row] = await world.outbox.unpublished(10)
        event = V2Failed.model_validate_json(row.data)
        assert (event.error_code, event.memory_saved, event.profile_version, event.stage) == ("superseded", False, 4, "starting")
        assert (await world.run(claim.run_id))["status"] == "failed"

    in_world(database_url, work)


def test_a_run_starts_by_making_the_profile_processing(database_url: str) -> None:
    async def work(world: World) -> None:
        for status in ("pending", "failed", None):
            claim = await world.started(full_pass_status=status)
            row = await world.profile(claim.user_id)
            assert (row["full_pass_status"], row["full_pass_started_at"] is not None) == ("processing", True)

    in_world(database_url, work)


def test_a_re_run_leaves_a_healthy_users_status_alone_even_if_it_fails(database_url: str) -> None:
    async def work(world: World) -> None:
        claim = await world.started(full_pass_status="complete", memory_md="old", profile_version=2)
        before = await world.profile(claim.user_id)
        assert before["full_pass_status"] == "complete"
        assert before["full_pass_started_at"] is None
        await world.profiles.end_failed(claim, ErrorCode.EXPORT_EMPTY, "nothing in it")
        assert await world.profile(claim.user_id) == before

    in_world(database_url, work)


def test_without_a_profile_nothing_begins(database_url: str) -> None:
    async def work(world: World) -> None:
        await world.accept(uuid4())
        with pytest.raises(NotThereYet) as caught:
            await world.profiles.begin(await world.claimed())
        assert caught.value.code == "profile_not_found"

    in_world(database_url, work)


@pytest.mark.guarantee("G3")
def test_memory_is_committed_together_with_its_event(database_url: str) -> None:
    async def work(world: World) -> None:
        claim = await world.started(profile_version=5, soulprint_text="old soulprint")
        await world.profiles.save_memory(claim, "# Größe", 3, 0.95)
        row = await world.profile(claim.user_id)
        assert (row["memory_md"], row["profile_version"], row["soulprint_text"]) == ("# Größe", 6, "old soulprint")
        assert row["full_pass_status"] == "processing"
        [sent] = await world.outbox.unpublished(10)
        event = MemorySaved.model_validate_json(sent.data)
        run = await world.run(claim.run_id)
        assert event == MemorySaved(
            user_id=claim.user_id,
            idempotency_key=claim.idempotency_key,
            generation=0,
            run_id=claim.run_id,
            profile_version=6,
            memory_sha256=hashlib.sha256("# Größe".encode()).hexdigest(),
            memory_chars=7,
            fact_count=3,
            coverage=0.95,
            saved_at=run["memory_saved_at"],
        )
        assert (sent.event_id, sent.traceparent) == (event_id_of(claim.run_id, "memory-saved"), claim.traceparent)
        assert (run["profile_version"], run["status"]) == (6, "running")

    in_world(database_url, work)


@pytest.mark.guarantee("G3")
def test_a_memory_whose_event_cannot_be_written_is_not_saved(database_url: str) -> None:
    async def work(world: World) -> None:
        claim = await world.started()
        await world.sql("ALTER TABLE full_pass_outbox ADD CONSTRAINT nothing_more CHECK (event_type <> 'memory-saved')")
        with pytest.raises(DBAPIError):
            await world.profiles.save_memory(claim, "MEMORY", 3, 1.0)
        assert (await world.profile(claim.user_id))["memory_md"] is None
        assert (await world.run(claim.run_id))["memory_saved_at"] is None

    in_world(database_url, work)


@pytest.mark.guarantee("G4")
def test_a_reader_sees_all_five_sections_and_the_soulprint_of_one_run(database_url: str) -> None:
    async def work(world: World) -> None:
        claim = await world.started(soul_md="v1", soulprint_text="v1")
        await world.profiles.save_memory(claim, "MEMORY", 3, 1.0)
        seen: set[tuple[str, ...]] = set()
        stop = asyncio.Event()

        async def read() -> None:
            while not stop.is_set():
                row = await world.profile(claim.user_id)
                seen.add((row["soul_md"], row["tools_md"], row["soulprint_text"], row["full_pass_status"]))

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(read())
            await save_sections(world, claim)
            stop.set()
        soul, tools = (json.dumps(SECTIONS[name], ensure_ascii=False) for name in ("soul", "tools"))
        assert seen <= {("v1", None, "v1", "processing"), (soul, tools, "the soulprint", "complete")}

    in_world(database_url, work)


@pytest.mark.guarantee("G1")
def test_sections_end_the_run_with_v2_completed(database_url: str) -> None:
    async def work(world: World) -> None:
        claim = await world.started()
        await world.sql("UPDATE full_pass_runs SET model_calls = 9, input_tokens = 100, output_tokens = 20, cost_usd = 0.125")
        await world.profiles.save_memory(claim, "MEMORY", 3, 1.0)
        await save_sections(world, claim)
        row, run = await world.profile(claim.user_id), await world.run(claim.run_id)
        assert [row[f"{name}_md"] for name in SECTION_NAMES] == [
            json.dumps(SECTIONS[n], ensure_ascii=False) for n in SECTION_NAMES
        ]
        assert (row["full_pass_status"], row["full_pass_error"], row["profile_version"]) == ("complete", None, 2)
        assert row["full_pass_completed_at"] is not None
        assert (run["status"], run["lease_until"], run["profile_version"], run["error_code"]) == ("completed", None, 2, None)
        _, sent = await world.outbox.unpublished(10)
        event = V2Completed.model_validate_json(sent.data)
        assert event.soulprint_sha256 == hashlib.sha256(b"the soulprint").hexdigest()
        assert event.usage.model_dump() == {"model_calls": 9, "input_tokens": 100, "output_tokens": 20, "cost_usd": 0.125}
        assert (event.conversations_sampled, event.model, event.completed_at) == (7, "claude", run["finished_at"])

    in_world(database_url, work)


@pytest.mark.guarantee("G1")
def test_a_run_has_one_end(database_url: str) -> None:
    async def work(world: World) -> None:
        claim = await world.started()
        await world.profiles.end_failed(claim, ErrorCode.INTERNAL, DETAIL)
        with pytest.raises(LostLease):
            await world.profiles.end_failed(claim, ErrorCode.INTERNAL, DETAIL)
        with pytest.raises(IntegrityError, match="full_pass_outbox_one_end"):
            await world.sql(
                """INSERT INTO full_pass_outbox (event_id, event_type, run_id, user_id, data, traceparent, occurred_at)
                   SELECT gen_random_uuid(), 'v2-completed', run_id, user_id, data, traceparent, occurred_at
                   FROM full_pass_outbox"""
            )

    in_world(database_url, work)


def test_a_failure_before_memory_is_told_in_the_profile(database_url: str) -> None:
    async def work(world: World) -> None:
        claim = await world.started(memory_md=None, soul_md="v1")
        await world.profiles.end_failed(claim, ErrorCode.EXPORT_UNREADABLE, "x" * 600)
        row, run = await world.profile(claim.user_id), await world.run(claim.run_id)
        assert (row["full_pass_status"], row["soul_md"], row["profile_version"]) == ("failed", "v1", 0)
        assert row["full_pass_error"] == f"export_unreadable: {'x' * 600}"[:500]
        assert (run["status"], run["error_code"], run["error_detail"]) == ("failed", "export_unreadable", "x" * 500)

    in_world(database_url, work)


def test_a_failure_of_a_run_that_never_began_leaves_the_profile_pending(database_url: str) -> None:
    async def work(world: World) -> None:
        user = await world.user()
        await world.accept(user)
        await world.profiles.end_failed(await world.claimed(), ErrorCode.INTERNAL, DETAIL)
        assert (await world.profile(user))["full_pass_status"] == "pending"

    in_world(database_url, work)


@pytest.mark.guarantee("G3")
def test_a_failure_after_memory_keeps_it_and_makes_the_profile_complete(database_url: str) -> None:
    async def work(world: World) -> None:
        claim = await world.started(soul_md="v1")
        await world.profiles.save_memory(claim, "MEMORY", 3, 1.0)
        await world.profiles.end_failed(claim, ErrorCode.MODEL_OUTPUT_INVALID, DETAIL)
        row = await world.profile(claim.user_id)
        assert (row["full_pass_status"], row["full_pass_error"], row["memory_md"]) == ("complete", None, "MEMORY")
        assert (row["soul_md"], row["profile_version"]) == ("v1", 1)
        _, sent = await world.outbox.unpublished(10)
        event = V2Failed.model_validate_json(sent.data)
        assert (event.memory_saved, event.profile_version, event.attempts) == (True, 1, 1)
        assert (event.error_code, event.error_detail) == ("model_output_invalid", DETAIL)

    in_world(database_url, work)


def test_a_run_goes_on_with_the_memory_that_it_saved(database_url: str) -> None:
    async def work(world: World) -> None:
        claim = await world.started()
        await world.profiles.save_memory(claim, "MEMORY", 3, 1.0)
        await world.ledger.put_back(claim)
        assert await world.profiles.begin(await world.claimed()) == "MEMORY"

    in_world(database_url, work)


@pytest.mark.parametrize("loss", ["DELETE FROM user_profiles", "UPDATE user_profiles SET memory_md = NULL"])
def test_a_run_whose_saved_memory_is_gone_ends_and_changes_nothing(database_url: str, loss: str) -> None:
    async def work(world: World) -> None:
        claim = await world.started()
        await world.profiles.save_memory(claim, "MEMORY", 3, 1.0)
        await world.sql(loss)
        with pytest.raises(FinalError) as caught:
            await save_sections(world, claim)
        assert caught.value.code == "profile_not_found"
        claim = replace(claim, memory_saved_at=(await world.run(claim.run_id))["memory_saved_at"])
        with pytest.raises(FinalError):
            await world.profiles.begin(claim)
        before = await world.sql("SELECT * FROM user_profiles")
        await world.profiles.end_failed(claim, caught.value.code, caught.value.detail)
        assert await world.sql("SELECT * FROM user_profiles") == before

    in_world(database_url, work)


@pytest.mark.guarantee("G5")
def test_the_version_goes_on_above_what_the_ledger_knows_in_a_row_made_anew(database_url: str) -> None:
    async def work(world: World) -> None:
        claim = await world.started(profile_version=8)
        await world.profiles.save_memory(claim, "MEMORY", 3, 1.0)
        await save_sections(world, claim)
        await world.sql("DELETE FROM user_profiles")
        await world.sql("INSERT INTO user_profiles (user_id) VALUES (:id)", id=claim.user_id)
        await world.accept(claim.user_id, "next", seconds=1)
        again = await world.claimed()
        await world.profiles.begin(again)
        await world.profiles.save_memory(again, "MEMORY", 3, 1.0)
        assert (await world.profile(claim.user_id))["profile_version"] == 11

    in_world(database_url, work)


def test_a_frozen_save_gives_its_locks_back_within_the_lease(database_url: str) -> None:
    """A worker that is stopped inside a save must not hold the profile for longer than its lease."""

    async def work(world: World) -> None:
        claim = await world.started()
        world.database.lease_seconds = 1  # for sessions from here on
        await world.database.engine.dispose()
        with pytest.raises(Exception, match=r"."):  # noqa: PT012 - the session ends somewhere in the block
            async with saving(world.database, claim) as transaction:
                await transaction.execute(text("UPDATE user_profiles SET memory_md = 'never'"))
                await asyncio.sleep(1.5)
        assert (await world.profile(claim.user_id))["memory_md"] is None
        assert LEASE_SECONDS > 1

    in_world(database_url, work)
