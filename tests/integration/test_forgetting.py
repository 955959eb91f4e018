"""`users forget` on PostgreSQL: what goes, what stays as a fence, and what comes after it."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Iterable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from consumer.errors import LostLease
from consumer.postgres.criteria import Criteria, criteria_of
from consumer.postgres.forgetting import Erased, Forgetting
from consumer.postgres.replays import Replays
from consumer.postgres.runs import Claim
from schemas.events import ErrorCode
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


def test_a_replay_that_named_the_user_names_nobody_instead_and_no_more_users_than_before(database_url: str) -> None:
    async def work(world: World) -> None:
        user, other = await world.user(), await world.user()
        replays = Replays(world.database)
        for users in ({user}, {user, other}, {other}, set()):
            await replays.begin("ledger", Criteria(user_ids=frozenset(users)).document(), {}, None)
        await forget(world, user)
        named = [criteria_of(replay.selection["asked"]).user_ids for replay in reversed(await replays.newest(9))]
        assert named == [{UUID(int=0)}, {UUID(int=0), other}, {other}, set()]

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
            await world.accept(user, key, **more)
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
