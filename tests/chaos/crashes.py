"""Many crash points at once: each in a world of its own, on shared servers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tests.chaos.crash import Crash, crash
from tests.chaos.killer import Point
from tests.chaos.servers import MakeWorld
from tests.chaos.stories import Story

AT_ONCE = 5
"""More than there are cores: a crash mostly waits, for a lease or for Kafka to miss the dead member of a group."""

Case = tuple[Story, Point | None]


@contextmanager
def crashes(make_world: MakeWorld, folder: Path, cases: Sequence[Case]) -> Iterator[dict[Case, Future[Crash]]]:
    """Begin them all; each future gives its crash, or raises what went wrong with it."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {case: pool.submit(_one(make_world, folder / str(number), *case)) for number, case in enumerate(cases)}


def _one(make_world: MakeWorld, folder: Path, story: Story, point: Point | None) -> Callable[[], Crash]:
    def run() -> Crash:
        world = make_world(folder)
        try:
            return crash(world, story, point)
        finally:
            world.close()

    return run
