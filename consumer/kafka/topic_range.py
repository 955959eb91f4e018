"""Parts of the input topic, by partition and offset: what there is of it, and what a replay reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True)
class Extent:
    """What the topic has now, by partition: its first offset, the time of that record in ms, its end, and what intake has taken.

    `taken` is the committed offset of the consumer group, or the first offset where it has committed none.
    """

    begins: Mapping[int, int]
    oldest_ms: Mapping[int, int | None]
    ends: Mapping[int, int]
    taken: Mapping[int, int]

    @property
    def waiting(self) -> int:
        """Records that intake has still to take."""
        return sum(max(0, end - max(self.taken[part], self.begins[part])) for part, end in self.ends.items())

    @property
    def removed_unread(self) -> int:
        """Records that retention removed before intake took them, and which it has not yet noticed, either."""
        return sum(max(0, begin - self.taken[part]) for part, begin in self.begins.items())

    def why_not_back_to(self, since: datetime | None) -> str | None:
        """Why events from that time on are not all there any more; None when they are.

        An event is published after its quick pass has ended, so what was completed since lies behind the oldest record.
        """
        if not any(self.begins.values()):
            return None
        if since is None:
            return "the topic no longer holds its first events"
        missing = [
            self.oldest_ms[partition]
            for partition, begin in self.begins.items()
            if begin and not _is_before(self.oldest_ms[partition], since)
        ]
        if not missing:
            return None
        known = [moment for moment in missing if moment is not None]
        oldest = f"; its oldest event there is of {_as_text(max(known))}" if known else ""
        return f"the topic no longer reaches back to {since.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}{oldest}"


@dataclass(frozen=True, slots=True)
class TopicRange:
    """Offsets to read, by partition: from `begins` to before `ends`; from `taken` on they are intake's."""

    begins: Mapping[int, int]
    ends: Mapping[int, int]
    taken: Mapping[int, int]

    @property
    def records(self) -> int:
        """At most so many."""
        return sum(max(0, end - self.begins[partition]) for partition, end in self.ends.items())

    def document(self) -> dict[str, dict[str, int]]:
        """As JSON."""
        return {
            name: {str(partition): offset for partition, offset in sorted(getattr(self, name).items())}
            for name in ("begins", "ends", "taken")
        }


def range_of(document: Mapping[str, Mapping[str, int]]) -> TopicRange:
    """What `TopicRange.document` made, read back."""
    return TopicRange(**{name: {int(part): at for part, at in document[name].items()} for name in ("begins", "ends", "taken")})


def _is_before(moment_ms: int | None, since: datetime) -> bool:
    return moment_ms is not None and moment_ms <= since.timestamp() * 1000


def _as_text(moment_ms: int) -> str:
    return f"{datetime.fromtimestamp(moment_ms / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"
