"""Workers that are told to stop, replaced one by one, and meet a schema that is newer than they are."""

from __future__ import annotations

import json
import signal
import time
from typing import Any

import pytest

from tests.acceptance.exports import a_small_export
from tests.acceptance.worker import Worker, until
from tests.acceptance.world import User, World
from tests.network import measured

LEASE_SECONDS = 4.0
STAGES = ("reading", "facts", "memory", "sections")
EVENTS = ["memory-saved", "v2-completed"]
HANG: dict[str, Any] = {"kind": "hang"}


def value_of(user: User) -> bytes:
    return json.dumps(user.event).encode()


@pytest.mark.guarantee("G10")
def test_sigterm_in_every_stage_hands_each_run_back_in_time_without_a_failure(world: World) -> None:
    """One run in each stage, and one that is being saved; the next worker completes them all, and buys little again."""
    users = {stage: world.a_user(a_small_export(f"{stage}craft")) for stage in STAGES}
    world.script(*({"match": {"kind": kind, "contains": f"{kind}craft"}, "times": None, "fault": HANG} for kind in STAGES[1:]))
    worker = world.worker(FULL_PASS_SHUTDOWN_SECONDS="3", FULL_PASS_LEASE_SECONDS="30").ready()
    for stage in STAGES[1:]:
        world.publish(users[stage])
        world.until_stage(users[stage], stage)
    until(lambda: all(world.asked(f"{stage}craft", stage) for stage in STAGES[1:]), what="a request of each hung")
    with world.holding("LOCK TABLE conversation_chunks IN ACCESS EXCLUSIVE MODE"):
        world.publish(users["reading"])
        world.until_stage(users["reading"], "reading")
        late = world.a_user(a_small_export("latecraft"))
        began = time.monotonic()
        assert worker.stop(seconds=10) == 0
    took = time.monotonic() - began
    measured(f"SIGTERM with a run in every stage: ended after {took:.2f} s of 3")
    assert took < 3 + 1
    for stage, user in users.items():
        (run,) = world.runs(user)
        assert (stage, run["status"], run["attempt"], run["failures"]) == (stage, "pending", 1, 0)
        assert (run["lease_until"], run["held_up_since"]) == (None, None)
    assert worker.said()[-1]["event"] == "worker_stopped"

    world.clear_script()
    world.publish(late)
    with world.worker():
        for user in (*users.values(), late):
            assert world.until_ended(user)["failures"] == 0
            assert world.names_of(user) == EVENTS


def test_a_second_signal_ends_a_worker_at_once(world: World) -> None:
    """Whoever can't wait loses nothing: the lease runs out, and the run goes on elsewhere."""
    user = world.a_user(a_small_export("archery"))
    world.script({"match": {"kind": "memory"}, "times": None, "fault": HANG})
    worker = world.worker(FULL_PASS_SHUTDOWN_SECONDS="60").ready()
    world.publish(user)
    until(lambda: world.asked("archery", "memory"), what="MEMORY was asked for")
    worker.process.send_signal(signal.SIGTERM)
    until(lambda: worker.events("stopping"), what="it had heard the first signal")
    began = time.monotonic()
    worker.process.send_signal(signal.SIGTERM)
    assert worker.process.wait(10) == 1
    assert time.monotonic() - began < 1
    world.clear_script()
    with world.worker():
        assert world.until_ended(user)["status"] == "completed"
    assert world.names_of(user) == EVENTS


@pytest.mark.chaos
def test_three_workers_are_replaced_one_by_one_under_load(world: World) -> None:
    """No run fails or ends twice, and between two ends there is never more than a lease."""
    world.script({"match": {}, "times": None, "fault": {"kind": "latency", "seconds": 0.2}})
    lease = {"FULL_PASS_LEASE_SECONDS": str(LEASE_SECONDS)}
    world.settings |= {"FULL_PASS_RUN_CONCURRENCY": "2", "FULL_PASS_SHUTDOWN_SECONDS": "5", **lease}
    workers = [world.worker().ready() for _ in range(3)]
    users: list[User] = []

    def load(number: int) -> None:
        more = [world.a_user(a_small_export(f"craft{len(users)}x{each}")) for each in range(number)]
        world.produce([(user.id.encode(), value_of(user), []) for user in more])
        users.extend(more)

    load(4)
    for old in workers:
        load(5)
        new = world.worker().ready()
        assert old.stop() == 0
        assert new.alive
    for user in users:
        run = world.until_ended(user)
        assert (run["status"], run["failures"], run["profile_version"]) == ("completed", 0, 2)
    assert [world.names_of(user) for user in users[::5]] == [EVENTS] * len(users[::5])
    ids = [seen.headers["ce_id"] for seen in world.read("memory-saved", "v2-completed", "v2-failed")]
    assert len(ids) == len(set(ids)) == 2 * len(users)
    measured(f"three workers replaced: {len(users)} runs, longest pause while any was due {longest_pause(world):.2f} s")
    assert longest_pause(world) < LEASE_SECONDS
    assert not [line for worker in world.workers for line in worker.said() if line["level"] == "error" and "room" in line]


def longest_pause(world: World) -> float:
    """The longest time between two ends while a run waited that had been due from the start of that time."""
    question = """
        WITH ends AS (SELECT finished_at AS ended, lead(finished_at) OVER (ORDER BY finished_at) AS next FROM full_pass_runs)
        SELECT coalesce(max(extract(epoch FROM next - ended)), 0)::float8 AS pause FROM ends
        WHERE EXISTS (SELECT FROM full_pass_runs WHERE created_at < ended AND finished_at > ended)
    """
    (row,) = world.rows(question)
    return float(row["pause"])


AHEAD = (
    "ALTER TABLE full_pass_runs ADD COLUMN added_later text NOT NULL DEFAULT 'x'",
    "ALTER TABLE full_pass_outbox ADD COLUMN added_later text",
    "ALTER TABLE full_pass_model_calls ADD COLUMN added_later bigint NOT NULL DEFAULT 0",
    "ALTER TABLE user_profiles ADD COLUMN added_later_md text",
    "CREATE TABLE full_pass_added_later (id bigint PRIMARY KEY)",
    "UPDATE full_pass_alembic_version SET version_num = 'full_pass_9999'",
)


def test_a_worker_goes_on_while_the_schema_is_migrated_ahead_of_it(world: World) -> None:
    """Expand, then contract: the migration comes first, under old workers with a run in hand; new ones follow."""
    user, later = world.a_user(a_small_export("archery")), world.a_user(a_small_export("fencing"))
    warm = world.a_user(a_small_export("curling"))
    world.script({"match": {"kind": "memory", "contains": "archery"}, "times": None, "fault": {"kind": "latency", "seconds": 1}})
    worker = world.worker().ready()
    world.publish(warm)
    world.until_ended(warm)  # its statements are prepared by now, against the old tables
    world.publish(user)
    until(lambda: world.asked("archery", "memory"), what="MEMORY was asked for")
    for statement in AHEAD:
        world.execute(statement)
    world.publish(later)
    for each in (user, later):
        run = world.until_ended(each)
        assert (run["status"], run["attempt"], run["failures"]) == ("completed", 1, 0)
        assert world.names_of(each) == EVENTS
    assert worker.reasons() == {}
    assert not worker.events("part_failed")
    restarted: Worker = world.worker().ready()  # also one of the old version that starts after the migration
    assert restarted.alive
