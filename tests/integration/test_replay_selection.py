"""What a replay picks from the ledger, and how its rows and runs stand."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from consumer.errors import CommandError
from consumer.postgres.criteria import Criteria, criteria_of
from consumer.postgres.forgetting import Forgetting
from consumer.postgres.replays import Replays, fill
from consumer.postgres.selection import PAGE_ROWS, Picked, selecting
from tests.integration.postgres_world import FIRST, World, in_world, new_run

ADA, BOB, CARL = UUID(int=1), UUID(int=2), UUID(int=3)
HAIKU, SONNET = "claude-haiku-4-5-20251001", "claude-sonnet-5"
EVERYTHING: list[dict[str, Any]] = [
    {"since": datetime(2026, 11, 1, tzinfo=UTC), "until": datetime(2026, 12, 1, tzinfo=UTC), "per_minute": 2.5},
    {"from_offsets": {0: 1, 3: 2}, "to_offsets": {3: 9}, "source": "topic", "all_events": True},
    {"user_ids": frozenset({ADA, BOB}), "only_failed": True, "error_codes": ("internal",), "source": "ledger"},
    {"older_than_model": HAIKU, "older_than_prompt": 3},
]


async def ended(world: World, user: UUID, key: str = "key", *, seconds: float = 0, **columns: Any) -> None:
    """A run that has ended like this."""
    run = await world.accept(user, key, seconds=seconds, generation=columns.pop("generation", 0))
    values = {"status": "completed", "model": HAIKU, "prompt_version": 2} | columns
    changes = ", ".join(f"{name} = :{name}" for name in values)
    await world.sql(
        f"UPDATE full_pass_runs SET finished_at = clock_timestamp(), {changes} WHERE run_id = :id", id=run.run_id, **values
    )


async def picked(world: World, criteria: Criteria, generation: int | None = None) -> list[Picked]:
    async with selecting(world.database, criteria, generation=generation) as selection:
        await selection.take_from_ledger()
        await selection.narrow()
        return [each async for page in selection.pages(HAIKU, 30) for each in page]


async def keys(world: World, criteria: Criteria) -> list[tuple[UUID, str]]:
    async with selecting(world.database, criteria) as selection:
        await selection.take_from_ledger()
        await selection.narrow()
        return [key async for page in selection.key_pages() for key in page]


async def filled(world: World, criteria: Criteria, max_cost_usd: Decimal | None = None) -> int:
    """A replay that was begun and filled, or filled once more."""
    replays = Replays(world.database)
    known = await replays.unfilled(criteria.document())
    async with selecting(world.database, criteria, generation=known.generation if known else None) as selection:
        await selection.take_from_ledger()
        await selection.narrow()
        generation, _ = await replays.begin("ledger", criteria.document(), {}, max_cost_usd)
        await fill(selection, generation, criteria.per_minute, lambda _looked_at, _made: None)
    return generation


@pytest.mark.parametrize("asked", EVERYTHING)
def test_criteria_come_back_from_json_as_they_were(asked: dict[str, Any]) -> None:
    criteria = Criteria(**asked)
    assert criteria_of(criteria.document()) == criteria


def test_the_latest_event_of_a_user_is_picked_and_every_key_once_where_all_are_wanted(database_url: str) -> None:
    async def work(world: World) -> None:
        await ended(world, ADA, "first")
        await ended(world, ADA, "second", seconds=60)
        await ended(world, ADA, "second", seconds=60, generation=7)
        await ended(world, BOB, "only", seconds=30)
        await ended(world, CARL, "z", seconds=30)
        await ended(world, CARL, "a", seconds=30)
        assert await keys(world, Criteria()) == [(ADA, "second"), (BOB, "only"), (CARL, "z")]
        every = [(ADA, "first"), (ADA, "second"), (BOB, "only"), (CARL, "a"), (CARL, "z")]
        assert await keys(world, Criteria(all_events=True)) == every
        until = FIRST + timedelta(seconds=60)
        assert await keys(world, Criteria(until=until)) == [(ADA, "first"), (BOB, "only"), (CARL, "z")]
        assert await keys(world, Criteria(since=until)) == [(ADA, "second")]
        assert await keys(world, Criteria(user_ids=frozenset({BOB}))) == [(BOB, "only")]

    in_world(database_url, work)


def test_filters_look_at_the_latest_run_of_the_key_that_has_ended(database_url: str) -> None:
    async def work(world: World) -> None:
        await ended(world, ADA, status="failed", error_code="internal")
        await ended(world, ADA, generation=1, model=SONNET)  # it was mended
        await ended(world, BOB, status="failed", error_code="coverage_too_low", prompt_version=None)
        await world.accept(BOB, generation=2)  # tried again at the moment: that says nothing yet
        await ended(world, CARL, prompt_version=1, model=None)
        await ended(world, CARL, generation=3, status="failed", error_code="cancelled")  # nor does what an operator did
        await world.accept(UUID(int=4))

        async def users(**asked: Any) -> list[UUID]:
            return [each.user_id for each in await picked(world, Criteria(**asked))]

        assert await users(only_failed=True) == [BOB]
        assert await users(error_codes=("internal", "superseded")) == []
        assert await users(error_codes=("cancelled",)) == [CARL]
        assert await users(error_codes=("internal", "coverage_too_low")) == [BOB]
        assert await users(older_than_model=HAIKU) == [ADA, CARL]
        assert await users(older_than_prompt=2) == [BOB, CARL]
        assert await users(older_than_prompt=2, only_failed=True) == [BOB]

    in_world(database_url, work)


def test_each_key_stands_as_it_is(database_url: str) -> None:
    """Forgotten, open, overtaken, or new: the first two get no run, the third one that costs nothing."""

    async def work(world: World) -> None:
        await ended(world, ADA, "old", seconds=0)
        await ended(world, ADA, "new", seconds=9, memory_saved_at=FIRST)
        await ended(world, BOB)
        await world.accept(BOB, generation=5)
        await world.claimed()
        await ended(world, CARL)
        async with selecting(world.database, Criteria(all_events=True)) as selection:
            await selection.take_from_ledger()
            await Forgetting(world.database).forget(CARL, profile=False)
            found = [(each.user_id, each.standing) async for page in selection.pages(HAIKU, 30) for each in page]
            assert sorted(found) == [(ADA, "new"), (ADA, "superseded"), (BOB, "passed_over"), (CARL, "forgotten")]
            generation, new = await Replays(world.database).begin("ledger", {}, {}, None)
            assert new
            await fill(selection, generation, None, lambda _looked_at, _made: None)
        replay = await Replays(world.database).show(generation)
        assert (replay.runs, replay.passed_over, replay.standing) == (2, 1, "running")

    in_world(database_url, work)


def test_of_events_that_come_in_any_order_the_latest_is_kept(database_url: str) -> None:
    async def work(world: World) -> None:
        async with selecting(world.database, Criteria()) as selection:
            for seconds in (5, 9, 7):
                assert await selection.take([new_run(ADA, f"key-{seconds}", seconds=seconds), new_run(BOB)]) == 0
            found = [key async for page in selection.key_pages() for key in page]
        assert found == [(ADA, "key-9"), (BOB, "key")]

    in_world(database_url, work)


def test_a_key_that_gets_a_run_in_the_very_moment_is_passed_over(database_url: str) -> None:
    async def work(world: World) -> None:
        await ended(world, ADA)
        await ended(world, BOB)
        async with world.database.transaction() as retrying:
            await retrying.execute(text(RETRY), {"user_id": BOB})
            filling = asyncio.ensure_future(filled(world, Criteria()))
            waits = "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%full_pass_runs%'"
            async with asyncio.timeout(20):
                while not await world.value(waits):
                    await asyncio.sleep(0.02)
        replay = await Replays(world.database).show(await filling)
        assert (replay.runs, replay.passed_over) == (1, 1)

    in_world(database_url, work)


RETRY = """
    INSERT INTO full_pass_runs (run_id, user_id, idempotency_key, generation, completed_at, event, traceparent)
    SELECT gen_random_uuid(), user_id, idempotency_key, 99, completed_at, event, traceparent
    FROM full_pass_runs WHERE user_id = :user_id
"""


def test_a_fill_that_is_repeated_makes_no_run_twice_and_counts_what_is_passed_over_once(database_url: str) -> None:
    """Over more than a page of keys, some of whose runs have ended in the meantime."""

    async def work(world: World) -> None:
        await world.sql(
            "INSERT INTO full_pass_runs (run_id, user_id, idempotency_key, completed_at, event, traceparent, status, finished_at)"
            " SELECT gen_random_uuid(), lpad(to_hex(n / 3), 32, '0')::uuid, n::text, now(), '{}', '', 'completed', now()"
            " FROM generate_series(1, :rows) AS n", rows=PAGE_ROWS + 500,
        )  # fmt: skip
        await world.accept(ADA, "4", generation=9)
        criteria = Criteria(all_events=True)
        generation = await filled(world, criteria)
        await world.sql("UPDATE full_pass_replays SET filled_at = NULL")
        await world.sql(
            "UPDATE full_pass_runs SET status = 'completed', finished_at = now() WHERE generation = :g AND user_id > :ada",
            g=generation, ada=ADA,
        )  # fmt: skip
        assert await filled(world, criteria) == generation
        replay = await Replays(world.database).show(generation)
        assert (replay.runs, replay.passed_over, replay.open) == (PAGE_ROWS + 499, 1, 4)

    in_world(database_url, work)


def test_what_the_ledger_learns_after_a_replay_began_does_not_change_what_it_selects(database_url: str) -> None:
    """Neither a later event, nor how a later run or one of its own ended: a continued fill makes what the first would have."""

    async def work(world: World) -> None:
        await ended(world, ADA, status="failed", error_code="internal")
        await ended(world, BOB, status="failed", error_code="internal")
        criteria = Criteria(only_failed=True)
        generation = await filled(world, criteria)
        as_of = await world.value("SELECT clock_timestamp()")
        await world.sql("UPDATE full_pass_runs SET status = 'completed', finished_at = now() WHERE generation = :g", g=generation)
        await ended(world, BOB, generation=77)
        await ended(world, CARL, status="failed", error_code="internal")
        for moment, own, users in ((as_of, generation, [ADA, BOB]), (None, generation, [ADA, CARL]), (None, None, [CARL])):
            async with selecting(world.database, criteria, as_of=moment, generation=own) as selection:
                await selection.take_from_ledger()
                await selection.narrow()
                found = [user for page in [page async for page in selection.key_pages()] for user, _ in page]
            assert found == users

    in_world(database_url, work)


def test_a_rate_spreads_the_runs_over_time_also_behind_those_of_an_interrupted_fill(database_url: str) -> None:
    async def work(world: World) -> None:
        await ended(world, ADA)
        await ended(world, CARL)
        criteria = Criteria(per_minute=2)
        generation = await filled(world, criteria)
        await world.sql("UPDATE full_pass_replays SET filled_at = NULL")
        await ended(world, BOB)
        await filled(world, criteria)
        due = await world.sql(
            "SELECT user_id, due_at - min(due_at) OVER () AS after FROM full_pass_runs WHERE generation = :g", g=generation
        )
        assert {row["user_id"]: row["after"].total_seconds() for row in due} == {ADA: 0, CARL: 30, BOB: 60}

    in_world(database_url, work)


def test_a_higher_limit_wakes_what_the_budget_held_at_the_replays_rate(database_url: str) -> None:
    async def work(world: World) -> None:
        await ended(world, ADA)
        await ended(world, BOB)
        replays, generation = Replays(world.database), await filled(world, Criteria(per_minute=60), Decimal(2))
        await world.sql("UPDATE full_pass_replays SET state = 'budget_spent', cost_usd = 2.5")
        await world.sql("UPDATE full_pass_runs SET due_at = 'infinity' WHERE generation = :g", g=generation)
        assert (await replays.show(generation)).standing == "budget_spent"
        for limit in (None, Decimal("2.5")):
            with pytest.raises(CommandError, match=r"has spent \$2\.5000 of"):
                await replays.resume(generation, limit)
        replay = await replays.resume(generation, Decimal(3))
        assert (replay.standing, replay.max_cost_usd, replay.held, replay.pending) == ("running", Decimal(3), 0, 2)
        due = await world.sql(
            "SELECT due_at, clock_timestamp() AS now FROM full_pass_runs WHERE generation = :g ORDER BY 1", g=generation
        )
        assert due[0]["due_at"] <= due[0]["now"]
        assert (due[1]["due_at"] - due[0]["due_at"]).total_seconds() == pytest.approx(1, abs=0.1)

    in_world(database_url, work)


def test_a_cancelled_replay_gets_no_more_runs_and_is_not_continued(database_url: str) -> None:
    async def work(world: World) -> None:
        await ended(world, ADA)
        replays, criteria = Replays(world.database), Criteria()
        generation, _ = await replays.begin("ledger", criteria.document(), {}, None)
        await replays.cancel(generation)
        async with selecting(world.database, criteria, generation=generation) as selection:
            await selection.take_from_ledger()
            with pytest.raises(CommandError, match="was cancelled while its runs were made"):
                await fill(selection, generation, None, lambda _looked_at, _made: None)
        assert (await replays.show(generation)).runs == 0
        assert await replays.unfilled(criteria.document()) is None
        with pytest.raises(CommandError, match="was cancelled"):
            await replays.resume(generation, None)

    in_world(database_url, work)


def test_the_same_command_twice_at_once_begins_one_replay(database_url: str) -> None:
    async def work(world: World) -> None:
        await asyncio.gather(*(world.sql("SELECT pg_sleep(0.1)") for _ in range(4)))  # a connection for each
        replays, asked = Replays(world.database), Criteria(only_failed=True).document()
        begun = await asyncio.gather(*(replays.begin("ledger", asked, {}, None) for _ in range(4)))
        assert sorted(new for _, new in begun) == [False, False, False, True]
        assert len({generation for generation, _ in begun}) == 1
        other = await replays.begin("ledger", Criteria(only_failed=False).document(), {}, None)
        assert other[1]

    in_world(database_url, work)
