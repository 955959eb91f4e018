"""Kafka records as a client hands them out, made by hand."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from consumer.kafka.messages import Headers

USER = uuid.UUID("8f14e45f-ceea-467f-9575-0a1b2c3d4e5f")
COMPLETED_AT = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)
RECORD_MS = int(COMPLETED_AT.timestamp() * 1000)


@dataclass
class HandMadeRecord:
    """What intake reads of a record."""

    value: bytes | None
    headers: Headers = field(default_factory=list)
    timestamp: int | None = RECORD_MS
    key: bytes | None = None
    topic: str = "quick-pass-completed"
    partition: int = 3
    offset: int = 41


def event_data(**changes: Any) -> dict[str, Any]:
    """The data of a valid completion event; a change to None leaves the field out."""
    data: dict[str, Any] = {
        "user_id": str(USER),
        "storage_path": "exports/ada.json",
        "completed_at": "2026-11-24T09:30:00Z",
        **changes,
    }
    return {name: value for name, value in data.items() if value is not None}


def bare(**changes: Any) -> HandMadeRecord:
    """A record as a console producer writes it."""
    return HandMadeRecord(json.dumps(event_data(**changes)).encode())
