"""An executor that may not call the model, or not pay for it."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from decimal import Decimal
from uuid import uuid4

from consumer.claude.trouble import Trouble
from consumer.postgres.runs import Claim
from tests.integration.executor_work import (
    Work,
    accepted,
    all_completed,
    at_work,
    handed_back,
    pass_well,
    until,
    wait_for_status,
)
from tests.integration.postgres_world import a_world


def test_while_pace_is_shut_nothing_is_claimed_and_then_one_run_as_the_probe(database_url: str) -> None:
    decided = asyncio.Event()

    async def carry(work: Work, claim: Claim) -> None:
        async with work.claude.pace.slot(claim.run_id) as call:
            await decided.wait()
            work.claude.pace.succeeded(call)
        await pass_well(work, claim)

    async def main() -> None:
        async with a_world(database_url) as world, at_work(world, carry, retry_backoff_seconds=0.4) as work:
            pace = work.claude.pace
            async with pace.slot(uuid4()) as call:
                pace.troubled(call, Trouble("the key was refused", "status_401", operator=True))
            shut_at = asyncio.get_running_loop().time()
            assert not pace.is_open
            for _ in range(3):
                await accepted(work)
            await until(lambda: bool(work.claims))
            assert asyncio.get_running_loop().time() - shut_at >= 0.4
            await until(lambda: work.world.value("SELECT count(*) = 3 FROM full_pass_runs WHERE due_at <= clock_timestamp()"))
            await asyncio.sleep(0.3)  # several looks at the ledger: none of them may claim
            assert len(work.claims) == 1
            decided.set()
            await until(lambda: all_completed(work, 3))

    asyncio.run(main())


def test_while_the_day_is_spent_nothing_is_claimed_and_the_worker_says_why(database_url: str) -> None:
    async def main() -> None:
        async with a_world(database_url) as world:
            await world.sql("INSERT INTO full_pass_spend VALUES (date_trunc('hour', now(), 'UTC'), 3)")
            async with at_work(world, pass_well, max_cost_usd_per_day=Decimal(2)) as work:
                run_id = await accepted(work)
                await until(lambda: "FULL_PASS_MAX_COST_USD_PER_DAY" in work.worker.health.reasons().get("budget", ""))
                assert (await work.world.run(run_id))["attempt"] == 0
                await world.sql("UPDATE full_pass_spend SET cost_usd = 1")
                await wait_for_status(work, run_id, "completed")
                assert work.worker.health.ready

    asyncio.run(main())


def test_a_run_that_meets_the_days_limit_is_due_when_there_is_room_and_goes_on_earlier_if_there_is_room_earlier(
    database_url: str,
) -> None:
    """It costs no failure and is never given up, and after a limit was raised nobody has to touch the runs."""

    async def carry(work: Work, claim: Claim) -> None:
        if claim.attempt == 1:  # another worker spends what was left
            await work.world.sql(
                """INSERT INTO full_pass_spend VALUES (date_trunc('hour', now(), 'UTC') - interval '20 hours', 3)
                   ON CONFLICT DO NOTHING"""
            )
        await work.claude.day.require_room()
        await pass_well(work, claim)

    async def main() -> None:
        impatient = {"give_up_after_seconds": 0.001, "max_failures": 1}
        async with a_world(database_url) as world, at_work(world, carry, max_cost_usd_per_day=Decimal(2), **impatient) as work:
            run = await handed_back(work, await accepted(work))
            room_at = await world.value("SELECT hour + interval '25 hours' FROM full_pass_spend")
            assert room_at <= run["due_at"] < room_at + timedelta(hours=2)
            assert (run["failures"], run["held_up_since"], run["error_code"]) == (0, None, None)
            await until(lambda: "FULL_PASS_MAX_COST_USD_PER_DAY" in work.worker.health.reasons().get("budget", ""))
            await world.sql("UPDATE full_pass_spend SET hour = hour - interval '5 hours'")
            await wait_for_status(work, run["run_id"], "completed")
            assert (await world.run(run["run_id"]))["failures"] == 0
            assert work.worker.health.ready

    asyncio.run(main())
