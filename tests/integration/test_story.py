"""The story of a run, as the statements that run anyway write it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from consumer.errors import FinalError, NotThereYet, Outage, PassingFailure
from consumer.postgres.runs import Claim
from consumer.postgres.story import STORY_MAX_ENTRIES
from schemas.events import ErrorCode
from tests.integration.executor_work import Work, accepted, pass_well, until, wait_for_status, with_executor
from tests.integration.postgres_world import LEASE_SECONDS, World, in_world


def told(story: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """The entries without their times."""
    return [(entry["attempt"], entry["what"], *filter(None, (entry.get("reason"), entry.get("code")))) for entry in story]


def test_a_run_that_waits_fails_and_completes_tells_each_step_with_its_code(database_url: str) -> None:
    trouble: Iterator[Exception] = iter(
        (
            Outage(ErrorCode.MODEL_UNAVAILABLE, "a 529"),
            NotThereYet(ErrorCode.EXPORT_NOT_FOUND, "no such object"),
            PassingFailure(ErrorCode.COVERAGE_TOO_LOW, "3 of 9 chunks"),
        )
    )

    async def carry(work: Work, claim: Claim) -> None:
        await work.world.ledger.enter_stage(claim, "reading", LEASE_SECONDS)
        for error in trouble:
            raise error
        await pass_well(work, claim)

    async def test(work: Work) -> None:
        run = await wait_for_status(work, await accepted(work), "completed")
        assert told(run["story"]) == [
            (1, "claimed"),
            (1, "reading"),
            (1, "handed_back", "outage", "model_unavailable"),
            (2, "claimed"),
            (2, "reading"),
            (2, "handed_back", "not_found", "export_not_found"),
            (3, "claimed"),
            (3, "reading"),
            (3, "handed_back", "failure", "coverage_too_low"),
            (4, "claimed"),
            (4, "reading"),
            (4, "completed"),
        ]
        times = [datetime.fromisoformat(entry["at"]) for entry in run["story"]]
        assert times == sorted(times)
        assert abs(times[-1] - datetime.now(UTC)) < timedelta(minutes=1)
        assert all(entry["at"].endswith("Z") for entry in run["story"])

    with_executor(database_url, carry, test, retry_backoff_seconds=0.01, not_found_grace_seconds=60)


def test_a_run_that_is_handed_back_at_shutdown_and_one_that_failed_say_so(database_url: str) -> None:
    async def carry(_work: Work, claim: Claim) -> None:
        if claim.idempotency_key == "bad":
            raise FinalError(ErrorCode.EXPORT_UNREADABLE, "cut off")
        await asyncio.Event().wait()

    async def test(work: Work) -> None:
        bad = await wait_for_status(work, await accepted(work, key="bad"), "failed")
        assert told(bad["story"]) == [(1, "claimed"), (1, "failed", "export_unreadable")]
        waiting = await accepted(work)
        await until(lambda: len(work.claims) == 2)
        await work.stop()
        assert told((await work.world.run(waiting))["story"]) == [(1, "claimed"), (1, "handed_back", "shutdown")]

    with_executor(database_url, carry, test, shutdown_seconds=0.2)


@pytest.mark.guarantee("G10")
def test_a_story_keeps_its_newest_entries_alone(database_url: str) -> None:
    async def work(world: World) -> None:
        claim = await world.started()
        for number in range(STORY_MAX_ENTRIES + 20):
            await world.ledger.enter_stage(claim, f"stage {number}", LEASE_SECONDS)
        story = (await world.run(claim.run_id))["story"]
        assert [entry["what"] for entry in story] == [f"stage {number}" for number in range(20, STORY_MAX_ENTRIES + 20)]

    in_world(database_url, work)


def test_a_stage_notes_with_which_model_and_prompts_the_run_goes_on(database_url: str) -> None:
    async def work(world: World) -> None:
        claim = await world.started()
        await world.ledger.enter_stage(claim, "reading", LEASE_SECONDS, model="a-model", prompt_version=3)
        await world.ledger.enter_stage(claim, "facts", LEASE_SECONDS)
        run = await world.run(claim.run_id)
        assert (run["model"], run["prompt_version"]) == ("a-model", 3)

    in_world(database_url, work)
