"""The four events of the full pass (design, "The events").

CloudEvents attributes travel in Kafka headers; a model here is the JSON data in the record's value. Unknown fields of
an incoming event are ignored, so a publisher may add some; every field of an outgoing event is always present.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema

FULL_PASS_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:full-pass")
_NAMESPACE_BYTES = FULL_PASS_NAMESPACE.bytes
_UUID5_BITS = 5 << 76 | 0b10 << 62  # version and variant (RFC 9562)
_UUID5_MASK = ~(0xF << 76 | 0b11 << 62)
SECTION_NAMES = ("soul", "identity", "user", "agents", "tools")

_ISO_8601 = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}")
_ZONE_OF_HOURS = re.compile(r":\d{2}(?:[.,]\d+)?[+-]\d{2}$")  # as PostgreSQL writes them
# Neither PostgreSQL nor a header takes control characters; lone surrogates are no text to the validator at all.
_CONTROL = r"\x00-\x1f\x7f-\x9f"
# A segment is anything but empty, `.` and `..`, without `/` and backslash: nothing that a store could resolve to another place.
_SEGMENT = rf"(?:\.{{0,2}}[^./\\{_CONTROL}][^/\\{_CONTROL}]*|\.{{3}}[^/\\{_CONTROL}]*)"
_PLAIN_PATH = rf"^{_SEGMENT}(?:/{_SEGMENT})+$"
_LARGEST_EXACT_INTEGER = 2**53 - 1


class ErrorCode(StrEnum):
    """Why a run ended as `v2-failed`. Codes are stable: people search for them."""

    PROFILE_NOT_FOUND = "profile_not_found"
    EXPORT_NOT_FOUND = "export_not_found"
    EXPORT_UNREADABLE = "export_unreadable"
    EXPORT_EMPTY = "export_empty"
    EXPORT_TOO_LARGE = "export_too_large"
    EXPORT_UNAVAILABLE = "export_unavailable"
    MODEL_REJECTED = "model_rejected"
    MODEL_REFUSED = "model_refused"
    MODEL_OUTPUT_INVALID = "model_output_invalid"
    MODEL_UNAVAILABLE = "model_unavailable"
    COVERAGE_TOO_LOW = "coverage_too_low"
    BUDGET_EXCEEDED = "budget_exceeded"
    SUPERSEDED = "superseded"
    CANCELLED = "cancelled"
    INTERNAL = "internal"


def to_utc_text(moment: datetime) -> str:
    """The instant in UTC with microseconds and `Z`: how times stand in events and in the derived idempotency key."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")[: -len("+00:00")] + "Z"


def _only_iso_8601(value: Any) -> Any:
    """pydantic takes Unix seconds for a time too; a publisher that sends them made a mistake we must not guess at."""
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str) or not _ISO_8601.match(value):
        raise ValueError("expected an ISO 8601 time with a zone")
    return f"{value}:00" if _ZONE_OF_HOURS.search(value) else value


def _whole_number(value: Any) -> Any:
    """To JSON, and so to JSON Schema, 3.0 is the integer 3."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Instant = Annotated[
    AwareDatetime,
    BeforeValidator(_only_iso_8601),
    PlainSerializer(to_utc_text, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
StoragePath = Annotated[str, Field(strict=True, max_length=1024, pattern=_PLAIN_PATH)]
IdempotencyKey = Annotated[str, Field(strict=True, min_length=1, max_length=200, pattern=rf"^[^{_CONTROL}]*$")]
Count = Annotated[int, Field(strict=True, ge=0, le=_LARGEST_EXACT_INTEGER), BeforeValidator(_whole_number)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Event(BaseModel):
    """What the four events share: a name, which is topic and `ce_type`, and a version of its data."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    event_type: ClassVar[str]
    schema_version: ClassVar[int] = 1

    @classmethod
    def schema_id(cls) -> str:
        """The `$id` of the event's JSON Schema, sent as `ce_dataschema`."""
        return f"urn:full-pass:schemas:{cls.event_type}:{cls.schema_version}"


class QuickPassCompleted(Event):
    """A user's quick pass is done, and the chat export lies at `storage_path`. The only event that comes in."""

    event_type: ClassVar[str] = "quick-pass-completed"

    user_id: uuid.UUID = Field(description="The user. The record's key is not looked at; this field decides.")
    storage_path: StoragePath = Field(
        description="Where the export lies, as `bucket/key` in the export store.",
        examples=["exports/2026/11/ada.json"],
    )
    completed_at: Instant = Field(
        description="When the quick pass ended, with a time zone; the same instant in every publication of the event.",
        examples=["2026-11-24T09:30:00Z"],
    )
    idempotency_key: IdempotencyKey | None = Field(
        default=None, description="Runs happen once per user and key. Derived from the other three fields if absent."
    )
    conversation_count: Count | None = Field(default=None, description="Conversations in the export, for estimates.")
    message_count: Count | None = Field(default=None, description="Messages in the export, for estimates.")

    def key(self) -> str:
        """The idempotency key: the publisher's, or the SHA-256 of user, path and instant."""
        return self.idempotency_key or derived_idempotency_key(self.user_id, self.storage_path, self.completed_at)

    def known_fields(self) -> dict[str, str | int]:
        """The fields that are there, as they stand in JSON: `model_dump(mode="json", exclude_none=True)` in less time."""
        known: dict[str, str | int | None] = {
            "user_id": str(self.user_id),
            "storage_path": self.storage_path,
            "completed_at": to_utc_text(self.completed_at),
            "idempotency_key": self.idempotency_key,
            "conversation_count": self.conversation_count,
            "message_count": self.message_count,
        }
        return {name: value for name, value in known.items() if value is not None}


class _Outgoing(Event):
    user_id: uuid.UUID = Field(description="The user; also the record's key and `ce_subject`.")
    idempotency_key: str = Field(description="Of the completion event that this run answers.")
    generation: int = Field(ge=0, description="0 is live traffic; every replay and every retry has a number of its own.")
    run_id: uuid.UUID = Field(description="UUIDv5 of user, idempotency key and generation.")


class MemorySaved(_Outgoing):
    """The user's MEMORY is new. Changes `memory_md` only; `soulprint_text` follows with `v2-completed`."""

    event_type: ClassVar[str] = "memory-saved"

    profile_version: int = Field(ge=1, description="The version of the profile row that this event announces.")
    memory_sha256: Sha256 = Field(description="SHA-256 of `memory_md` in UTF-8.")
    memory_chars: int = Field(ge=0, description="Length of `memory_md` in characters.")
    fact_count: int = Field(ge=0, description="Facts after consolidation, before reduction.")
    coverage: float = Field(ge=0, le=1, description="Chunks that were answered ÷ chunks.")
    saved_at: Instant


class Usage(BaseModel):
    """What a run bought in all its attempts. Recorded answers count nothing."""

    model_config = ConfigDict(frozen=True)

    model_calls: int = Field(ge=0)
    input_tokens: int = Field(ge=0)
    output_tokens: int = Field(ge=0)
    cost_usd: float | None = Field(ge=0, description="`null` for a model without a known price.")


class V2Completed(_Outgoing):
    """All five sections and `soulprint_text` are new, and of one run."""

    event_type: ClassVar[str] = "v2-completed"

    profile_version: int = Field(ge=1, description="The version of the profile row that this event announces.")
    soulprint_sha256: Sha256 = Field(description="SHA-256 of `soulprint_text` in UTF-8.")
    sections: list[Literal["soul", "identity", "user", "agents", "tools"]] = Field(min_length=5, max_length=5)
    conversations_sampled: int = Field(ge=0, description="Conversations that the sections were made from.")
    model: str
    usage: Usage
    completed_at: Instant


class V2Failed(_Outgoing):
    """The run ended without new sections. What the user had before stays."""

    event_type: ClassVar[str] = "v2-failed"

    profile_version: int | None = Field(description="The version of the profile row as it is now; `null` without one.")
    error_code: ErrorCode
    error_detail: str = Field(max_length=500, description="What was expected and what came; never user content.")
    stage: str = Field(description="The stage that the run was in: starting, reading, facts, memory or sections.")
    attempts: int = Field(ge=0, description="How often the run was claimed.")
    memory_saved: bool = Field(description="Whether this run saved a MEMORY before it failed.")
    failed_at: Instant


EVENTS: tuple[type[Event], ...] = (QuickPassCompleted, MemorySaved, V2Completed, V2Failed)


def derived_idempotency_key(user_id: uuid.UUID | str, storage_path: str, completed_at: datetime | str) -> str:
    """SHA-256, in hex, of user (lower case), path and instant (UTC, microseconds, `Z`), joined by newlines.

    A text is taken as it is, so whoever has both as they stand in JSON need not make them again.
    """
    instant = completed_at if isinstance(completed_at, str) else to_utc_text(completed_at)
    return hashlib.sha256(f"{user_id}\n{storage_path}\n{instant}".encode()).hexdigest()


def run_id_of(user_id: uuid.UUID, idempotency_key: str, generation: int) -> uuid.UUID:
    """The run's id follows from what it is for, so a ledger that was restored announces the same ids again."""
    named = f"{user_id}\n{idempotency_key}\n{generation}".encode()
    # uuid.uuid5 by hand: intake makes one for every event of a replayed topic.
    digest = int.from_bytes(hashlib.sha1(_NAMESPACE_BYTES + named, usedforsecurity=False).digest()[:16], "big")
    return uuid.UUID(int=digest & _UUID5_MASK | _UUID5_BITS)


def event_id_of(run_id: uuid.UUID, event_type: str) -> uuid.UUID:
    """`ce_id`: UUIDv5 of run and type, so a repeated event has the same id and readers can drop it."""
    return uuid.uuid5(run_id, event_type)
