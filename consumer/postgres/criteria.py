"""What an operator asked a replay for, as it is kept in `full_pass_replays.selection`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from schemas.events import to_utc_text


@dataclass(frozen=True, slots=True)
class Criteria:
    """Which events to take. Times are of the events' `completed_at`: from `since` on, before `until`.

    Offsets go by partition, the last one is not taken; where there are any, only partitions that they name are read.
    `source` is None where it follows from the rest. The last four look at the latest run of a key that has ended.
    `per_minute` is how many runs become due in a minute; None: all at once.
    """

    source: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    from_offsets: Mapping[int, int] = field(default_factory=dict)
    to_offsets: Mapping[int, int] = field(default_factory=dict)
    user_ids: frozenset[UUID] = frozenset()
    all_events: bool = False
    per_minute: float | None = None
    only_failed: bool = False
    error_codes: tuple[str, ...] = ()
    older_than_model: str | None = None
    older_than_prompt: int | None = None

    @property
    def looks_at_runs(self) -> bool:
        """Whether a key's latest run decides."""
        return (
            self.only_failed or bool(self.error_codes) or self.older_than_model is not None or self.older_than_prompt is not None
        )

    def takes(self, user_id: UUID, completed_at: datetime) -> bool:
        """Whether an event of that user and time is wanted, as far as its run has no say in it."""
        return (
            (not self.user_ids or user_id in self.user_ids)
            and (self.since is None or completed_at >= self.since)
            and (self.until is None or completed_at < self.until)
        )

    def document(self) -> dict[str, Any]:
        """As JSON. Two equal documents ask for the same."""
        return {
            "source": self.source,
            "since": None if self.since is None else to_utc_text(self.since),
            "until": None if self.until is None else to_utc_text(self.until),
            "from_offsets": {str(partition): offset for partition, offset in sorted(self.from_offsets.items())},
            "to_offsets": {str(partition): offset for partition, offset in sorted(self.to_offsets.items())},
            "user_ids": sorted(str(user_id) for user_id in self.user_ids),
            "all_events": self.all_events,
            "per_minute": self.per_minute,
            "only_failed": self.only_failed,
            "error_codes": list(self.error_codes),
            "older_than_model": self.older_than_model,
            "older_than_prompt": self.older_than_prompt,
        }


def criteria_of(document: Mapping[str, Any]) -> Criteria:
    """What `Criteria.document` made, read back."""

    def moment(name: str) -> datetime | None:
        return datetime.fromisoformat(document[name]) if document[name] else None

    def offsets(name: str) -> dict[int, int]:
        return {int(partition): int(offset) for partition, offset in document[name].items()}

    return Criteria(
        source=document["source"],
        since=moment("since"),
        until=moment("until"),
        from_offsets=offsets("from_offsets"),
        to_offsets=offsets("to_offsets"),
        user_ids=frozenset(UUID(user_id) for user_id in document["user_ids"]),
        all_events=document["all_events"],
        per_minute=document["per_minute"],
        only_failed=document["only_failed"],
        error_codes=tuple(document["error_codes"]),
        older_than_model=document["older_than_model"],
        older_than_prompt=document["older_than_prompt"],
    )
