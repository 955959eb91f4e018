"""Networks that go silent without an end, and lose what is on its way."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.acceptance.exports import a_small_export
from tests.acceptance.worker import until
from tests.acceptance.world import World
from tests.network import Link, Network, measured, port_of

LEASE_SECONDS = 2.0


def seconds_until(condition: Callable[[], object], what: str) -> float:
    began = time.monotonic()
    until(condition, what=what)
    return time.monotonic() - began


@pytest.mark.guarantee("G6")
def test_a_worker_whose_postgresql_falls_silent_says_so_is_followed_and_recovers(world: World) -> None:
    """After a failover its connections stay open and nobody answers on them, ever; only new ones are served."""
    user = world.a_user(a_small_export("archery"))
    world.script({"match": {"kind": "memory", "contains": "archery"}, "times": 1, "fault": {"kind": "hang"}})
    with Network(port_of(world.database_url)) as network:
        cut_off = world.worker(DATABASE_URL=network.leading_to(world.database_url), FULL_PASS_SHUTDOWN_SECONDS="4").ready()
        world.publish(user)
        until(lambda: world.asked("archery", "memory"), what="MEMORY was asked for")
        other = world.worker().ready()
        network.hold()
        noticed = seconds_until(lambda: "database" in cut_off.reasons(), "it said that PostgreSQL is silent")
        run = world.until_ended(user)
        assert (run["status"], run["attempt"]) == ("completed", 2)
        network.forget()
        recovered = seconds_until(lambda: not cut_off.reasons(), "it was ready again")
        measured(f"silent PostgreSQL: not ready after {noticed:.2f} s, ready {recovered:.2f} s after new connections were served")
        assert noticed < 2.5
        assert recovered < 8
        assert other.stop() == 0

        another = world.a_user(a_small_export("fencing"))
        world.publish(another)
        # It meets no connection that is silent. A statement that was in flight when the silence began is given up after 30 s.
        assert world.until_ended(another, seconds=45)["attempt"] == 1
        assert world.names_of(user) == world.names_of(another) == ["memory-saved", "v2-completed"]


def test_a_worker_whose_postgresql_is_silent_stops_in_time(world: World) -> None:
    user = world.a_user(a_small_export("archery"))
    world.script({"match": {"kind": "memory"}, "times": None, "fault": {"kind": "hang"}})
    with Network(port_of(world.database_url)) as network:
        worker = world.worker(DATABASE_URL=network.leading_to(world.database_url), FULL_PASS_SHUTDOWN_SECONDS="3").ready()
        world.publish(user)
        until(lambda: world.asked("archery", "memory"), what="MEMORY was asked for")
        network.hold()
        began = time.monotonic()
        assert worker.stop() == 0
        measured(f"stopped after {time.monotonic() - began:.2f} s of 3")
        assert time.monotonic() - began < 3 + 2


# What stands in no statement but one of that transaction.
COMMITS = {"memory": b'"memory_sha256"', "end": b'"soulprint_sha256"', "failure": b'"error_detail"'}


@pytest.mark.guarantee("G5")
@pytest.mark.parametrize("what", ["accepted", *COMMITS])
def test_a_commit_whose_answer_is_lost_is_neither_repeated_nor_forgotten(world: World, what: str) -> None:
    """The worker can't know whether it went through, and reads what the database says."""
    user = world.a_user([] if what == "failure" else a_small_export("archery"))
    words = COMMITS.get(what, user.path.encode())
    lost: list[Link] = []

    def watch(link: Link, piece: bytes) -> None:
        if words in piece and not lost:
            link.notes.add("saves")
        if "saves" in link.notes and b"COMMIT" in piece and not lost:
            lost.append(link)
            link.lose_the_answer()

    with Network(port_of(world.database_url), watch) as network:
        worker = world.worker(DATABASE_URL=network.leading_to(world.database_url)).ready()
        world.publish(user)
        run = world.until_ended(user)
        assert len(lost) == 1
        events = {"failure": ["v2-failed"]}.get(what, ["memory-saved", "v2-completed"])
        assert world.names_of(user) == events
        assert run["failures"] == 0
        assert run["attempt"] == (2 if what == "memory" else 1)
        if what != "failure":
            assert (run["model_calls"], run["profile_version"], world.profile(user)["profile_version"]) == (3, 2, 2)
            assert len(world.asked("archery")) == 3
        worker.ready()


@pytest.mark.chaos
def test_a_network_to_kafka_that_drops_for_a_while_loses_and_repeats_nothing(world: World) -> None:
    """Runs go on meanwhile; their events wait in the outbox."""
    silent_seconds = 6
    first, second = world.a_user(a_small_export("curling")), world.a_user(a_small_export("bobsleigh"))
    world.script({"match": {"kind": "memory"}, "times": 1, "fault": {"kind": "latency", "seconds": 1}})
    with Network(int(world.bootstrap_servers.rpartition(":")[2])) as network:
        worker = world.worker(KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{network.port}").ready()
        world.publish(first)
        until(lambda: world.asked("curling", "memory"), what="MEMORY was asked for")
        network.hold()
        began = time.monotonic()
        noticed = seconds_until(lambda: "kafka" in worker.reasons(), "it said that Kafka is silent")
        world.publish(second)
        until(lambda: world.runs(first)[0]["status"] == "completed", what="the run had ended without Kafka")
        until(lambda: time.monotonic() - began > silent_seconds, what="the time was over")
        assert world.rows("SELECT FROM full_pass_outbox WHERE published_at IS NULL")
        network.release()
        recovered = seconds_until(lambda: not worker.reasons(), "it was ready again")
        measured(f"silent Kafka: not ready after {noticed:.2f} s, ready {recovered:.2f} s after the network was back")
        assert noticed < 2.5
        for user in (first, second):
            run = world.until_ended(user)
            assert (run["status"], run["attempt"], run["failures"]) == ("completed", 1, 0)
            assert world.names_of(user) == ["memory-saved", "v2-completed"]
