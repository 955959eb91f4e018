"""A run's story as people read it."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from consumer.commands.run_story import attempts_of

BEGAN = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)


def entry(attempt: int, seconds: float, what: str, **more: str) -> dict[str, Any]:
    at = (BEGAN + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return {"at": at, "attempt": attempt, "what": what, **more}


def told(status: str, *story: dict[str, Any], now_seconds: float = 100) -> list[tuple[Any, ...]]:
    attempts = attempts_of(story, status, BEGAN + timedelta(seconds=now_seconds))
    return [(each.attempt, each.seconds, {stage.stage: stage.seconds for stage in each.stages}, each.ended) for each in attempts]


def test_each_attempt_tells_how_long_its_stages_took_and_how_it_ended() -> None:
    story = (
        entry(1, 0, "claimed"),
        entry(1, 1, "reading"),
        entry(1, 3.5, "facts"),
        entry(1, 10, "handed_back", reason="outage", code="model_unavailable"),
        entry(2, 40, "claimed"),
        entry(2, 41, "reading"),
        entry(2, 45, "failed", code="export_unreadable"),
    )
    assert told("failed", *story) == [
        (1, 10, {"reading": 2.5, "facts": 6.5}, "handed back: outage, model_unavailable"),
        (2, 5, {"reading": 4}, "failed: export_unreadable"),
    ]


def test_the_attempt_that_goes_on_is_measured_up_to_now() -> None:
    assert told("running", entry(1, 0, "claimed"), entry(1, 5, "reading"), now_seconds=60) == [(1, 60, {"reading": 55}, None)]


def test_an_attempt_whose_worker_died_went_silent_in_its_last_stage() -> None:
    story = (entry(1, 0, "claimed"), entry(1, 2, "facts"), entry(2, 90, "claimed"))
    assert told("running", *story) == [(1, None, {"facts": None}, "went silent"), (2, 10, {}, None)]


def test_a_run_that_was_cancelled_while_it_waited_tells_both_ends_of_its_last_attempt() -> None:
    story = (entry(1, 0, "claimed"), entry(1, 4, "handed_back", reason="pause"), entry(1, 50, "failed", code="cancelled"))
    assert told("failed", *story) == [(1, 4, {}, "handed back: pause, then failed: cancelled")]
    assert told("failed", entry(0, 50, "failed", code="cancelled")) == [(0, None, {}, "failed: cancelled")]


def test_a_story_whose_first_lines_are_gone_and_none_at_all_are_told_as_far_as_they_go() -> None:
    (attempt,) = attempts_of([entry(7, 3, "facts"), entry(7, 5, "completed")], "completed", BEGAN)
    assert asdict(attempt)["began_at"] is None
    assert (attempt.ended, attempt.stages[0].seconds) == ("completed", 2)
    assert attempts_of([], "completed", BEGAN) == []
