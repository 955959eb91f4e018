"""Runs that an operator ends, wherever they are."""

from __future__ import annotations

from uuid import uuid4

import pytest

from consumer.errors import LostLease
from consumer.postgres.cancelling import cancel_run, cancel_runs
from schemas.events import ErrorCode
from tests.integration.executor_work import Work, accepted, never_end, until, wait_for_status, with_executor
from tests.integration.postgres_world import World, in_world

WHY = "cancelled by an operator"


async def cancelled(world: World, run_id) -> ErrorCode | None:  # type: ignore[no-untyped-def]
    return await cancel_run(world.database, run_id, WHY)


def test_a_waiting_run_that_is_cancelled_ends_and_leaves_the_profile_as_it_was(database_url: str) -> None:
    """It never began: `processing` would be somebody else's, and `pending` is the application's."""

    async def work(world: World) -> None:
        user_id = await world.user(full_pass_status="processing")
        run = await world.accept(user_id)
        before = await world.profile(user_id)
        assert await cancelled(world, run.run_id) is ErrorCode.CANCELLED
        row = await world.run(run.run_id)
        assert (row["status"], row["error_code"], row["error_detail"], row["attempt"]) == ("failed", "cancelled", WHY, 0)
        assert await world.profile(user_id) == before
        assert await world.events() == ["v2-failed"]

    in_world(database_url, work)


@pytest.mark.guarantee("G6")
def test_a_run_under_way_that_is_cancelled_can_save_nothing_more(database_url: str) -> None:
    async def work(world: World) -> None:
        claim = await world.started()
        assert await cancelled(world, claim.run_id) is ErrorCode.CANCELLED
        with pytest.raises(LostLease):
            await world.profiles.save_memory(claim, "MEMORY", 3, 1.0)
        profile = await world.profile(claim.user_id)
        assert (profile["full_pass_status"], profile["full_pass_error"]) == ("failed", f"cancelled: {WHY}")
        assert profile["memory_md"] is None

    in_world(database_url, work)


@pytest.mark.guarantee("G3")
def test_a_run_cancelled_after_its_memory_keeps_it_and_the_profile_is_complete(database_url: str) -> None:
    async def work(world: World) -> None:
        claim = await world.started()
        await world.profiles.save_memory(claim, "MEMORY", 3, 1.0)
        assert await cancelled(world, claim.run_id) is ErrorCode.CANCELLED
        profile = await world.profile(claim.user_id)
        assert (profile["full_pass_status"], profile["memory_md"]) == ("complete", "MEMORY")
        assert await world.events() == ["memory-saved", "v2-failed"]

    in_world(database_url, work)


@pytest.mark.guarantee("G7")
def test_a_run_that_a_newer_one_has_overtaken_ends_as_superseded_and_touches_nothing(database_url: str) -> None:
    async def work(world: World) -> None:
        user_id = await world.user()
        older = await world.accept(user_id, "older")
        newer = await world.accept(user_id, "newer", seconds=5)
        claim = await world.claimed()
        assert claim.run_id == newer.run_id
        await world.profiles.begin(claim)
        await world.profiles.save_memory(claim, "MEMORY", 3, 1.0)
        before = await world.profile(user_id)
        assert await cancelled(world, older.run_id) is ErrorCode.SUPERSEDED
        assert await world.profile(user_id) == before

    in_world(database_url, work)


def test_a_run_cancelled_beside_another_of_its_user_leaves_the_status_to_that_one(database_url: str) -> None:
    async def work(world: World) -> None:
        first = await world.started()
        await world.ledger.put_back(first)
        await world.accept(first.user_id, "newer", seconds=5)
        other = await world.claimed()
        await world.profiles.begin(other)
        assert await cancelled(world, first.run_id) is ErrorCode.CANCELLED
        assert (await world.profile(first.user_id))["full_pass_status"] == "processing"

    in_world(database_url, work)


def test_what_has_ended_or_is_not_there_is_not_cancelled(database_url: str) -> None:
    async def work(world: World) -> None:
        claim = await world.started()
        await world.profiles.end_failed(claim, ErrorCode.INTERNAL, "surprised")
        assert await cancelled(world, claim.run_id) is None
        assert await cancelled(world, uuid4()) is None
        assert (await world.run(claim.run_id))["error_code"] == "internal"
        assert await world.events() == ["v2-failed"]

    in_world(database_url, work)


def test_of_many_runs_the_open_ones_are_ended_and_counted(database_url: str) -> None:
    async def work(world: World) -> None:
        ids = [(await world.accept(await world.user())).run_id for _ in range(12)]
        await cancelled(world, ids[3])
        assert await cancel_runs(world.database, [*ids, uuid4()], WHY) == 11
        assert await cancel_runs(world.database, ids, WHY) == 0
        assert await world.events() == ["v2-failed"] * 12
        assert await cancel_runs(world.database, [], WHY) == 0

    in_world(database_url, work)


def test_the_holder_of_a_cancelled_run_lets_go_of_it(database_url: str) -> None:
    async def test(work: Work) -> None:
        run_id = await accepted(work)
        await until(lambda: work.claims)
        assert await cancelled(work.world, run_id) is ErrorCode.CANCELLED
        await until(lambda: work.sample("leases_lost_total") == 1)
        await wait_for_status(work, run_id, "failed")

    with_executor(database_url, never_end, test)
