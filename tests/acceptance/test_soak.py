"""`make soak` in small: that the figures can be had and every run is told once, not yet that they are flat."""

from __future__ import annotations

import pytest

from tests.acceptance.world import World
from tests.soak.samples import Sample
from tests.soak.soaking import odd_events, soak

RUNS = 60


@pytest.mark.guarantee("G10")
def test_many_short_runs_leave_nothing_open_and_are_each_told_once(world: World) -> None:
    lines: list[str] = []
    samples = soak(world, RUNS, 0.5, lines.append)
    last = samples[-1]
    assert (last.runs, last.due, last.unpublished) == (RUNS, 0, 0)
    assert odd_events(world, RUNS) == []
    assert lines[0] == Sample.HEADINGS
    assert len(lines) == len(samples)
    assert last.longest_transaction_seconds < 2
    assert 0 < last.connections <= 20
    assert 0 < last.tasks < 100
