"""What workers' logs say about who held which run when, and the kills that fell into it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tests.acceptance.worker import Worker

_LETS_GO = frozenset({"run_completed", "run_failed", "run_handed_back", "lease_lost", "run_stopped"})
SUSPECT_FAILURES = 2
"""From so many failures on a run is held alone: its worker takes no other run that has one."""


@dataclass(frozen=True)
class Hold:
    """A run in a worker's hands, from its claim to its last word about it. Times are seconds since the epoch."""

    run_id: str
    attempt: int
    failures: int
    since: float
    until: float
    stage: str
    cut_off: bool
    """Whether the worker was killed with it."""


@dataclass(frozen=True)
class Life:
    """A worker from its start to its death, which has come when its log is read."""

    ready_at: float
    died_at: float
    holds: list[Hold]

    def has_room(self, at: float, concurrency: int) -> bool:
        """Whether it would have claimed a run whose lease had just run out."""
        held = [hold for hold in self.holds if hold.since <= at < hold.until]
        alone = any(hold.failures >= SUSPECT_FAILURES for hold in held)
        return self.ready_at <= at < self.died_at and len(held) < concurrency and not alone


def life_of(worker: Worker, died_at: float) -> Life:
    """What a worker did until then."""
    lines = worker.said()
    started = (seconds(line) for line in lines if line["event"] == "worker_started")
    return Life(next(started, died_at), died_at, list(_holds(lines, died_at)))


def _holds(lines: Sequence[dict[str, Any]], died_at: float) -> Iterator[Hold]:
    for number, line in enumerate(lines):
        if line["event"] != "run_claimed":
            continue
        stage, until, cut_off = "claimed", died_at, True
        for later in _of_run(lines[number + 1 :], line["run_id"]):
            if later["event"] == "stage_started":
                stage = later["stage"]
            elif later["event"] in _LETS_GO:
                until, cut_off = seconds(later), False
                break
        yield Hold(line["run_id"], line["attempt"], line["failures"], seconds(line), until, stage, cut_off)


def _of_run(lines: Iterable[dict[str, Any]], run_id: str) -> Iterator[dict[str, Any]]:
    return (line for line in lines if line.get("run_id") == run_id)


def seconds(line: dict[str, Any]) -> float:
    """When a line was said."""
    return datetime.fromisoformat(line["at"]).timestamp()


@dataclass(frozen=True)
class Recovery:
    """A run that was cut off by a kill, and how long it took until another worker had it."""

    run_id: str
    stage: str
    killed_at: float
    seconds: float
    had_room: bool
    """Whether another worker that lived on had room for it when its lease was over."""


def recoveries(lives: Sequence[Life], lease_seconds: float, concurrency: int) -> list[Recovery]:
    """For each run that was cut off and taken over, how that went."""
    claims: dict[tuple[str, int], float] = {(hold.run_id, hold.attempt): hold.since for life in lives for hold in life.holds}
    found = []
    for life in lives:
        for hold in life.holds:
            again_at = claims.get((hold.run_id, hold.attempt + 1))
            if not hold.cut_off or again_at is None:
                continue
            just_before = again_at - 0.001
            moments = (min(life.died_at + lease_seconds, just_before), just_before)
            room = any(all(other.has_room(at, concurrency) for at in moments) for other in lives if other is not life)
            found.append(Recovery(hold.run_id, hold.stage, life.died_at, again_at - life.died_at, room))
    return found
