"""The judge of `make chaos` sees what it is there to see: a storm that left nothing wrong, bent in one place each time."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from tests.acceptance.topics import Seen
from tests.chaos.crash import sha256_of
from tests.chaos.journal import Hold, Life
from tests.chaos.storm import COLUMNS, Ask, Plan, Storm
from tests.chaos.verdict import Verdict, judge

USER, RUN, WORD = UUID(int=1), UUID(int=2), "craftabcdefghijklmn"
OTHER_WORD = "craftnmlkjihgfedcba"
CUT_OFF = Hold(str(RUN), attempt=1, failures=0, since=10.0, until=20.0, stage="facts", cut_off=True)
TAKEN_OVER = replace(CUT_OFF, attempt=2, failures=1, since=21.5, until=23.0, cut_off=False)


def an_event(topic: str, version: int, **more: Any) -> Seen:
    data = {"user_id": str(USER), "idempotency_key": "key", "run_id": str(RUN), "profile_version": version, **more}
    return Seen(topic, 0, version, None, json.dumps(data).encode(), {"ce_id": topic.encode()})


def a_storm() -> Storm:
    """One event of one user, whose worker was killed with a call in flight."""
    return Storm(
        Plan(kills=1, users=1, workers=2, seed=0),
        lives=[Life(1.0, 20.0, [CUT_OFF]), Life(2.0, 30.0, [TAKEN_OVER])],
        published={(str(USER), "key"): WORD},
        kills=1,
        states={(WORD,) * 6},
        asks=[Ask("a", WORD, 12.0), Ask("b", WORD, 19.0), Ask("b", WORD, 22.0)],
        seen=[an_event("memory-saved", 1), an_event("v2-completed", 2, soulprint_sha256=sha256_of(WORD))],
        runs=[
            {
                "run_id": RUN, "user_id": USER, "idempotency_key": "key", "status": "completed", "error_code": None, "attempt": 2,
                "memory_saved_at": datetime(2026, 11, 20, tzinfo=UTC), "model_calls": 2,
            }
        ],
        profiles=[{"user_id": USER, "profile_version": 2, **dict.fromkeys(COLUMNS, WORD)}],
    )  # fmt: skip


def judged(**changes: Any) -> Verdict:
    return judge(replace(a_storm(), **changes))


def test_nothing_is_wrong_where_a_call_in_flight_was_bought_again() -> None:
    verdict = judged()
    assert (verdict.wrong(), verdict.slow(), verdict.asked_again) == ([], [], 1)
    assert [(each.seconds, each.had_room) for each in verdict.taken_over] == [(1.5, True)]
    assert "duplicates         0" in verdict.figures()


def test_an_event_that_is_there_twice_is_a_duplicate() -> None:
    seen = a_storm().seen
    assert len(judged(seen=[*seen, seen[0]]).duplicates) == 2
    again = replace(seen[1], headers={"ce_id": b"another"})
    assert len(judged(seen=[*seen, again]).duplicates) == 1


def test_a_key_without_an_end_is_a_loss() -> None:
    assert len(judged(seen=a_storm().seen[:1]).losses) == 1
    assert len(judged(seen=a_storm().seen[1:]).losses) == 1
    assert len(judged(unpublished=1).losses) == 1
    assert len(judged(runs=[a_storm().runs[0] | {"status": "failed", "error_code": "internal", "error_detail": ""}]).losses) == 1


def test_sections_of_two_exports_are_a_mixture_whoever_sees_them() -> None:
    assert len(judged(states={(WORD,) * 5 + (OTHER_WORD,)}).mixtures) == 1
    mixed = a_storm().profiles[0] | {"soul_md": OTHER_WORD}
    assert len(judged(profiles=[mixed]).mixtures) == 1
    assert len(judged(profiles=[a_storm().profiles[0] | {"soulprint_text": f"{WORD} "}]).mixtures) == 1


def test_a_version_that_nobody_announced_is_wrong() -> None:
    assert len(judged(profiles=[a_storm().profiles[0] | {"profile_version": 3}]).versions) == 1
    swapped = [an_event("memory-saved", 2), an_event("v2-completed", 1, soulprint_sha256=sha256_of(WORD))]
    assert len(judged(seen=swapped).versions) == 1


def test_a_call_that_was_made_again_with_no_kill_in_between_was_bought_needlessly() -> None:
    asks = [*a_storm().asks, Ask("a", WORD, 22.5), Ask("a", WORD, 22.6)]
    assert len(judged(asks=asks).bought_needlessly) == 1
    assert len(judged(runs=[a_storm().runs[0] | {"model_calls": 3}]).bought_needlessly) == 1


def test_a_run_that_waits_although_a_worker_has_room_is_slow() -> None:
    late = replace(TAKEN_OVER, since=23.5, until=24.0)
    lives = [Life(1.0, 20.0, [CUT_OFF]), Life(2.0, 30.0, [late])]
    assert len(judged(lives=lives).slow()) == 1
    slots = range(a_storm().plan.concurrency)
    full = [replace(CUT_OFF, run_id=f"other {number}", since=3.0, until=25.0, cut_off=False) for number in slots]
    assert judged(lives=[lives[0], Life(2.0, 30.0, [*full, late])]).slow() == []
