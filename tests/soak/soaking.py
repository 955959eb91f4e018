"""One soak: load, a worker, samples, and at the end the events of all runs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from tests.acceptance.topics import OUTPUTS
from tests.acceptance.world import World
from tests.soak.load import Load
from tests.soak.samples import Sample
from tests.soak.worker import WatchedWorker

PATIENCE_SECONDS = 60.0
RETENTION_SECONDS = 40.0  # so short that recorded answers expire while the soak lasts


class StoodStill(Exception):
    """No run has ended for a minute."""


def soak(world: World, runs: int, every_seconds: float, say: Callable[[str], None]) -> list[Sample]:
    """Carry so many short runs, and look at the worker every so often.

    Raises:
        StoodStill: no run has ended for a minute, or the worker has.
    """
    world.settings |= {"FULL_PASS_LOG_LEVEL": "INFO", "FULL_PASS_LEASE_SECONDS": "30", "FULL_PASS_POLL_SECONDS": "1"}
    world.settings["FULL_PASS_RETENTION_DAYS"] = str(RETENTION_SECONDS / 86_400)
    load = Load(world, runs)
    with WatchedWorker(world) as worker:
        load.keep_ahead_of(0)
        worker.ready()
        samples = [worker.sample()]
        say(Sample.HEADINGS)
        moved_at = time.monotonic()
        while samples[-1].runs < runs or samples[-1].unpublished:
            time.sleep(every_seconds)  # the distance between looks is what it is for
            samples.append(worker.sample())
            load.keep_ahead_of(samples[-1].runs)
            say(samples[-1].line(samples[-2]))
            if samples[-1].runs > samples[-2].runs:
                moved_at = time.monotonic()
            if not worker.alive or time.monotonic() - moved_at > PATIENCE_SECONDS:
                raise StoodStill(f"{samples[-1].runs} of {runs} runs; see {worker.log}")
        worker.stop()
    return samples


def odd_events(world: World, runs: int) -> list[str]:
    """What is wrong with the events that a `read_committed` reader sees; empty when each run has one of each."""
    seen = {name: Counter(each.data["run_id"] for each in world.read(name)) for name in OUTPUTS}
    expected = {"memory-saved": runs, "v2-completed": runs, "v2-failed": 0}
    missing = [
        f"{len(seen[name])} runs with {name}, expected {count}" for name, count in expected.items() if len(seen[name]) != count
    ]
    return missing + [f"{name} more than once for a run" for name, runs_of in seen.items() if set(runs_of.values()) - {1}]
