"""The gate with the record in PostgreSQL: what is bought, what is found again, what it is said to have cost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from consumer.claude.gate import Claude, RunClaude
from consumer.claude.requests import Request
from consumer.errors import FinalError, OperatorTrouble, Outage
from consumer.metrics import Metrics
from consumer.postgres.answers import Answers
from consumer.postgres.database import Database
from consumer.postgres.migrating import upgrade
from consumer.postgres.spend import Spend
from consumer.settings import Settings
from consumer.traces import Traces
from sandbox.anthropic import StandIn
from tests.integration.raw_server import raw_server

USER = UUID(int=7)
REQUEST = Request("memory", "Write it down.", "I like tea and I moved to Porto in May.", 200)


@dataclass(frozen=True)
class World:
    """One worker's gate between a stand-in and a database."""

    claude: Claude
    stand_in: StandIn
    database: Database

    async def run(self, user_id: UUID = USER) -> tuple[UUID, RunClaude]:
        """A run in the ledger, and the gate as it sees it."""
        run_id = uuid4()
        await self.sql(
            """INSERT INTO full_pass_runs (run_id, user_id, idempotency_key, completed_at, event, traceparent)
               VALUES (:run_id, :user_id, :key, now(), '{}', '')""",
            run_id=run_id,
            user_id=user_id,
            key=str(run_id),
        )
        return run_id, self.claude.for_run(run_id, user_id)

    async def sql(self, statement: str, **values: Any) -> Sequence[Any]:
        """The rows, if there are any."""
        async with self.database.transaction() as transaction:
            result = await transaction.execute(text(statement), values)
            return result.all() if result.returns_rows else []

    async def bought(self, run_id: UUID) -> tuple[Any, ...]:
        """What the ledger says that the run bought: calls, tokens in and out, dollars."""
        [row] = await self.sql(
            "SELECT model_calls, input_tokens, output_tokens, cost_usd FROM full_pass_runs WHERE run_id = :run_id",
            run_id=run_id,
        )
        return tuple(row)

    async def until_somebody_waits_for_a_lock(self) -> None:
        async with asyncio.timeout(10):
            while not await self.sql("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"):  # it is the server's event
                await asyncio.sleep(0.01)


@asynccontextmanager
async def a_world(database_url: str, **changes: Any) -> AsyncIterator[World]:
    database = Database(database_url)
    await upgrade(database)
    async with StandIn() as stand_in:
        named: dict[str, Any] = {"ANTHROPIC_API_KEY": "sk-ant-test", "ANTHROPIC_BASE_URL": stand_in.url}
        settings = Settings(**{**named, "retry_backoff_seconds": 0.01, **changes})
        claude = Claude(settings, Answers(database), Spend(database), Metrics(), Traces.off())
        try:
            yield World(claude, stand_in, database)
        finally:
            await claude.close()
            await database.close()


@asynccontextmanager
async def another_worker(world: World, **changes: Any) -> AsyncIterator[World]:
    """A second worker's gate to the same stand-in and database."""
    named: dict[str, Any] = {"ANTHROPIC_API_KEY": "sk-ant-test", "ANTHROPIC_BASE_URL": world.stand_in.url}
    claude = Claude(Settings(**{**named, **changes}), Answers(world.database), Spend(world.database), Metrics(), Traces.off())
    try:
        yield World(claude, world.stand_in, world.database)
    finally:
        await claude.close()


def question(number: int) -> Request:
    """One of many different requests."""
    return Request("memory", "Write it down.", f"I like tea number {number} and I moved to Porto in May.", 200)


def test_an_answer_is_bought_once_and_found_again_by_a_later_run_of_the_user(database_url: str) -> None:
    async def main() -> None:
        async with a_world(database_url) as world:
            first_run, first = await world.run()
            second_run, second = await world.run()
            bought, found = await first.ask(REQUEST), await second.ask(REQUEST)
            assert (bought.recorded, found.recorded) == (False, True)
            assert (found.text, found.stop_reason) == (bought.text, bought.stop_reason)
            assert len(world.stand_in.requests()) == 1
            cost = Decimal(bought.input_tokens + 5 * bought.output_tokens) / 1_000_000
            assert await world.bought(first_run) == (1, bought.input_tokens, bought.output_tokens, cost)
            assert await world.bought(second_run) == (0, 0, 0, 0)
            assert await world.sql("SELECT sum(cost_usd) FROM full_pass_spend") == [(cost,)]

    asyncio.run(main())


def test_another_user_never_gets_a_recorded_answer(database_url: str) -> None:
    async def main() -> None:
        async with a_world(database_url) as world:
            _, mine = await world.run()
            _, theirs = await world.run(UUID(int=8))
            await mine.ask(REQUEST)
            assert not (await theirs.ask(REQUEST)).recorded
            assert len(world.stand_in.requests()) == 2

    asyncio.run(main())


def test_an_answer_judged_unusable_serves_the_run_that_bought_it_and_no_other(database_url: str) -> None:
    """A crash must not buy it again, and a retry must not be stuck with it."""

    async def main() -> None:
        async with a_world(database_url) as world:
            run_id, first = await world.run()
            await first.judge(await first.ask(REQUEST), "no_json")
            assert (await world.claude.for_run(run_id, USER).ask(REQUEST)).recorded
            _, second = await world.run()
            assert not (await second.ask(REQUEST)).recorded
            _, third = await world.run()
            assert (await third.ask(REQUEST)).recorded
            assert len(world.stand_in.requests()) == 2

    asyncio.run(main())


def test_equal_requests_of_a_run_at_the_same_moment_are_bought_once(database_url: str) -> None:
    async def main() -> None:
        async with a_world(database_url) as world:
            _, run = await world.run()
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(run.ask(REQUEST)) for _ in range(5)]
            assert sorted(task.result().recorded for task in tasks) == [False, True, True, True, True]
            assert len(world.stand_in.requests()) == 1

    asyncio.run(main())


@pytest.mark.guarantee("G8")
def test_an_answer_that_has_arrived_is_recorded_although_its_run_is_told_to_stop(database_url: str) -> None:
    """It has been paid for. The record is held up by a lock here, so that the run is cancelled in the middle of it."""

    async def main() -> None:
        async with a_world(database_url) as world:
            run_id, run = await world.run()
            asking = asyncio.ensure_future(run.ask(REQUEST))
            async with world.database.transaction() as transaction:
                await transaction.execute(text("SELECT 1 FROM full_pass_runs FOR UPDATE"))
                await world.until_somebody_waits_for_a_lock()
                asking.cancel()
                await asyncio.wait({asking}, timeout=0.1)
                assert not asking.done()
            with pytest.raises(asyncio.CancelledError):
                await asking
            assert (await world.bought(run_id))[0] == 1
            assert (await world.claude.for_run(run_id, USER).ask(REQUEST)).recorded

    asyncio.run(main())


@pytest.mark.guarantee("G6")
def test_a_run_that_has_lost_its_lease_still_records_what_it_was_billed_for(database_url: str) -> None:
    async def main() -> None:
        async with a_world(database_url) as world:
            run_id, run = await world.run()
            await world.sql("UPDATE full_pass_runs SET status = 'failed', attempt = 9, finished_at = now()")
            await run.ask(REQUEST)
            assert (await world.bought(run_id))[0] == 1

    asyncio.run(main())


@pytest.mark.guarantee("G10")
def test_many_calls_at_once_never_cost_a_run_more_than_it_may(database_url: str) -> None:
    """Each reserves its estimate before it is made: without that all of them would find room in the same moment."""

    async def main() -> None:
        async with a_world(database_url, max_run_cost_usd=0.003) as world:
            await world.stand_in.script([{"times": None, "fault": {"kind": "latency", "seconds": 0.05}}])
            run_id, run = await world.run()
            results = await asyncio.gather(*(run.ask(question(number)) for number in range(40)), return_exceptions=True)
            refused = [result for result in results if isinstance(result, FinalError)]
            assert {error.code for error in refused} == {"budget_exceeded"}
            calls, _, _, cost = await world.bought(run_id)
            assert 2 <= calls == len(results) - len(refused) == len(world.stand_in.requests())
            assert Decimal("0.001") < cost <= Decimal("0.003")

    asyncio.run(main())


@pytest.mark.guarantee("G10")
def test_two_workers_overspend_the_day_by_what_was_in_flight_at_most(database_url: str) -> None:
    """Six calls at once, and on a busy machine as many whose answers have come and are being recorded."""

    async def main() -> None:
        limits = {"max_cost_usd_per_day": 0.005, "model_concurrency": 3}
        async with a_world(database_url, **limits) as one, another_worker(one, **limits) as two:
            await one.stand_in.script([{"times": None, "fault": {"kind": "latency", "seconds": 0.02}}])
            (_, first), (_, second) = await one.run(), await two.run(UUID(int=8))
            asking = [run.ask(question(number)) for number in range(40) for run in (first, second)]
            results = await asyncio.gather(*asking, return_exceptions=True)
            held_back = [result for result in results if isinstance(result, OperatorTrouble)]
            assert {error.code for error in held_back} == {"budget_exceeded"}
            assert len(held_back) + len(one.stand_in.requests()) == len(results)
            [(dearest,)] = await one.sql("SELECT max(cost_usd) FROM full_pass_model_calls")
            [(spent,)] = await one.sql("SELECT sum(cost_usd) FROM full_pass_spend")
            assert Decimal("0.005") <= spent <= Decimal("0.005") + 2 * 6 * dearest

    asyncio.run(main())


def test_tokens_of_a_prompt_cache_are_counted_and_paid_for(database_url: str) -> None:
    """This service never asks for a cache; an address in between may."""

    async def main() -> None:
        usage = {"input_tokens": 90, "cache_creation_input_tokens": 7, "cache_read_input_tokens": 3, "output_tokens": 2}
        body = json.dumps({"type": "message", "content": [], "stop_reason": "end_turn", "usage": usage}).encode()
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        async with raw_server(head + body) as url, a_world(database_url, ANTHROPIC_BASE_URL=url) as world:
            run_id, run = await world.run()
            await run.ask(REQUEST)
            assert await world.bought(run_id) == (1, 100, 2, Decimal("0.00011"))

    asyncio.run(main())


def test_a_model_without_a_known_price_costs_null_and_counts_as_the_dearest_in_the_days_spend(database_url: str) -> None:
    async def main() -> None:
        body = b'{"type": "message", "content": [], "stop_reason": "refusal", "usage": {"input_tokens": 90, "output_tokens": 2}}'
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        async with (
            raw_server(head + body) as url,
            a_world(database_url, ANTHROPIC_BASE_URL=url, model="claude-opus-9-9") as world,
        ):
            run_id, run = await world.run()
            await run.ask(REQUEST)
            assert await world.bought(run_id) == (1, 90, 2, None)
            assert await world.sql("SELECT sum(cost_usd) FROM full_pass_spend") == [(Decimal("0.001"),)]

    asyncio.run(main())


def test_nothing_is_recorded_of_a_call_that_failed(database_url: str) -> None:
    async def main() -> None:
        async with a_world(database_url) as world:
            await world.stand_in.script([{"times": None, "fault": {"kind": "status", "status": 500}}])
            run_id, run = await world.run()
            with pytest.raises(Outage):
                await run.ask(REQUEST)
            assert await world.bought(run_id) == (0, 0, 0, 0)
            assert not await world.sql("SELECT 1 FROM full_pass_model_calls")

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["max_tokens", "refusal", "invalid_json"])
def test_an_answer_is_recorded_as_it_came_whatever_it_is_worth(database_url: str, kind: str) -> None:
    async def main() -> None:
        async with a_world(database_url) as world:
            await world.stand_in.script([{"fault": {"kind": kind}}])
            run_id, run = await world.run()
            schema = {"type": "object", "properties": {"x": {"type": "string"}}, "required": ["x"], "additionalProperties": False}
            request = Request("facts", "Extract.", "User: I like tea and I moved to Porto in May.", 300, schema)
            bought, found = await run.ask(request), await run.ask(request)
            assert found.recorded
            assert (found.text, found.stop_reason) == (bought.text, bought.stop_reason)
            assert bought.stop_reason == (kind if kind != "invalid_json" else "end_turn")
            assert (await world.bought(run_id))[0] == 1

    asyncio.run(main())


def test_the_metrics_tell_bought_from_recorded_and_count_tokens_and_dollars(database_url: str) -> None:
    async def main() -> None:
        async with a_world(database_url) as world:
            await world.stand_in.script([{"fault": {"kind": "status", "status": 529}}])
            _, run = await world.run()
            bought = await run.ask(REQUEST)
            await run.ask(REQUEST)
            read = world.claude.metrics.registry.get_sample_value
            outcomes = {
                outcome: read("full_pass_model_calls_total", {"kind": "memory", "outcome": outcome})
                for outcome in ("end_turn", "recorded", "status_529")
            }
            assert outcomes == {"end_turn": 1, "recorded": 1, "status_529": 1}
            assert read("full_pass_model_tokens_total", {"direction": "input"}) == bought.input_tokens
            assert read("full_pass_model_tokens_total", {"direction": "output"}) == bought.output_tokens
            assert read("full_pass_model_cost_usd_total") == pytest.approx((bought.input_tokens + 5 * bought.output_tokens) / 1e6)

    asyncio.run(main())


def test_counting_tokens_buys_nothing_and_records_nothing(database_url: str) -> None:
    async def main() -> None:
        async with a_world(database_url) as world:
            run_id, run = await world.run()
            schema = {"type": "object", "properties": {"x": {"type": "string"}}, "required": ["x"], "additionalProperties": False}
            structured = Request("facts", "Extract.", "User: I like tea and I moved to Porto in May.", 300, schema)
            assert await run.count_tokens(structured) > 0
            assert await run.count_tokens(REQUEST) == (await run.ask(REQUEST)).input_tokens
            assert (await world.bought(run_id))[0] == 1

    asyncio.run(main())


def test_a_token_count_does_not_open_pace(database_url: str) -> None:
    """An empty account may still count tokens: opening on that would let every run fail once more."""

    async def main() -> None:
        async with a_world(database_url) as world:
            await world.stand_in.script([{"fault": {"kind": "credit"}}])
            run_id, run = await world.run()
            with pytest.raises(Outage):
                await run.ask(REQUEST)
            await asyncio.sleep(world.claude.pace.reopens_in_seconds or 0)
            world.claude.pace.begin_probe(run_id)
            assert await run.count_tokens(REQUEST) > 0
            assert not world.claude.pace.is_open
            await run.ask(REQUEST)
            assert world.claude.pace.is_open

    asyncio.run(main())
