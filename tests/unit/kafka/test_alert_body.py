"""What a webhook is told."""

from __future__ import annotations

import hashlib
import hmac
import json
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from aiokafka import TopicPartition

from consumer.kafka.alert_messages import MOST_USERS_COUNTED, Held, alert_body
from consumer.kafka.webhook import signature
from schemas.events import ErrorCode, V2Failed

FAILURE = V2Failed(
    user_id=uuid.UUID(int=1),
    idempotency_key="k",
    generation=0,
    run_id=uuid.UUID(int=2),
    profile_version=None,
    error_code=ErrorCode.EXPORT_EMPTY,
    error_detail="the export holds no conversation with a visible message",
    stage="reading",
    attempts=1,
    memory_saved=False,
    failed_at=datetime(2026, 11, 24, 9, 30, tzinfo=UTC),
)


def test_an_alert_is_a_line_for_people_and_the_event_for_programs() -> None:
    body = json.loads(alert_body(FAILURE))
    assert body["event"] == json.loads(FAILURE.model_dump_json())
    assert set(body) == {"text", "event"}
    for part in ("export_empty", "reading", "no conversation", str(FAILURE.user_id), str(FAILURE.run_id)):
        assert part in body["text"]


def test_nobody_on_slack_is_called_by_what_a_failure_says() -> None:
    said = "a stage called <!channel> & <https://example.com|more>"
    body = json.loads(alert_body(FAILURE.model_copy(update={"error_detail": said})))
    assert "a stage called &lt;!channel&gt; &amp; &lt;https://example.com|more&gt;" in body["text"]
    assert body["event"]["error_detail"] == said


def test_the_signature_is_of_the_body_as_it_is_sent() -> None:
    body = alert_body(FAILURE)
    expected = hmac.new("sécret".encode(), body, hashlib.sha256).hexdigest()
    assert signature(body, "sécret") == f"sha256={expected}"


def held(*failures: V2Failed) -> Held:
    """What is held back after these failures, which lie one behind the other."""
    waiting = Held()
    for offset, failure in enumerate(failures):
        waiting.cover({TopicPartition("v2-failed", 0): offset + 1}, failure)
    return waiting


def a_failure(number: int, **changes: object) -> V2Failed:
    named = {"user_id": uuid.UUID(int=number), "run_id": uuid.UUID(int=number + 10**9), **changes}
    return FAILURE.model_copy(update={"failed_at": FAILURE.failed_at + timedelta(seconds=number), **named})


def test_a_summary_adds_up_and_holds_no_detail() -> None:
    """A detail is of one run; of two hundred it is noise, and a reader of the channel can't do anything with it."""
    codes = [ErrorCode.EXPORT_EMPTY, ErrorCode.INTERNAL, ErrorCode.INTERNAL]
    failures = [
        a_failure(number % 90, error_code=codes[number % 3], stage=("reading", "facts")[number % 2]) for number in range(120)
    ]
    waiting = held(*reversed(failures))
    body = json.loads(waiting.body())
    assert set(body) == {"text", "summary"}
    assert body["summary"] == {
        "count": 120,
        "by_error_code": {"internal": 80, "export_empty": 40},
        "by_stage": {"reading": 60, "facts": 60},
        "users": 90,
        "users_capped": False,
        "first_failed_at": "2026-11-24T09:30:00.000000Z",
        "last_failed_at": "2026-11-24T09:31:29.000000Z",
        "run_ids": [str(failure.run_id) for failure in failures[:-11:-1]],
    }
    for part in ("120", "90 user", "internal 80", "export_empty 40", "facts 60", "09:30:00", "09:31:29"):
        assert part in body["text"]
    assert FAILURE.error_detail not in waiting.body().decode()
    assert waiting.offsets == {TopicPartition("v2-failed", 0): 120}


def test_one_failure_that_was_held_back_alone_is_told_as_itself() -> None:
    assert held(FAILURE).body() == alert_body(FAILURE)


def test_what_nobody_has_to_know_is_covered_and_not_counted() -> None:
    waiting = held(FAILURE)
    waiting.cover({TopicPartition("v2-failed", 0): 7}, None)
    assert (waiting.count, waiting.offsets) == (1, {TopicPartition("v2-failed", 0): 7})


def test_what_is_held_back_has_a_bound_whatever_comes() -> None:
    """A topic that anybody can write to must not fill a worker's memory with users and stages."""
    waiting = held(*(a_failure(number, stage=f"{number}".ljust(999)) for number in range(MOST_USERS_COUNTED + 5)))
    summary = json.loads(waiting.body())["summary"]
    assert summary["count"] == MOST_USERS_COUNTED + 5
    assert (summary["users"], summary["users_capped"]) == (MOST_USERS_COUNTED, True)
    assert f"at least {MOST_USERS_COUNTED} user" in json.loads(waiting.body())["text"]
    assert len(summary["by_stage"]) == 21
    assert max(map(len, summary["by_stage"])) == 40
    assert sum(summary["by_stage"].values()) == summary["count"]


def test_nothing_is_no_message() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Held().body()
