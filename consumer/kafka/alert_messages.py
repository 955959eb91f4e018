"""What the webhook is told: of one failure, or of the many that the limit held back (design, way of the data, 7)."""

from __future__ import annotations

import html
import json
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from aiokafka import TopicPartition

from schemas.events import V2Failed, to_utc_text

MOST_USERS_COUNTED = 10_000
"""So many users are told apart; then `users` stays there, and `users_capped` says so."""

MOST_RUN_IDS = 10
_MOST_STAGES = 20
_STAGE_CHARS = 40
_OTHER = "other"


def alert_body(failure: V2Failed) -> bytes:
    """`text` for people (Slack shows it) and `event`, the data of `v2-failed`."""
    kept = "its MEMORY is saved" if failure.memory_saved else "no MEMORY was saved"
    text = (
        f"Full pass failed: {failure.error_code} in stage {failure.stage} after {failure.attempts} attempt(s), {kept}. "
        f"{failure.error_detail} (user {failure.user_id}, run {failure.run_id})"
    )
    event: dict[str, Any] = failure.model_dump(mode="json")
    return _json({"text": _as_slack_reads(text), "event": event})


@dataclass
class Held:
    """Failures that wait for the next message, as counts of bounded size, and the offsets that this message will cover."""

    count: int = 0
    by_error_code: Counter[str] = field(default_factory=Counter)
    by_stage: Counter[str] = field(default_factory=Counter)
    offsets: dict[TopicPartition, int] = field(default_factory=dict)
    _first: V2Failed | None = None
    _last: V2Failed | None = None
    _users: set[UUID] = field(default_factory=set)
    _run_ids: list[str] = field(default_factory=list)

    def cover(self, offsets: dict[TopicPartition, int], failure: V2Failed | None) -> None:
        """Count a failure, if it is one, and let the message cover its place."""
        self.offsets.update(offsets)
        if failure is not None:
            self._add(failure)

    def _add(self, failure: V2Failed) -> None:
        self.count += 1
        self.by_error_code[failure.error_code.value] += 1
        stage = failure.stage[:_STAGE_CHARS]
        self.by_stage[stage if stage in self.by_stage or len(self.by_stage) < _MOST_STAGES else _OTHER] += 1
        self._first = min(self._first or failure, failure, key=_failed_at)
        self._last = max(self._last or failure, failure, key=_failed_at)
        if len(self._users) < MOST_USERS_COUNTED:
            self._users.add(failure.user_id)
        if len(self._run_ids) < MOST_RUN_IDS:
            self._run_ids.append(str(failure.run_id))

    def body(self) -> bytes:
        """The message: one failure alone as itself, more of them as `text` and `summary`, which hold no detail of any.

        Raises:
            ValueError: when nothing was counted.
        """
        if self._first is None or self._last is None:
            raise ValueError("expected at least one failure")
        if self.count == 1:
            return alert_body(self._first)
        first, last = to_utc_text(self._first.failed_at), to_utc_text(self._last.failed_at)
        users, capped = len(self._users), len(self._users) == MOST_USERS_COUNTED
        text = (
            f"Full pass: {self.count} more runs failed, of {'at least ' * capped}{users} user(s), from {first} to {last}. "
            f"By code: {_listed(self.by_error_code)}. By stage: {_listed(self.by_stage)}. "
            "'full-pass runs list --status failed' has them."
        )
        summary = {
            "count": self.count,
            "by_error_code": dict(self.by_error_code.most_common()),
            "by_stage": dict(self.by_stage.most_common()),
            "users": users,
            "users_capped": capped,
            "first_failed_at": first,
            "last_failed_at": last,
            "run_ids": self._run_ids,
        }
        return _json({"text": _as_slack_reads(text), "summary": summary})


def _failed_at(failure: V2Failed) -> datetime:
    return failure.failed_at


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.most_common())


def _as_slack_reads(text: str) -> str:
    """Text in which nothing mentions a channel or is a link: the three characters that Slack asks to have escaped are."""
    return html.escape(text, quote=False)


def _json(body: dict[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode()
