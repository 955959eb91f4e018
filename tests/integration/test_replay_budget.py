"""A replay's budget and state, as executors hold them: it is overspent by what was in flight at most, and its runs wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from consumer.claude.requests import Request
from consumer.errors import FullPassError
from consumer.postgres.answers import BilledAnswer
from consumer.postgres.claiming import REPLAY_PRIORITY
from consumer.postgres.replays import Replays
from consumer.postgres.runs import Claim
from consumer.postgres.saving import saving
from consumer.postgres.spend import Spend
from sandbox.anthropic import StandIn
from schemas.events import ErrorCode
from tests.integration.executor_work import Work, at_work, pass_well, until
from tests.integration.postgres_world import World, a_world, in_world

GENERATION = 5
CALLS_OF_A_RUN = 6


def question(number: int, claim: Claim) -> Request:
    """One of the calls of a run; a replay asks other things than the run before it."""
    return Request("memory", "Write it down.", f"fact {number} of generation {claim.generation}", 200)


async def pass_with_calls(work: Work, claim: Claim) -> None:
    replay = claim.generation if claim.is_replay else None
    claude = work.claude.for_run(claim.run_id, claim.user_id, claim.bought, replay=replay)
    for number in range(CALLS_OF_A_RUN):
        await claude.ask(question(number, claim))
    await pass_well(work, claim)


async def a_replay(world: World, users: int, max_usd: Decimal | None, generation: int = GENERATION) -> list[UUID]:
    """A filled replay; the ids of its runs."""
    await world.sql(
        """INSERT INTO full_pass_replays (generation, source, selection, max_cost_usd, filled_at)
           VALUES (:generation, 'ledger', '{"asked": {}}', :most, now())""",
        generation=generation,
        most=max_usd,
    )
    replayed: dict[str, Any] = {"generation": generation, "priority": REPLAY_PRIORITY}
    return [(await world.accept(await world.user(), f"replayed {number}", **replayed)).run_id for number in range(users)]


async def replay(world: World, generation: int = GENERATION) -> dict[str, Any]:
    [row] = await world.sql("SELECT * FROM full_pass_replays WHERE generation = :generation", generation=generation)
    return row


async def standing(world: World) -> dict[str, int]:
    """How many runs of the replay are in which state; `held` are those that wait for the budget alone."""
    rows = await world.sql(
        """SELECT CASE WHEN due_at = 'infinity' AND status = 'pending' THEN 'held' ELSE status END AS state, count(*) AS runs
           FROM full_pass_runs WHERE generation > 0 GROUP BY 1"""
    )
    return {row["state"]: row["runs"] for row in rows}


def billed(cost: str = "1", number: int = 1) -> BilledAnswer:
    return BilledAnswer(f"{number:064x}", "facts", "a-model", "[]", "end_turn", 100, 20, Decimal(cost), Decimal(cost))


@asynccontextmanager
async def two_at_work(world: World, stand_in: StandIn, **changes: Any) -> AsyncIterator[Sequence[Work]]:
    named = {"ANTHROPIC_BASE_URL": stand_in.url, "run_concurrency": 2, "model_concurrency": 2, "max_failures": 1}
    both = [at_work(world, pass_with_calls, **named, **changes) for _ in range(2)]
    async with both[0] as one, both[1] as two:
        yield one, two


@pytest.mark.guarantee("G10")
def test_a_budget_that_ends_in_the_middle_holds_the_runs_of_all_workers_and_a_higher_one_buys_nothing_twice(
    database_url: str,
) -> None:
    """Two executors, one limit: overspent by the calls in flight at most, no failure, and every run completes in the end."""

    async def main() -> None:
        async with (
            a_world(database_url) as world,
            StandIn(latency_seconds=0.02) as stand_in,
            two_at_work(world, stand_in) as (one, two),
        ):
            live = (await world.accept(await world.user(), "live")).run_id
            await until(lambda: _ended(world, live))
            call_usd = (await world.run(live))["cost_usd"] / CALLS_OF_A_RUN
            runs = await a_replay(world, 5, call_usd * 10)
            await until(lambda: _all_held_or_ended(world))
            spent = await replay(world)
            assert spent["state"] == "budget_spent"
            in_flight = 4  # two workers, two calls each
            assert call_usd * 10 <= spent["cost_usd"] <= call_usd * (10 + in_flight - 1)
            assert (await standing(world))["held"] >= 5 - (10 + in_flight) // CALLS_OF_A_RUN
            bought = len(stand_in.requests())
            assert spent["cost_usd"] == call_usd * (bought - CALLS_OF_A_RUN)
            claims = len(one.claims) + len(two.claims)
            other = (await world.accept(await world.user(), "live too")).run_id
            await until(lambda: _ended(world, other))  # a held run holds up nobody, and is not claimed meanwhile
            assert len(one.claims) + len(two.claims) == claims + 1

            await Replays(world.database).resume(GENERATION, call_usd * 1000)
            await until(lambda: _completed(world, len(runs)))
            assert len(stand_in.requests()) == CALLS_OF_A_RUN * (2 + len(runs))
            assert (await replay(world))["cost_usd"] == call_usd * CALLS_OF_A_RUN * len(runs)
            assert (await replay(world))["state"] == "running"
            assert await world.value("SELECT max(failures) FROM full_pass_runs") == 0
            assert await world.value("SELECT count(*) FROM full_pass_runs WHERE held_up_since IS NOT NULL") == 0

    asyncio.run(main())


async def _ended(world: World, run_id: UUID) -> bool:
    return bool((await world.run(run_id))["status"] == "completed")


async def _completed(world: World, number: int) -> bool:
    return await standing(world) == {"completed": number}


async def _all_held_or_ended(world: World) -> bool:
    found = await standing(world)
    return bool(found.get("held")) and not found.keys() - {"held", "completed"}


def test_a_replay_that_is_cancelled_in_the_middle_makes_no_further_call_and_no_further_claim(database_url: str) -> None:
    async def main() -> None:
        async with (
            a_world(database_url) as world,
            StandIn(latency_seconds=0.05) as stand_in,
            two_at_work(world, stand_in) as (one, two),
        ):
            await a_replay(world, 6, None)
            await until(lambda: len(stand_in.requests()) >= 2)
            await Replays(world.database).cancel(GENERATION)
            asked = len(stand_in.requests())
            await until(lambda: _all_held(world))
            assert len(stand_in.requests()) <= asked + 4
            assert len(one.claims) + len(two.claims) == len({claim.run_id for claim in (*one.claims, *two.claims)})
            assert await world.value("SELECT max(attempt) FROM full_pass_runs") == 1  # what was handed back is held, not due
            story = await world.value(
                "SELECT story FROM full_pass_runs WHERE run_id = :id", id=(one.claims + two.claims)[0].run_id
            )
            assert {name: story[-1][name] for name in ("what", "reason", "code")} == {
                "what": "handed_back",
                "reason": "outage",
                "code": "cancelled",
            }

    asyncio.run(main())


async def _all_held(world: World) -> bool:
    return (await standing(world)).keys() == {"held"}


def test_a_claim_that_meets_a_stopped_replay_holds_all_its_runs_and_takes_another(database_url: str) -> None:
    """One claim is enough, whatever the number of runs; a retry that is newer than the replay has no budget and goes."""

    async def work(world: World) -> None:
        held = await a_replay(world, 4, Decimal(1))
        await world.sql("UPDATE full_pass_replays SET state = 'budget_spent'")
        retried = await world.accept(await world.user(), "retried", generation=GENERATION + 1, priority=REPLAY_PRIORITY)
        claim = await world.claimed()
        assert (claim.run_id, claim.is_replay) == (retried.run_id, False)
        assert await standing(world) == {"held": 4, "running": 1}
        assert await world.claim() is None
        assert await world.value("SELECT sum(attempt) FROM full_pass_runs WHERE run_id = ANY(:ids)", ids=held) == 1
        assert await world.value("SELECT max(failures) FROM full_pass_runs") == 0

    in_world(database_url, work)


def test_held_runs_are_never_due_and_no_others_wait_for_them(database_url: str) -> None:
    """Not for the executor's sleep, not for a day's limit that has room again, and not for the user's other events."""

    async def work(world: World) -> None:
        user = await world.user()
        await a_replay(world, 1, Decimal(1))
        await world.accept(user, "held", seconds=9, generation=GENERATION, priority=REPLAY_PRIORITY)
        await world.sql("UPDATE full_pass_runs SET due_at = 'infinity', attempt = 1")
        assert await world.ledger.seconds_until_next() is None
        await Spend(world.database).release()
        assert await standing(world) == {"held": 2}
        assert await world.claim() is None
        older = await world.accept(user, "older", generation=GENERATION + 1, priority=REPLAY_PRIORITY)
        assert (await world.claimed()).run_id == older.run_id

    in_world(database_url, work)


def test_an_answer_adds_to_its_replays_spend_and_the_one_that_reaches_the_limit_stops_it(database_url: str) -> None:
    async def work(world: World) -> None:
        await a_replay(world, 1, Decimal("2.5"))
        await a_replay(world, 0, Decimal("0.1"), GENERATION + 1)
        claim = await world.claimed()
        assert claim.is_replay
        seen = []
        for number in range(1, 4):
            await world.answers.record(claim.run_id, claim.user_id, billed(number=number))
            row = await replay(world)
            seen.append((row["cost_usd"], row["state"]))
        assert seen == [(1, "running"), (2, "running"), (3, "budget_spent")]
        await Replays(world.database).cancel(GENERATION)
        await world.answers.record(claim.run_id, claim.user_id, billed(number=4))
        assert ((await replay(world))["cost_usd"], (await replay(world))["state"]) == (4, "cancelled")
        assert (await replay(world, GENERATION + 1))["cost_usd"] == 0
        live = await world.accept(await world.user(), "live")
        await world.answers.record(live.run_id, live.user_id, billed(number=5))
        assert await world.value("SELECT sum(cost_usd) FROM full_pass_replays") == 4

    in_world(database_url, work)


def test_an_answer_that_waits_for_its_runs_save_holds_up_no_other_answer_of_its_replay(database_url: str) -> None:
    """The replay is one row for all its runs: who waits for a save, which may take long, must not have locked it already."""

    async def work(world: World) -> None:
        await a_replay(world, 2, None)
        saved, other = await world.claimed(), await world.claimed()
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        async with asyncio.TaskGroup() as tasks, saving(world.database, saved):
            recording = tasks.create_task(world.answers.record(saved.run_id, saved.user_id, billed()))
            async with asyncio.timeout(10):
                while not await world.value(waiting):
                    await asyncio.sleep(0.01)
                await world.answers.record(other.run_id, other.user_id, billed())
            assert not recording.done()
        assert (await replay(world))["cost_usd"] == 2

    in_world(database_url, work)


@pytest.mark.parametrize("how", ["a claim", "a hand-back"])
def test_a_run_is_not_held_of_a_replay_whose_budget_is_raised_in_this_very_moment(database_url: str, how: str) -> None:
    """It saw the spent budget and waits for the replay's row; held now, nobody would wake it."""

    async def work(world: World) -> None:
        [run_id] = await a_replay(world, 1, Decimal(1))
        claim = await world.claimed() if how == "a hand-back" else None
        await world.sql("UPDATE full_pass_replays SET state = 'budget_spent'")
        raising = asyncio.Event()

        async def raise_it() -> None:
            async with world.database.transaction() as transaction:
                await transaction.exec_driver_sql("UPDATE full_pass_replays SET state = 'running', max_cost_usd = 9")
                raising.set()
                async with asyncio.timeout(10):
                    while not await world.value("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"):
                        await asyncio.sleep(0.01)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(raise_it())
            await raising.wait()
            if claim is None:
                assert (await world.claimed()).run_id == run_id
            else:
                assert await world.ledger.put_back_for_replay(claim, ErrorCode.BUDGET_EXCEEDED, 0)
                assert (await world.claimed()).run_id == run_id

    in_world(database_url, work)


def test_a_room_that_is_asked_for_names_the_command_that_makes_more(database_url: str) -> None:
    async def main() -> None:
        async with a_world(database_url) as world, StandIn() as stand_in:
            await a_replay(world, 0, Decimal("1.5"))
            async with at_work(world, pass_well, ANTHROPIC_BASE_URL=stand_in.url) as work:
                budgets = work.claude.replays
                await budgets.require_room(GENERATION)
                await budgets.require_room(GENERATION + 1)  # no replay has it
                budgets.spent(GENERATION, Decimal(2))  # billed, not recorded yet
                with pytest.raises(FullPassError, match=f"'full-pass replay resume {GENERATION} --max-cost-usd"):
                    await budgets.require_room(GENERATION)
                budgets.recorded(GENERATION, Decimal(2))
                await budgets.require_room(GENERATION)

    asyncio.run(main())
