"""What a webhook is told."""

from __future__ import annotations

import hashlib
import hmac
import json
import uuid
from datetime import UTC, datetime

from consumer.kafka.alerts import alert_body, signature
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


def test_the_signature_is_of_the_body_as_it_is_sent() -> None:
    body = alert_body(FAILURE)
    expected = hmac.new("sécret".encode(), body, hashlib.sha256).hexdigest()
    assert signature(body, "sécret") == f"sha256={expected}"
