"""Workers whose clocks jump: only PostgreSQL's clock decides."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.acceptance.exports import a_small_export
from tests.acceptance.worker import Worker, until
from tests.acceptance.world import World

# Kafka takes no record that comes from more than an hour ahead.
FORWARD, BACK = 50 * 60, -24 * 3600


@pytest.mark.guarantee("G6")
def test_clocks_that_jump_in_the_middle_of_a_run_cost_no_lease_and_move_no_time(world: World) -> None:
    """Of two workers one is suddenly ahead, one behind. No run is taken over, and no due time, lease or event is theirs."""
    workers = [jumping(world, name) for name in ("ahead", "behind")]
    for worker in workers:
        worker.ready()
    users = [world.a_user(a_small_export(word)) for word in ("archery", "fencing")]
    world.script({"match": {"kind": "memory"}, "times": 2, "fault": {"kind": "latency", "seconds": 3}})
    for user in users:
        world.publish(user)
        until(lambda user=user: world.runs(user) and world.runs(user)[0]["stage"] == "memory", what="MEMORY was asked for")  # type: ignore[misc]
    (world.folder / "ahead").write_text(str(FORWARD))
    (world.folder / "behind").write_text(str(BACK))
    later = world.a_user(a_small_export("curling"))
    world.publish(later)

    for each in (*users, later):
        run = world.until_ended(each)
        assert (run["status"], run["attempt"], run["failures"]) == ("completed", 1, 0)
        times = [run[name] for name in ("due_at", "started_at", "memory_saved_at", "finished_at")]
        times += [
            datetime.fromisoformat(seen.data.get("saved_at") or seen.data["completed_at"]) for seen in world.announced(each)
        ]
        assert len(times) == 6
        (now,) = world.rows("SELECT clock_timestamp() AS now")
        assert all(timedelta(seconds=-1) < now["now"] - time < timedelta(minutes=2) for time in times)
    assert max(map(spread, workers)) > FORWARD / 2  # a clock did jump, by its worker's own log


def jumping(world: World, name: str) -> Worker:
    """A worker whose clock jumps when there is a file of that name."""
    path = str(Path(__file__).with_name("shifted_clock"))
    return world.worker(PYTHONPATH=path, FULL_PASS_TEST_CLOCK=str(world.folder / name))


def spread(worker: Worker) -> float:
    """Seconds between the earliest and the latest line of its log."""
    moments = [datetime.fromisoformat(line["at"]) for line in worker.said()]
    return (max(moments) - min(moments)).total_seconds()
