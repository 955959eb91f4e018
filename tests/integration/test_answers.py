"""Recorded answers where workers meet; what is recorded and found stands in test_records.py."""

from __future__ import annotations

import asyncio
from decimal import Decimal

from consumer.postgres.answers import BilledAnswer
from consumer.postgres.saving import saving
from tests.integration.postgres_world import World, in_world


def billed(number: int) -> BilledAnswer:
    """An answer that cost a dollar."""
    return BilledAnswer(f"{number:064x}", "facts", "a-model", "[]", "end_turn", 100, 20, Decimal(1), Decimal(1))


def test_an_answer_that_waits_for_its_runs_save_holds_up_no_other_runs_answer(database_url: str) -> None:
    """The hour's spend is one row for all workers: who waits for a save, which may take long, must not have locked it already."""

    async def work(world: World) -> None:
        saved, other = await world.started(), await world.started()
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        await world.answers.record(other.run_id, other.user_id, billed(0))
        async with asyncio.TaskGroup() as tasks, saving(world.database, saved):
            recording = tasks.create_task(world.answers.record(saved.run_id, saved.user_id, billed(1)))
            async with asyncio.timeout(10):
                while not await world.value(waiting):
                    await asyncio.sleep(0.01)
                await world.answers.record(other.run_id, other.user_id, billed(2))
            assert not recording.done()
        assert await world.value("SELECT sum(cost_usd) FROM full_pass_spend") == 3

    in_world(database_url, work)
