"""What a worker and its database take at one moment, and whether that stays the same."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Sample:
    """One moment. Sizes in bytes; `own_bytes` are the tables `full_pass_*`, `chunk_bytes` the application's chunks."""

    seconds: float
    runs: int
    resident_bytes: int
    files: int
    tasks: int
    connections: int
    longest_transaction_seconds: float
    due: int
    unpublished: int
    answers: int
    own_bytes: int
    chunk_bytes: int

    HEADINGS: ClassVar[str] = (
        "seconds    runs  runs/s  RSS MB  files  tasks  connections  longest tx s  due  outbox  answers  tables MB  chunks MB"
    )

    def line(self, before: Sample) -> str:
        """The row under the headings."""
        return (
            f"{self.seconds:7.0f} {self.runs:7d} {self.speed(before):7.1f} {self.resident_bytes / MEGABYTE:7.1f} {self.files:6d}"
            f" {self.tasks:6d} {self.connections:12d} {self.longest_transaction_seconds:13.2f} {self.due:4d}"
            f" {self.unpublished:7d} {self.answers:8d} {self.own_bytes / MEGABYTE:10.1f} {self.chunk_bytes / MEGABYTE:10.1f}"
        )

    def speed(self, before: Sample) -> float:
        """Runs a second between two moments."""
        return (self.runs - before.runs) / max(self.seconds - before.seconds, 0.001)


@dataclass(frozen=True)
class Bound:
    """How far the median of the last quarter may lie above that of the second: by a share, and by so much besides."""

    of: str
    share: float
    besides: float

    def told(self, samples: Sequence[Sample]) -> tuple[str, bool]:
        """Both medians in words, and whether the later one is within the bound."""
        second, last = _quarters(samples)
        early, late = (statistics.median(getattr(each, self.of) for each in quarter) for quarter in (second, last))
        holds = late <= early * (1 + self.share) + self.besides
        return f"{self.of}: {early:,.0f} in the second quarter, {late:,.0f} in the last{'' if holds else ' — it grows'}", holds


BOUNDS = (
    Bound("resident_bytes", 0.03, 3 * MEGABYTE),
    Bound("files", 0, 4),
    Bound("tasks", 0.1, 10),
    Bound("connections", 0, 2),
    Bound("unpublished", 0, 200),
    Bound("answers", 0.25, 500),
)
LONGEST_TRANSACTION_SECONDS = 5.0
ROW_GROWTH = 1.3
SLOWER = 0.6


def judge(samples: Sequence[Sample]) -> tuple[list[str], bool]:
    """What to tell, and whether everything stayed flat. The first quarter is warming up, and counts for nothing.

    Raises:
        ValueError: with fewer than eight samples, which say nothing.
    """
    if len(samples) < 8:
        raise ValueError(f"{len(samples)} samples say nothing: more runs, or samples more often")
    found = [bound.told(samples) for bound in BOUNDS] + [_transactions(samples), _growth(samples), _speed(samples)]
    return [line for line, _ in found], all(holds for _, holds in found)


def _quarters(samples: Sequence[Sample]) -> tuple[Sequence[Sample], Sequence[Sample]]:
    quarter = len(samples) // 4
    return samples[quarter : 2 * quarter], samples[-quarter:]


def _transactions(samples: Sequence[Sample]) -> tuple[str, bool]:
    longest = max(each.longest_transaction_seconds for each in samples)
    return f"longest open transaction seen: {longest:.2f} s", longest < LONGEST_TRANSACTION_SECONDS


def _growth(samples: Sequence[Sample]) -> tuple[str, bool]:
    """The ledger keeps a row a run, so tables grow; but each run adds as much as the one before."""
    second, last = _quarters(samples)
    early, late = (
        (of[-1].own_bytes + of[-1].chunk_bytes - of[0].own_bytes - of[0].chunk_bytes) / max(of[-1].runs - of[0].runs, 1)
        for of in (second, last)
    )
    holds = late <= max(early, 2_000) * ROW_GROWTH
    return f"a run adds {early:,.0f} bytes to the tables in the second quarter, {late:,.0f} in the last", holds


def _speed(samples: Sequence[Sample]) -> tuple[str, bool]:
    second, last = _quarters(samples)
    early, late = second[-1].speed(second[0]), last[-1].speed(last[0])
    return f"{early:.1f} runs a second in the second quarter, {late:.1f} in the last", late >= early * SLOWER
