"""One whole example of each event, all of one run: as it would announce a good end, and as it would announce a bad one."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from schemas.events import (
    FULL_PASS_NAMESPACE,
    SECTION_NAMES,
    ErrorCode,
    Event,
    MemorySaved,
    QuickPassCompleted,
    Usage,
    V2Completed,
    V2Failed,
    event_id_of,
    run_id_of,
    to_utc_text,
)

COMPLETION = QuickPassCompleted(
    user_id=uuid.UUID("5f0c7b1e-8a55-4a6e-9d53-3d1b8f0f3a11"),
    storage_path="exports/5f0c7b1e/conversations.zip",
    completed_at=datetime(2026, 11, 24, 14, 1, 28, 403_901, tzinfo=UTC),
    conversation_count=112,
    message_count=1_204,
)
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
_RUN_ID = run_id_of(COMPLETION.user_id, COMPLETION.key(), 0)
_OF_THE_RUN: dict[str, Any] = {
    "user_id": COMPLETION.user_id, "idempotency_key": COMPLETION.key(), "generation": 0, "run_id": _RUN_ID
}  # fmt: skip

EXAMPLES: Mapping[type[Event], Event] = {
    QuickPassCompleted: COMPLETION,
    MemorySaved: MemorySaved(
        **_OF_THE_RUN,
        profile_version=1,
        memory_sha256="32f13f119c9a214da86cf3035ff7a68b2d71985c96f9dc1c878cc88682bbf9ed",
        memory_chars=12_874,
        fact_count=196,
        coverage=1.0,
        saved_at=datetime(2026, 11, 24, 14, 2, 34, 141_381, tzinfo=UTC),
    ),
    V2Completed: V2Completed(
        **_OF_THE_RUN,
        profile_version=2,
        soulprint_sha256="94f716eec162d96f20e7dbe3bc662c7af7cee4b0a5a5e8b7fb3b3584cf3069e6",
        sections=list(SECTION_NAMES),
        conversations_sampled=108,
        model="claude-haiku-4-5-20251001",
        usage=Usage(model_calls=38, input_tokens=157_085, output_tokens=8_785, cost_usd=0.20101),
        completed_at=datetime(2026, 11, 24, 14, 2, 34, 615_806, tzinfo=UTC),
    ),
    V2Failed: V2Failed(
        **_OF_THE_RUN,
        profile_version=1,
        error_code=ErrorCode.MODEL_OUTPUT_INVALID,
        error_detail="no valid sections in 2 answers",
        stage="sections",
        attempts=1,
        memory_saved=True,
        failed_at=datetime(2026, 11, 24, 14, 2, 35, 120_011, tzinfo=UTC),
    ),
}
_TIMES = {"memory-saved": "saved_at", "v2-completed": "completed_at", "v2-failed": "failed_at"}


def example_headers(event: Event) -> dict[str, str]:
    """The Kafka headers that such an event travels with."""
    source, occurred_at = "/full-pass", to_utc_text(getattr(event, _TIMES.get(event.event_type, "completed_at")))
    event_id = event_id_of(_RUN_ID, event.event_type)
    if isinstance(event, QuickPassCompleted):
        source = "/chat/quick-pass"
        event_id = uuid.uuid5(FULL_PASS_NAMESPACE, f"{event.user_id}\n{event.key()}\n{event.event_type}")
    return {
        "ce_specversion": "1.0",
        "ce_id": str(event_id),
        "ce_source": source,
        "ce_type": event.event_type,
        "ce_subject": str(COMPLETION.user_id),
        "ce_time": occurred_at,
        "ce_dataschema": event.schema_id(),
        "content-type": "application/json",
        "traceparent": TRACEPARENT,
    }
