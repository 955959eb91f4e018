"""CloudEvents on Kafka, in and out (design, "The events").

Binary input is read here: the SDK's reader takes ten times as long as everything else, and a replay reads a whole topic.
Structured input and all output go through the SDK.
"""

from __future__ import annotations

import json
import os
import re
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol, cast

import msgspec
from cloudevents.core.bindings.kafka import to_binary
from cloudevents.core.exceptions import BaseCloudEventException
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from pydantic import ValidationError

from consumer.errors import InvalidMessage, InvalidReason
from consumer.kafka.storage_paths import AllowedPaths
from consumer.postgres.outbox import OutboxRow
from consumer.postgres.runs import NewRun
from schemas.events import EVENTS, FULL_PASS_NAMESPACE, QuickPassCompleted, derived_idempotency_key

SOURCE = "/full-pass"
A_DAY_MS = 24 * 3600 * 1000
_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
_NEVER = datetime.min.replace(tzinfo=UTC)
_SCHEMA_IDS = {event.event_type: event.schema_id() for event in EVENTS}
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})(-.*)?")
_USUAL = frozenset(
    "ce_specversion ce_id ce_source ce_type ce_subject ce_time ce_dataschema ce_datacontenttype content-type traceparent".split()
)
_MOST_DIGITS = 4000  # Python refuses to read more than 4,300 digits as an int

Headers = Sequence[tuple[str, bytes | None]]


class Record(Protocol):
    """What we read of a Kafka record; the client itself is untyped."""

    topic: str
    partition: int
    offset: int
    timestamp: int | None  # milliseconds; -1 or nothing at all where a record has no time
    key: bytes | None
    value: bytes | None
    headers: Headers


@dataclass(frozen=True, slots=True)
class Message:
    """A record to be sent."""

    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


def to_new_run(record: Record, paths: AllowedPaths) -> NewRun:
    """The run that a completion event asks for.

    Raises:
        InvalidMessage: when no run can be made of it; the detail names the field and what was expected, never what it held.
    """
    if record.value is None:
        raise InvalidMessage(InvalidReason.NO_VALUE, "expected a JSON value, the record has none")
    headers = _named(record.headers)
    if headers.get("content-type", b"").lower().startswith(b"application/cloudevents"):
        attributes, data = _structured(record.value, headers["content-type"])
        _require_type(attributes.get("ce_type"))
        event = _event(data)
    else:
        attributes = headers
        _require_type(attributes.get("ce_type"))
        event = _event_of(record.value)
    completed_at = _instant(event, record.timestamp)
    if not paths.allow(event.storage_path, event.user_id):
        raise InvalidMessage(
            InvalidReason.STORAGE_PATH_NOT_ALLOWED, "storage_path: expected one that FULL_PASS_STORAGE_PATH_PATTERN allows"
        )
    known = event.known_fields()
    return NewRun(
        user_id=event.user_id,
        idempotency_key=event.idempotency_key
        or derived_idempotency_key(str(known["user_id"]), event.storage_path, str(known["completed_at"])),
        completed_at=completed_at,
        event=msgspec.json.encode(known).decode(),
        traceparent=continued_trace(headers.get("traceparent"), attributes.get("ce_traceparent")),
    )


def _parsed(value: bytes) -> dict[str, Any]:
    """The value as a JSON object; what stands in fields that nobody reads (NaN, surrogates, huge numbers) does no harm."""
    try:
        data = _loaded(value)
    except RecursionError:
        raise InvalidMessage(InvalidReason.NOT_JSON, "expected JSON that is not nested this deeply") from None
    except UnicodeDecodeError:
        raise InvalidMessage(InvalidReason.NOT_JSON, "expected JSON in UTF-8") from None
    except json.JSONDecodeError as error:
        raise InvalidMessage(InvalidReason.NOT_JSON, f"expected JSON, stopped at character {error.pos}") from None
    if not isinstance(data, dict):
        raise InvalidMessage(InvalidReason.NOT_AN_OBJECT, "expected a JSON object")
    return data


def _loaded(value: bytes) -> Any:
    try:
        return json.loads(value)
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise
    except ValueError:  # an integer longer than Python likes to read; our own fields refuse infinity
        return json.loads(value, parse_int=lambda digits: int(digits) if len(digits) < _MOST_DIGITS else float("inf"))


def _structured(value: bytes, content_type: bytes) -> tuple[Mapping[str, bytes], Any]:
    """Attributes under the names that they have as headers, and the data, of CloudEvents' structured mode."""
    if content_type.split(b";")[0].strip().lower() != b"application/cloudevents+json":
        raise InvalidMessage(
            InvalidReason.WRONG_CONTENT_TYPE, "content-type: expected application/json or application/cloudevents+json"
        )
    envelope = _parsed(value)
    try:
        event = JSONFormat().read(None, json.dumps(envelope))
    except (BaseCloudEventException, ValueError, TypeError, AttributeError, RecursionError):
        raise InvalidMessage(InvalidReason.NOT_A_CLOUDEVENT, "expected the attributes of CloudEvents 1.0") from None
    data = event.get_data()
    if isinstance(data, bytes):
        data = _parsed(data)
    named = {
        f"ce_{name}": text.encode(errors="replace") for name, text in event.get_attributes().items() if isinstance(text, str)
    }
    return named, data


def _named(headers: Headers) -> Mapping[str, bytes]:
    """Headers by their names in lower case; where one stands twice the last counts."""
    named = dict(headers)
    if named.keys() <= _USUAL and None not in named.values():
        return cast("dict[str, bytes]", named)
    return {name.lower(): value for name, value in headers if value is not None}


def _require_type(event_type: bytes | None) -> None:
    """Without a `ce_type` it is a bare JSON value, taken at its word."""
    expected = QuickPassCompleted.event_type.encode()
    if event_type is not None and event_type != expected and not event_type.endswith(b"." + expected):
        raise InvalidMessage(InvalidReason.WRONG_TYPE, f"ce_type: expected {QuickPassCompleted.event_type}")


def _event_of(value: bytes) -> QuickPassCompleted:
    """The event in a JSON value, parsed and validated in one go; what that refuses is looked at by the tolerant parser."""
    try:
        return QuickPassCompleted.model_validate_json(value)
    except ValidationError:
        return _event(_parsed(value))


def _event(data: Any) -> QuickPassCompleted:
    if not isinstance(data, dict):
        raise InvalidMessage(InvalidReason.NOT_AN_OBJECT, "expected a JSON object as data")
    try:
        return QuickPassCompleted.model_validate(data)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise _invalid(str(problem["loc"][0]), problem["type"], problem["msg"]) from None


def _invalid(field: str, kind: str, expected: str) -> InvalidMessage:
    if kind == "missing":
        return InvalidMessage(InvalidReason.MISSING_FIELD, f"{field}: expected, but absent")
    reason = InvalidReason.STORAGE_PATH_INVALID if field == "storage_path" else InvalidReason.INVALID_FIELD
    known = _EXPECTED.get(field)
    return InvalidMessage(reason, f"{field}: {known or expected}")


# Our own words, since a validator's may quote a character of what it choked on.
_EXPECTED = {
    "user_id": "expected a UUID",
    "storage_path": "expected bucket/key of at most 1,024 characters, without empty, '.' or '..' segments, leading '/',"
    " backslash, control characters or lone surrogates",
    "completed_at": "expected an ISO 8601 time with a zone",
    "idempotency_key": "expected 1 to 200 characters without control characters or lone surrogates",
    "conversation_count": "expected a whole number, 0 or more",
    "message_count": "expected a whole number, 0 or more",
}


def _instant(event: QuickPassCompleted, record_ms: int | None) -> datetime:
    try:
        completed_at = event.completed_at.astimezone(UTC)
    except OverflowError:
        completed_at = _NEVER
    if completed_at < _EARLIEST:  # nothing ended then, and days can't be taken off the first of all times
        raise InvalidMessage(InvalidReason.INVALID_FIELD, "completed_at: expected a time between the years 1970 and 9999 in UTC")
    now_ms = int(time.time() * 1000)
    if record_ms is None or not 0 <= record_ms <= now_ms + A_DAY_MS:  # producers set it as they like, or not at all
        record_ms = now_ms
    if completed_at.timestamp() * 1000 > record_ms + A_DAY_MS:
        raise InvalidMessage(
            InvalidReason.COMPLETED_AT_IN_FUTURE, "completed_at: expected at most a day after the record's own time"
        )
    return completed_at


def continued_trace(*candidates: bytes | None) -> str:
    """A W3C `traceparent` with the trace id of the first candidate that is one, and a span of our own; else a new trace.

    Whether a trace is sampled is its sender's choice; a new one is, where tracing is on.
    """
    for candidate in candidates:
        found = _TRACEPARENT.fullmatch(candidate.decode("ascii", "replace").strip()) if candidate else None
        if found is not None:
            return f"00-{found[1]}-{os.urandom(8).hex()}-{int(found[2], 16) & 1:02x}"
    fresh = os.urandom(24).hex()
    return f"00-{fresh[:32]}-{fresh[32:]}-01"


def to_message(row: OutboxRow) -> Message:
    """An outbox row as the record that readers get."""
    return _message(row.event_id, row.event_type, row.user_id, row.occurred_at, row.data, row.traceparent)


def to_completion_message(event: QuickPassCompleted, traceparent: str) -> Message:
    """A completion event as the record that intake reads; the same event always has the same id."""
    data = event.model_dump_json(exclude_none=True)
    event_id = uuid.uuid5(FULL_PASS_NAMESPACE, f"{event.user_id}\n{event.key()}\n{event.event_type}")
    return _message(event_id, event.event_type, event.user_id, datetime.now(UTC), data, traceparent)


def _message(
    event_id: uuid.UUID, event_type: str, user_id: uuid.UUID, occurred_at: datetime, data: str, traceparent: str
) -> Message:  # fmt: skip
    event = CloudEvent(
        {
            "specversion": "1.0",
            "id": str(event_id),
            "source": SOURCE,
            "type": event_type,
            "subject": str(user_id),
            "time": occurred_at.astimezone(UTC),
            "dataschema": _SCHEMA_IDS[event_type],
            "datacontenttype": "application/json",
        },
        data.encode(),
    )
    message = to_binary(event, JSONFormat(), key_mapper=lambda _event: str(user_id))
    headers = [*message.headers.items(), ("traceparent", traceparent.encode())]
    return Message(str(user_id).encode(), message.value, headers)
