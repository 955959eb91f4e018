"""The executor on a real ledger. The pass is a coroutine of the test's: what it raises is what has to be settled."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from consumer.app import Worker, supervise
from consumer.claude.gate import Claude
from consumer.claude.trouble import Trouble
from consumer.errors import FinalError, LostLease, NotThereYet, OperatorTrouble, Outage, PassingFailure, RunError, Superseded
from consumer.executor import Executor
from consumer.postgres.database import Database, DatabaseUnavailable
from consumer.postgres.runs import Claim
from consumer.postgres.spend import Spend
from consumer.settings import Settings
from sandbox.postgres import PostgresServer
from schemas.events import SECTION_NAMES, ErrorCode
from tests.integration.postgres_world import World, a_world

SECTIONS: dict[str, dict[str, Any]] = {name: {"what": name} for name in SECTION_NAMES}


@dataclass
class Work:
    """An executor at work, and what its runs did."""

    world: World
    worker: Worker
    claude: Claude
    claims: list[Claim] = field(default_factory=list)
    part: asyncio.Task[None] | None = None

    def sample(self, name: str, **labels: str) -> float:
        """The value of one of our metrics; 0 while it has none."""
        return self.worker.metrics.registry.get_sample_value(f"full_pass_{name}", labels) or 0

    async def stop(self) -> None:
        """Stop as SIGTERM does, and wait until the executor has ended."""
        self.worker.stopping.set()
        assert self.part is not None
        await self.part


Carry = Callable[[Work, Claim], Awaitable[None]]


def settings_for(url: str, **changes: Any) -> Settings:
    """Settings of an impatient worker."""
    named: dict[str, Any] = {"DATABASE_URL": url, "ANTHROPIC_API_KEY": "sk-ant-test"}
    quick = {"lease_seconds": 2, "poll_seconds": 0.1, "retry_backoff_seconds": 0.05, "shutdown_seconds": 5}
    return Settings(**{**named, **quick, **changes})


@asynccontextmanager
async def at_work(world: World, carry: Carry, **changes: Any) -> AsyncIterator[Work]:
    """A supervised executor for the length of the block."""
    settings = settings_for(world.database.url, **changes)
    database = Database(world.database.url, settings.lease_seconds, connections=8)
    worker = Worker(settings, database)
    claude = Claude(settings, world.answers, Spend(database), worker.metrics)
    work = Work(World(database), worker, claude)

    async def carry_and_note(claim: Claim) -> None:
        work.claims.append(claim)
        await carry(work, claim)

    try:
        async with asyncio.TaskGroup() as tasks:
            executor = Executor(
                settings,
                work.world.ledger,
                work.world.profiles,
                claude,
                carry_and_note,
                health=worker.health,
                metrics=worker.metrics,
                tasks=tasks,
            )
            work.part = tasks.create_task(supervise("executor", executor.run, worker, worker.stopping))
            yield work
            await work.stop()
    finally:
        await claude.close()
        await database.close()


def with_executor(url: str, carry: Carry, test: Callable[[Work], Awaitable[None]], **changes: Any) -> None:
    """Run a test beside an executor on a database of its own."""

    async def main() -> None:
        async with a_world(url) as world, at_work(world, carry, **changes) as work:
            await test(work)

    asyncio.run(main())


async def until(condition: Callable[[], Any], seconds: float = 15) -> None:
    """Wait, with a deadline, for a condition that may be awaitable."""
    async with asyncio.timeout(seconds):
        while True:
            met = condition()
            if await met if isinstance(met, Awaitable) else met:
                return
            await asyncio.sleep(0.01)


async def accepted(work: Work, **more: Any) -> UUID:
    """A run of a user with a profile; its id."""
    return (await work.world.accept(await work.world.user(), **more)).run_id


def raising(error: BaseException) -> Carry:
    """A pass that stops at once."""

    async def carry(_work: Work, _claim: Claim) -> None:
        raise error

    return carry


async def pass_well(work: Work, claim: Claim) -> None:
    """A pass that saves everything, without a model."""
    profiles = work.world.profiles
    await profiles.begin(claim)
    await profiles.save_memory(claim, "## Preferences", 1, 1.0)
    await profiles.save_sections(claim, SECTIONS, "soulprint", conversations_sampled=1, model="a-model")


async def never_end(_work: Work, _claim: Claim) -> None:
    await asyncio.Event().wait()


async def wait_for_status(work: Work, run_id: UUID, status: str) -> dict[str, Any]:
    await until(lambda: _has(work, run_id, status))
    return await work.world.run(run_id)


async def _has(work: Work, run_id: UUID, status: str) -> bool:
    return bool((await work.world.run(run_id))["status"] == status)


async def handed_back(work: Work, run_id: UUID) -> dict[str, Any]:
    """The run's row once it was put back for the first time. It is due much later, so nobody claims it again meanwhile."""
    await until(lambda: bool(work.claims))
    return await wait_for_status(work, run_id, "pending")


async def ends_of(work: Work) -> list[tuple[str, str, str]]:
    """Code, detail and stage of each v2-failed event."""
    rows = await work.world.sql("SELECT data FROM full_pass_outbox WHERE event_type = 'v2-failed' ORDER BY id")
    events = [json.loads(row["data"]) for row in rows]
    return [(event["error_code"], event["error_detail"], event["stage"]) for event in events]


# -- how a run stops ----------------------------------------------------------------------------------------------------


@pytest.mark.guarantee("G1")
def test_a_run_that_goes_well_is_completed_and_a_notification_starts_it(database_url: str) -> None:
    async def test(work: Work) -> None:
        await until(lambda: work.worker.health.ready)
        run_id = await accepted(work)
        run = await wait_for_status(work, run_id, "completed")
        assert (run["attempt"], run["failures"]) == (1, 0)
        assert await work.world.events() == ["memory-saved", "v2-completed"]
        assert work.sample("runs_ended_total", status="completed", code="") == 1

    with_executor(database_url, pass_well, test, poll_seconds=60, lease_seconds=600)


@pytest.mark.parametrize(
    "error", [FinalError(ErrorCode.EXPORT_EMPTY, "nothing in it"), FinalError(ErrorCode.MODEL_REJECTED, "a 400"), Superseded()]
)
def test_what_cannot_get_better_ends_the_run_at_once(database_url: str, error: RunError) -> None:
    async def test(work: Work) -> None:
        run = await wait_for_status(work, await accepted(work), "failed")
        assert (run["error_code"], run["attempt"], run["failures"]) == (error.code, 1, 0)
        assert await ends_of(work) == [(error.code, error.detail, "starting")]
        assert work.sample("runs_ended_total", status="failed", code=error.code) == 1

    with_executor(database_url, raising(error), test)


@pytest.mark.parametrize(
    ("error", "held_up"),
    [
        (Outage(ErrorCode.MODEL_UNAVAILABLE, "a 529"), True),
        (Outage(ErrorCode.EXPORT_UNAVAILABLE, "the store is away", 3000), True),
        (DatabaseUnavailable("PostgreSQL went away in a save"), True),
        (OperatorTrouble(ErrorCode.MODEL_UNAVAILABLE, "the key was refused"), False),
    ],
)
def test_an_outage_costs_no_failure_and_only_the_operators_does_not_count_as_held_up(
    database_url: str, error: Outage, held_up: bool
) -> None:
    async def test(work: Work) -> None:
        run = await handed_back(work, await accepted(work))
        assert (run["failures"], run["error_code"]) == (0, None)
        assert (run["held_up_since"] is not None) == held_up
        assert work.sample("runs_handed_back_total", reason="outage") == 1

    with_executor(database_url, raising(error), test, retry_backoff_seconds=3000)


def test_an_outage_without_a_step_forward_ends_the_run_with_what_stopped_it(database_url: str) -> None:
    async def test(work: Work) -> None:
        run = await wait_for_status(work, await accepted(work), "failed")
        assert run["attempt"] > 1
        assert (run["error_code"], run["failures"]) == ("model_unavailable", 0)

    with_executor(database_url, raising(Outage(ErrorCode.MODEL_UNAVAILABLE, "a 529")), test, give_up_after_seconds=0.3)


def test_the_operators_trouble_is_never_given_up(database_url: str) -> None:
    async def test(work: Work) -> None:
        run_id = await accepted(work)
        await until(lambda: len(work.claims) >= 6)
        run = await work.world.run(run_id)
        assert (run["error_code"], run["finished_at"], run["failures"]) == (None, None, 0)

    with_executor(
        database_url, raising(OperatorTrouble(ErrorCode.MODEL_UNAVAILABLE, "no credit")), test, give_up_after_seconds=0.01
    )


def test_a_store_that_only_its_operator_can_mend_makes_the_worker_not_ready(database_url: str) -> None:
    async def test(work: Work) -> None:
        await accepted(work)
        await until(lambda: "exports" in work.worker.health.reasons())
        assert work.worker.health.reasons()["exports"] == "EXPORT_STORE_URL: no object can be read"

    trouble = OperatorTrouble(ErrorCode.EXPORT_UNAVAILABLE, "EXPORT_STORE_URL: no object can be read")
    with_executor(database_url, raising(trouble), test)


def test_what_is_not_there_yet_is_looked_for_until_the_grace_is_over(database_url: str) -> None:
    async def test(work: Work) -> None:
        run = await wait_for_status(work, await accepted(work), "failed")
        assert (run["error_code"], run["failures"]) == ("export_not_found", 0)
        assert run["attempt"] > 2
        assert (run["finished_at"] - run["created_at"]).total_seconds() >= 0.8

    error = NotThereYet(ErrorCode.EXPORT_NOT_FOUND, "no such object")
    with_executor(database_url, raising(error), test, not_found_grace_seconds=0.8)


def test_without_a_grace_a_missing_profile_is_looked_for_once(database_url: str) -> None:
    async def carry(work: Work, claim: Claim) -> None:
        await work.world.profiles.begin(claim)

    async def test(work: Work) -> None:
        run_id = (await work.world.accept(uuid4())).run_id
        run = await wait_for_status(work, run_id, "failed")
        assert (run["error_code"], run["attempt"]) == ("profile_not_found", 1)

    with_executor(database_url, carry, test, not_found_grace_seconds=0)


def test_a_passing_failure_is_counted_and_tried_again_later(database_url: str) -> None:
    async def test(work: Work) -> None:
        run = await handed_back(work, await accepted(work))
        assert (run["failures"], run["error_code"], run["error_detail"]) == (1, "coverage_too_low", "3 of 9 chunks")
        waits = (run["due_at"] - run["started_at"]).total_seconds()
        assert 40 * 0.75 <= waits <= 40 + 5
        assert work.sample("runs_handed_back_total", reason="failure") == 1

    error = PassingFailure(ErrorCode.COVERAGE_TOO_LOW, "3 of 9 chunks")
    with_executor(database_url, raising(error), test, retry_backoff_seconds=40)


@pytest.mark.guarantee("G10")
@pytest.mark.parametrize("most", [1, 3])
def test_a_run_ends_with_its_last_code_after_so_many_failures(database_url: str, most: int) -> None:
    async def test(work: Work) -> None:
        run = await wait_for_status(work, await accepted(work), "failed")
        assert (run["error_code"], run["failures"], len(work.claims)) == ("coverage_too_low", most, most)
        detail = f"{most} failures without a step forward; the last: 3 of 9 chunks"
        assert await ends_of(work) == [("coverage_too_low", detail, "starting")]

    error = PassingFailure(ErrorCode.COVERAGE_TOO_LOW, "3 of 9 chunks")
    with_executor(database_url, raising(error), test, max_failures=most, retry_backoff_seconds=0.01)


@pytest.mark.guarantee("G10")
def test_a_run_that_takes_its_workers_with_it_is_ended_without_being_started(database_url: str) -> None:
    async def main() -> None:
        async with a_world(database_url) as world:
            run = await world.accept(await world.user())
            for _ in range(3):
                claim = await world.ledger.claim(0.01, (), expired_count=True, suspects=True)
                assert claim is not None
                await world.expire(claim)
            async with at_work(world, never_end, max_failures=3) as work:
                ended = await wait_for_status(work, run.run_id, "failed")
                assert (ended["error_code"], ended["attempt"], work.claims) == ("internal", 4, [])
                detail = "3 failures without a step forward; the last: the workers that held the run went silent"
                assert await ends_of(work) == [("internal", detail, "starting")]

    asyncio.run(main())


@pytest.mark.guarantee("G9")
def test_a_surprise_costs_a_failure_and_its_log_line_names_the_place_and_no_content(
    database_url: str, logged: Callable[[], list[dict[str, Any]]]
) -> None:
    async def carry(work: Work, claim: Claim) -> None:
        await work.world.profiles.save_memory(claim, "a diary \0 entry", 1, 1.0)

    async def test(work: Work) -> None:
        run = await handed_back(work, await accepted(work))
        assert (run["failures"], run["error_code"]) == (1, "internal")
        assert "diary" not in run["error_detail"]

    with_executor(database_url, carry, test, retry_backoff_seconds=100)
    said = logged()
    [surprise] = [line for line in said if line["event"] == "run_surprised"]
    assert surprise["error"].startswith("DataRefused: ")
    assert any("test_executor.py" in place for place in surprise["traceback"])
    assert surprise["user_id"]
    assert "diary" not in str(said)


@pytest.mark.guarantee("G10")
def test_a_run_whose_end_cannot_be_written_takes_no_other_run_with_it(database_url: str) -> None:
    """A surprise while a run is settled must not end the worker, nor be tried again without a pause."""

    async def carry(work: Work, claim: Claim) -> None:
        if claim.idempotency_key == "bad":
            raise FinalError(ErrorCode.EXPORT_UNREADABLE, "cut off")
        await pass_well(work, claim)

    async def main() -> None:
        async with a_world(database_url) as world:
            bad = (await world.accept(await world.user(), "bad")).run_id
            await world.sql(
                """INSERT INTO full_pass_outbox (event_id, event_type, run_id, user_id, data, traceparent, occurred_at)
                   VALUES (gen_random_uuid(), 'v2-failed', :id, :id, '', '', now())""",
                id=bad,
            )
            async with at_work(world, carry, max_failures=1, retry_backoff_seconds=3000) as work:
                await until(lambda: _failures(work, bad, 2))
                await wait_for_status(work, await accepted(work), "completed")
                run = await world.run(bad)
                assert (run["status"], run["attempt"], run["failures"]) == ("pending", 2, 2)

    asyncio.run(main())


async def _failures(work: Work, run_id: UUID, least: int) -> bool:
    return bool((await work.world.run(run_id))["failures"] >= least)


@pytest.mark.guarantee("G7")
def test_an_overtaken_run_that_failed_too_often_ends_as_superseded_and_leaves_the_newer_ones_status(database_url: str) -> None:
    async def main() -> None:
        async with a_world(database_url) as world:
            user = await world.user()
            older = await world.accept(user, "older")
            await world.ledger.put_back_failed(await world.claimed(), "coverage_too_low", "3 of 9", 0)
            newer = await world.accept(user, "newer", seconds=1)
            claim = await world.claimed()
            assert claim.run_id == newer.run_id
            await world.profiles.begin(claim)
            await world.profiles.save_memory(claim, "of the newer one", 1, 1.0)
            await world.ledger.put_back_failed(claim, "internal", "", 3000)
            async with at_work(world, never_end, max_failures=1) as work:
                ended = await wait_for_status(work, older.run_id, "failed")
                assert ended["error_code"] == "superseded"
                assert (await world.profile(user))["full_pass_status"] == "processing"
                assert work.sample("runs_ended_total", status="failed", code="superseded") == 1

    asyncio.run(main())


# -- leases -------------------------------------------------------------------------------------------------------------


@pytest.mark.guarantee("G6")
@pytest.mark.parametrize("how", ["taken over", "ended", "gone"])
def test_a_run_that_was_taken_away_is_stopped_and_nothing_is_written(database_url: str, how: str) -> None:
    stopped = asyncio.Event()
    takeaway = {
        "taken over": "UPDATE full_pass_runs SET attempt = attempt + 1, lease_until = now() + interval '1 hour'",
        "ended": "UPDATE full_pass_runs SET status = 'failed', error_code = 'cancelled', finished_at = now(), lease_until = NULL",
        "gone": "DELETE FROM full_pass_runs",
    }[how]

    async def carry(_work: Work, _claim: Claim) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    async def test(work: Work) -> None:
        await accepted(work)
        await until(lambda: bool(work.claims))
        await work.world.sql(takeaway)
        before = await work.world.sql("SELECT * FROM full_pass_runs")
        await until(stopped.is_set)
        await until(lambda: work.sample("leases_lost_total") == 1)
        assert await work.world.sql("SELECT * FROM full_pass_runs") == before
        assert await work.world.events() == []
        assert len(work.claims) == 1

    with_executor(database_url, carry, test)


@pytest.mark.guarantee("G6")
def test_a_run_that_finds_its_lease_lost_stops_quietly(database_url: str) -> None:
    async def test(work: Work) -> None:
        run_id = await accepted(work)
        await until(lambda: work.sample("leases_lost_total") == 1)
        run = await work.world.run(run_id)
        assert (run["status"], run["failures"]) == ("running", 0)

    with_executor(database_url, raising(LostLease()), test, lease_seconds=600)


def test_a_run_that_takes_longer_than_a_lease_stays_with_its_worker(database_url: str) -> None:
    release = asyncio.Event()

    async def carry(work: Work, claim: Claim) -> None:
        await release.wait()
        await pass_well(work, claim)

    async def test(work: Work) -> None:
        run_id = await accepted(work)
        await until(lambda: bool(work.claims))
        began = asyncio.get_running_loop().time()
        while asyncio.get_running_loop().time() - began < 2.6:
            assert await work.world.claim() is None
            await asyncio.sleep(0.1)
        release.set()
        run = await wait_for_status(work, run_id, "completed")
        assert (run["attempt"], run["failures"]) == (1, 0)

    with_executor(database_url, carry, test)


def test_a_worker_carries_no_more_runs_at_once_than_it_may(database_url: str) -> None:
    under_way: set[UUID] = set()
    most = 0

    async def carry(work: Work, claim: Claim) -> None:
        nonlocal most
        under_way.add(claim.run_id)
        most = max(most, len(under_way))
        await asyncio.sleep(0.05)
        await pass_well(work, claim)
        under_way.discard(claim.run_id)

    async def test(work: Work) -> None:
        runs = [await accepted(work) for _ in range(9)]
        for run_id in runs:
            await wait_for_status(work, run_id, "completed")
        assert most == 3

    with_executor(database_url, carry, test, run_concurrency=3)


@pytest.mark.guarantee("G10")
def test_a_worker_carries_one_run_with_two_failures_at_a_time(database_url: str) -> None:
    """If it is poison, it takes no other with it."""
    release = asyncio.Event()

    async def carry(work: Work, claim: Claim) -> None:
        await release.wait()
        await pass_well(work, claim)

    async def main() -> None:
        async with a_world(database_url) as world:
            for _ in range(3):
                await world.accept(await world.user())
            await world.sql("UPDATE full_pass_runs SET failures = 2")
            healthy = await world.accept(await world.user())
            async with at_work(world, carry) as work:
                await until(lambda: healthy.run_id in [claim.run_id for claim in work.claims])
                await until(lambda: _looked_again(work))
                assert sorted(claim.failures for claim in work.claims) == [0, 2]
                release.set()
                await until(lambda: _all_completed(work, 4))

    asyncio.run(main())


async def _looked_again(work: Work) -> bool:
    """Whether the executor has been at the ledger again since it claimed: it has renewed the leases."""
    renewed = "SELECT bool_and(lease_until > started_at + interval '2.3 s') FROM full_pass_runs WHERE status = 'running'"
    return bool(await work.world.value(renewed))


async def _all_completed(work: Work, number: int) -> bool:
    return bool(await work.world.value("SELECT count(*) FROM full_pass_runs WHERE status = 'completed'") == number)


# -- shutdown -----------------------------------------------------------------------------------------------------------


def test_at_shutdown_runs_finish_in_time_or_are_handed_back_without_a_failure(database_url: str) -> None:
    released = asyncio.Event()

    async def carry(work: Work, claim: Claim) -> None:
        await (released.wait() if claim.idempotency_key == "quick" else asyncio.Event().wait())
        await pass_well(work, claim)

    async def test(work: Work) -> None:
        slow, quick = await accepted(work, key="slow"), await accepted(work, key="quick")
        await until(lambda: len(work.claims) == 2)
        work.worker.stopping.set()
        late = await accepted(work, key="late")
        released.set()
        await work.stop()
        statuses = {run_id: (await work.world.run(run_id))["status"] for run_id in (slow, quick, late)}
        assert statuses == {slow: "pending", quick: "completed", late: "pending"}
        run = await work.world.run(slow)
        assert (run["failures"], run["held_up_since"], run["lease_until"]) == (0, None, None)
        assert work.sample("runs_handed_back_total", reason="shutdown") == 1
        assert (await work.world.claimed()).run_id in {slow, late}  # due at once

    with_executor(database_url, carry, test, shutdown_seconds=1)


def test_an_idle_executor_stops_at_once(database_url: str) -> None:
    async def test(work: Work) -> None:
        await until(lambda: work.worker.health.ready)
        async with asyncio.timeout(2):
            await work.stop()

    with_executor(database_url, never_end, test, poll_seconds=60, lease_seconds=600, shutdown_seconds=60)


def test_a_run_that_is_being_settled_at_shutdown_costs_no_failure(database_url: str) -> None:
    """Its end waits for a lock; the executor doesn't wait for it for ever, and hands the run back."""

    async def test(work: Work) -> None:
        run_id = await accepted(work)
        connection = await asyncpg.connect(work.world.database.url)
        try:
            async with connection.transaction():
                await connection.execute("LOCK TABLE full_pass_outbox IN ACCESS EXCLUSIVE MODE")
                await until(lambda: _waits_for_a_lock(connection))
                await work.stop()
        finally:
            await connection.close()
        run = await work.world.run(run_id)
        assert (run["status"], run["failures"]) == ("pending", 0)

    with_executor(
        database_url, raising(FinalError(ErrorCode.EXPORT_EMPTY, "empty")), test, shutdown_seconds=0.5, lease_seconds=600
    )


async def _waits_for_a_lock(connection: asyncpg.Connection) -> bool:
    question = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    return bool(await connection.fetchval(question))


# -- when PostgreSQL is away --------------------------------------------------------------------------------------------


@pytest.mark.guarantee("G6")
def test_runs_go_on_while_the_executor_is_started_again(database_url: str) -> None:
    """All its sessions are ended by the server, the listening one too; a run under way must not feel it."""
    release = asyncio.Event()

    async def carry(work: Work, claim: Claim) -> None:
        await release.wait()
        await pass_well(work, claim)

    async def test(work: Work) -> None:
        run_id = await accepted(work)
        await until(lambda: bool(work.claims))
        await work.world.sql(
            """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE datname = current_database() AND pid <> pg_backend_pid()"""
        )
        await until(lambda: work.sample("part_restarts_total", part="executor") >= 1)
        await until(lambda: work.worker.health.ready)
        release.set()
        run = await wait_for_status(work, run_id, "completed")
        assert (run["attempt"], run["failures"]) == (1, 0)

    with_executor(database_url, carry, test)


def test_a_postgresql_that_is_killed_in_the_middle_of_a_run_costs_no_failure(own_postgres: PostgresServer) -> None:
    """The run's next save fails; when the server is back, it is handed back, claimed again and completed."""
    killed = asyncio.Event()

    async def carry(work: Work, claim: Claim) -> None:
        await killed.wait()
        await pass_well(work, claim)

    async def main() -> None:
        own_postgres.create_database("killed")
        async with a_world(own_postgres.url("killed")) as world, at_work(world, carry) as work:
            run_id = await accepted(work)
            await until(lambda: bool(work.claims))
            await asyncio.to_thread(own_postgres.kill)
            killed.set()
            await until(lambda: "executor" in work.worker.health.reasons())
            assert "PostgreSQL" in work.worker.health.reasons()["executor"]
            await asyncio.to_thread(own_postgres.start)
            run = await wait_for_status(work, run_id, "completed")
            assert (run["attempt"], run["failures"]) == (2, 0)
            await until(lambda: work.worker.health.ready)

    asyncio.run(main())


def test_for_a_lease_after_an_executor_lost_postgresql_it_counts_no_lease_as_expired(database_url: str) -> None:
    """Whoever was cut off with it is alive, and could renew no more than it could."""

    async def test(work: Work) -> None:
        clock = asyncio.get_running_loop().time
        await until(lambda: work.world.value("SELECT now() > pg_postmaster_start_time() + interval '2 s'"))
        await accepted(work)
        await until(lambda: bool(work.claims))  # it is connected
        await work.world.sql(
            """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE datname = current_database() AND pid <> pg_backend_pid()"""
        )
        await until(lambda: work.sample("part_restarts_total", part="executor") >= 1)
        lost_at = clock()
        await work.world.sql(
            """INSERT INTO full_pass_runs
                   (run_id, user_id, idempotency_key, status, attempt, lease_until, completed_at, event, traceparent)
               VALUES (:id, :id, 'silent', 'running', 1, now() - interval '1 hour', now(), '{"storage_path": "a/b"}', '')""",
            id=uuid4(),
        )
        await until(lambda: len(work.claims) == 2)
        assert work.claims[1].failures == 1
        assert clock() - lost_at > 1.5

    with_executor(database_url, never_end, test, shutdown_seconds=0.2)


@pytest.mark.guarantee("G6")
def test_a_run_that_was_taken_over_while_postgresql_was_away_does_not_hold_the_executor_up(
    database_url: str, database: str, postgres: PostgresServer
) -> None:
    """It can't be handed back any more; the executor drops it and works on."""

    def let_in(whether: bool) -> None:
        postgres.run_sql(f"ALTER DATABASE {database} ALLOW_CONNECTIONS {whether}")

    async def carry(work: Work, claim: Claim) -> None:
        if claim.idempotency_key == "first":
            await until(lambda: "executor" in work.worker.health.reasons())
        await pass_well(work, claim)

    async def test(work: Work) -> None:
        first = await accepted(work, key="first")
        await until(lambda: bool(work.claims))
        other_worker = await asyncpg.connect(database_url)
        try:
            await asyncio.to_thread(let_in, False)
            await other_worker.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            await until(lambda: work.sample("part_restarts_total", part="executor") >= 2)
            await other_worker.execute("UPDATE full_pass_runs SET attempt = 2, lease_until = now() + interval '1 hour'")
            await asyncio.to_thread(let_in, True)
        finally:
            await other_worker.close()
        second = await accepted(work, key="second")
        await wait_for_status(work, second, "completed")
        run = await work.world.run(first)
        assert (run["status"], run["attempt"], run["failures"]) == ("running", 2, 0)

    with_executor(database_url, carry, test)


def test_a_commit_whose_answer_was_lost_is_believed(database_url: str) -> None:
    """The run had ended before its worker heard that PostgreSQL was away; it isn't run or ended again."""

    async def carry(work: Work, claim: Claim) -> None:
        await pass_well(work, claim)
        if claim.idempotency_key == "first":
            raise DatabaseUnavailable("the answer to the commit was lost")

    async def test(work: Work) -> None:
        first, second = await accepted(work, key="first"), await accepted(work, key="second")
        await wait_for_status(work, second, "completed")
        await wait_for_status(work, first, "completed")
        assert await work.world.value("SELECT count(*) FROM full_pass_outbox WHERE event_type <> 'memory-saved'") == 2
        assert work.sample("part_restarts_total", part="executor") == 0

    with_executor(database_url, carry, test)


# -- Pace and budget ----------------------------------------------------------------------------------------------------


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
            await until(lambda: _all_completed(work, 3))

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
