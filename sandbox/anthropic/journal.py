"""The record of every request, so that tests can ask what was bought."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

_HEADERS = ("anthropic-version", "anthropic-beta", "user-agent", "x-stainless-retry-count")


@dataclass(slots=True)
class Entry:
    """One request. `completed`: the whole answer went out to a client that was still there; of a credential only its presence.

    `answered_at` is the moment before the answer went out, None while there is none.
    """

    number: int
    method: str
    path: str
    headers: dict[str, str | bool]
    kind: str = "other"
    at: str = field(default_factory=lambda: datetime.now(UTC).isoformat())
    answered_at: str | None = None
    request_id: str = ""
    body: Any = None
    status: int | None = None
    fault: str | None = None
    completed: bool = False
    input_tokens: int = 0
    output_tokens: int = 0
    batch_id: str | None = None
    custom_id: str | None = None

    def to_json(self, with_body: bool = True) -> dict[str, Any]:
        """The entry as the control interface shows it."""
        return {
            "number": self.number,
            "at": self.at,
            "answered_at": self.answered_at,
            "method": self.method,
            "path": self.path,
            "kind": self.kind,
            "request_id": self.request_id,
            "headers": self.headers,
            "body": self.body if with_body else None,
            "outcome": {"status": self.status, "fault": self.fault},
            "completed": self.completed,
            "usage": {"input_tokens": self.input_tokens, "output_tokens": self.output_tokens},
            "batch_id": self.batch_id,
            "custom_id": self.custom_id,
        }


class Journal:
    """The requests in order. With `keep`, only so many of the newest stay; the counts go on over all of them."""

    def __init__(self, keep: int | None = None) -> None:
        self._entries: deque[Entry] = deque(maxlen=keep)
        self._dropped: dict[str, Counts] = {}
        self._number = 0

    def begin(self, method: str, path: str, headers: Mapping[str, str]) -> Entry:
        """Note a request that has just arrived."""
        self._number += 1
        shown: dict[str, str | bool] = {name: headers[name] for name in _HEADERS if name in headers}
        shown["authorization"] = "Authorization" in headers
        shown["x-api-key"] = "x-api-key" in headers
        entry = Entry(self._number, method, path, shown)
        if len(self._entries) == self._entries.maxlen and self._entries:
            oldest = self._entries[0]
            self._dropped.setdefault(oldest.kind, Counts()).add(oldest)
        self._entries.append(entry)
        return entry

    def clear(self) -> None:
        """Forget every request; the numbers go on."""
        self._entries.clear()
        self._dropped.clear()

    def to_json(self, kind: str | None = None, after: int = 0, with_body: bool = True) -> list[dict[str, Any]]:
        """The requests in order, of one kind, with a number above `after`."""
        return [entry.to_json(with_body) for entry in self._entries if entry.number > after and kind in (None, entry.kind)]

    def summary(self) -> dict[str, Any]:
        """Counts by kind and outcome, and the tokens of all answers."""
        kinds = {kind: counts.copy() for kind, counts in self._dropped.items()}
        for entry in self._entries:
            kinds.setdefault(entry.kind, Counts()).add(entry)
        return {
            "requests": sum(counts.requests for counts in kinds.values()),
            "completed": sum(counts.completed for counts in kinds.values()),
            "input_tokens": sum(counts.input_tokens for counts in kinds.values()),
            "output_tokens": sum(counts.output_tokens for counts in kinds.values()),
            "kinds": {kind: counts.to_json() for kind, counts in sorted(kinds.items())},
        }


@dataclass(slots=True)
class Counts:
    """Sums over requests of one kind. An outcome is the status, and the fault if there was one; `open` has no answer yet."""

    requests: int = 0
    completed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)

    def add(self, entry: Entry) -> None:
        """Count one request in."""
        self.requests += 1
        self.completed += entry.completed
        self.input_tokens += entry.input_tokens
        self.output_tokens += entry.output_tokens
        outcome = " ".join(str(part) for part in (entry.status, entry.fault) if part is not None) or "open"
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1

    def copy(self) -> Counts:
        """The same sums, free to be added to."""
        return Counts(self.requests, self.completed, self.input_tokens, self.output_tokens, dict(self.outcomes))

    def to_json(self) -> dict[str, Any]:
        """The sums as JSON."""
        return {
            "requests": self.requests,
            "completed": self.completed,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "outcomes": dict(sorted(self.outcomes.items())),
        }
