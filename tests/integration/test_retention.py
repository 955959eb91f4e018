"""What expires by itself, when, and in how many rows at once."""

from __future__ import annotations

import asyncio

import pytest

from consumer.postgres.retention import BATCH_ROWS, LONGEST_PERIOD_SECONDS, Retention
from schemas.events import ErrorCode
from tests.integration.postgres_world import World, count_deletes, in_world
from tests.integration.test_records import billed

pytestmark = [pytest.mark.guarantee("G10"), pytest.mark.guarantee("G11")]


async def with_many_answers(world: World, number: int, age: str) -> None:
    claim = await world.started()
    await world.sql(
        """INSERT INTO full_pass_model_calls
           SELECT user_id, n::text, run_id, '', '', '', '', 1, 1, 0, NULL, now() - CAST(CAST(:age AS text) AS interval)
           FROM full_pass_runs, generate_series(1, :number) AS n WHERE run_id = :run""",
        number=number,
        age=age,
        run=claim.run_id,
    )


def test_a_fraction_of_a_day_is_kept_as_such(database_url: str) -> None:
    async def work(world: World) -> None:
        await with_many_answers(world, 3, "13 minutes")
        await with_many_answers(world, 5, "16 minutes")
        assert await Retention(world.database, 0.0105).expire() == (5, 0)  # 15 minutes
        assert await Retention(world.database, 36_500).expire() == (0, 0)

    in_world(database_url, work)


@pytest.mark.parametrize(("days", "seconds"), [(30, LONGEST_PERIOD_SECONDS), (0.04, 864), (0.00001, 1)])
def test_what_is_kept_for_minutes_is_looked_at_every_few_of_them(days: float, seconds: float) -> None:
    assert Retention.period_of(days) == pytest.approx(seconds)


def test_two_workers_at_once_remove_all_that_is_old_in_short_statements(database_url: str) -> None:
    async def work(world: World) -> None:
        await with_many_answers(world, 2 * BATCH_ROWS + 5, "31 days")
        await count_deletes(world, "full_pass_model_calls")
        removed = await asyncio.gather(*(Retention(world.database, 30).expire() for _ in range(2)))
        assert sum(answers for answers, _ in removed) == 2 * BATCH_ROWS + 5
        assert await world.value("SELECT count(*) FROM full_pass_model_calls") == 0
        assert await world.value("SELECT max(rows) FROM deletes") == BATCH_ROWS

    in_world(database_url, work)


def test_an_event_that_waits_for_kafka_stays_however_old_and_so_does_the_ledger(database_url: str) -> None:
    async def work(world: World) -> None:
        claim = await world.started()
        await world.answers.record(claim.run_id, claim.user_id, billed())
        await world.profiles.end_failed(claim, ErrorCode.INTERNAL, "why")
        for table, column in (("outbox", "occurred_at"), ("model_calls", "created_at"), ("runs", "finished_at")):
            await world.sql(f"UPDATE full_pass_{table} SET {column} = now() - interval '400 days'")
        assert await Retention(world.database, 30).expire() == (1, 0)
        assert await world.events() == ["v2-failed"]
        assert await world.value("SELECT count(*) FROM full_pass_runs") == 1

    in_world(database_url, work)


def test_old_events_are_found_without_reading_the_whole_outbox(database_url: str) -> None:
    """It holds a month of everybody's events; each look for old ones would read them all."""

    async def work(world: World) -> None:
        await world.sql(
            """INSERT INTO full_pass_outbox
                   (event_id, event_type, run_id, user_id, data, traceparent, occurred_at, published_at)
               SELECT gen_random_uuid(), 'memory-saved', gen_random_uuid(), gen_random_uuid(), '{}', '', now(), now()
               FROM generate_series(1, 5000)"""
        )
        await world.sql("ANALYZE full_pass_outbox")
        plan = await world.sql(
            "EXPLAIN SELECT id FROM full_pass_outbox WHERE published_at < now() - interval '30 days' LIMIT 2000"
        )
        assert "full_pass_outbox_published" in str(plan)

    in_world(database_url, work)
