"""A run's story as people read it: its attempts, how long each stage took, and how each ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby, pairwise
from typing import Any

Entry = Mapping[str, Any]

_ENDS = frozenset({"handed_back", "completed", "failed"})


@dataclass(frozen=True, slots=True)
class StageTold:
    """A stage, and how long it took; None where it is not known: the attempt went silent in it."""

    stage: str
    began_at: datetime
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt. `ended` says how; None while it goes on. An attempt whose first lines are no longer told has no `began_at`."""

    attempt: int
    began_at: datetime | None
    ended_at: datetime | None
    seconds: float | None
    ended: str | None
    stages: tuple[StageTold, ...]


def attempts_of(story: Sequence[Entry], status: str, now: datetime) -> list[Attempt]:
    """The attempts that a story tells of, in order. What is running is measured up to now.

    `story` is the column of `full_pass_runs`, `status` that of the run.
    """
    told = [list(entries) for _, entries in groupby(story, key=lambda entry: entry["attempt"])]
    goes_on = status == "running"
    return [_attempt(entries, now if goes_on and entries is told[-1] else None) for entries in told]


def _attempt(entries: Sequence[Entry], now: datetime | None) -> Attempt:
    ends = [entry for entry in entries if entry["what"] in _ENDS]
    began_at = _at(entries[0]) if entries[0]["what"] == "claimed" else None
    ended_at = _at(ends[-1]) if ends else None
    until = _at(ends[0]) if ends else now
    return Attempt(
        attempt=entries[0]["attempt"],
        began_at=began_at,
        ended_at=ended_at,
        seconds=None if began_at is None or until is None else _seconds(began_at, until),
        ended=", then ".join(_how(entry) for entry in ends) or ("went silent" if now is None else None),
        stages=_stages(entries, now),
    )


def _stages(entries: Sequence[Entry], now: datetime | None) -> tuple[StageTold, ...]:
    followed = [*pairwise(entries), (entries[-1], None)]
    return tuple(
        StageTold(entry["what"], _at(entry), None if (until := _until(after, now)) is None else _seconds(_at(entry), until))
        for entry, after in followed
        if entry["what"] not in _ENDS | {"claimed"}
    )


def _until(after: Entry | None, now: datetime | None) -> datetime | None:
    return now if after is None else _at(after)


def _how(entry: Entry) -> str:
    what = str(entry["what"]).replace("_", " ")
    more = ", ".join(str(entry[name]) for name in ("reason", "code") if entry.get(name))
    return f"{what}: {more}" if more else what


def _at(entry: Entry) -> datetime:
    return datetime.fromisoformat(entry["at"])


def _seconds(since: datetime, until: datetime) -> float:
    return round(max(0.0, (until - since).total_seconds()), 3)
