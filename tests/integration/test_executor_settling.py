"""How a run stops, and what the ledger says of it afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from consumer.errors import FinalError, NotThereYet, OperatorTrouble, Outage, PassingFailure, RunError, Superseded
from consumer.postgres.database import DatabaseUnavailable
from consumer.postgres.runs import Claim
from schemas.events import ErrorCode
from tests.integration.executor_work import (
    Work,
    accepted,
    at_work,
    ends_of,
    handed_back,
    never_end,
    pass_well,
    raising,
    until,
    wait_for_status,
    with_executor,
)
from tests.integration.postgres_world import a_world


def test_the_store_is_no_reason_any_more_once_it_has_answered_for_another_export(database_url: str) -> None:
    """Also where nothing lay at that place: a worker must not stay unready since nobody publishes a good event."""

    async def carry(work: Work, _claim: Claim) -> None:
        if len(work.claims) == 1:
            raise OperatorTrouble(ErrorCode.EXPORT_UNAVAILABLE, "EXPORT_STORE_URL: no object can be read")
        raise NotThereYet(ErrorCode.EXPORT_NOT_FOUND, "nothing lies there")

    async def test(work: Work) -> None:
        await accepted(work)
        await until(lambda: "exports" in work.worker.health.reasons())
        await accepted(work)
        await until(lambda: "exports" not in work.worker.health.reasons())

    with_executor(database_url, carry, test, retry_backoff_seconds=60)


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
    assert any(Path(__file__).name in place for place in surprise["traceback"])
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
