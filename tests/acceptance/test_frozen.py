"""Workers that are stopped with SIGSTOP past their lease, wherever they are, and go on with SIGCONT."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.acceptance.exports import a_small_export
from tests.acceptance.worker import Worker, until
from tests.acceptance.world import User, World
from tests.network import Link, Network, measured, port_of

LEASE_SECONDS = 2.0
# Words of the last statement of a save, its event's: run and profile are locked then.
SAVES = {"memory": b'"memory_sha256"', "sections": b'"soulprint_sha256"'}
SENT: dict[str, Callable[[bytes], bytes]] = {
    "nothing of it": lambda _statement: b"",
    "half of it": lambda statement: statement[: len(statement) // 2],
    "all of it": lambda statement: statement,
}


class Freezer:
    """Stops the worker that first sends a statement of these words, when so much of that has left the machine."""

    def __init__(self, words: bytes, sent: Callable[[bytes], bytes]) -> None:
        self._words, self._sent = words, sent
        self.frozen: Worker | None = None
        self.happened = threading.Event()

    def for_worker(self, worker: Worker) -> Callable[[Link, bytes], bytes | None]:
        def watch(link: Link, piece: bytes) -> bytes | None:
            if self.frozen is not None or self._words not in piece:
                return None
            self.frozen = worker
            os.kill(worker.process.pid, signal.SIGSTOP)
            link.hold()
            self.happened.set()
            return self._sent(piece)

        return watch


@dataclass(frozen=True)
class Pair:
    """Two workers, each with a network of its own to PostgreSQL."""

    world: World
    networks: dict[Worker, Network]

    def ready(self) -> None:
        for worker in self.networks:
            worker.ready()

    def holder(self, user: User) -> Worker:
        """Who claimed the user's run."""

        def claimed() -> list[Worker]:
            return [each for each in self.networks if any(line["user_id"] == user.id for line in each.events("run_claimed"))]

        (holder, *_) = until(claimed, what="the run was claimed")
        assert isinstance(holder, Worker)
        return holder

    def wakes_and_writes_nothing(self, frozen: Worker, user: User, run: dict[str, Any]) -> None:
        """Let the old holder go on: it drops the run, which stays as the other left it."""
        profile = self.world.profile(user)
        self.networks[frozen].release()
        frozen.process.send_signal(signal.SIGCONT)
        until(lambda: [line for line in frozen.events("lease_lost") if line["user_id"] == user.id], what="it dropped the run")
        self.ready()
        assert self.world.runs(user) == [run]
        assert self.world.profile(user) == profile
        assert (run["status"], run["attempt"], run["profile_version"]) == ("completed", 2, 2)
        assert self.world.names_of(user) == ["memory-saved", "v2-completed"]
        assert not [line for line in frozen.events("run_completed") if line["user_id"] == user.id]


@pytest.fixture(scope="module")
def pair(own_world: World) -> Iterator[Pair]:
    world = own_world
    with Network(port_of(world.database_url)) as first, Network(port_of(world.database_url)) as second:
        networks = {world.worker(DATABASE_URL=each.leading_to(world.database_url)): each for each in (first, second)}
        pair = Pair(world, networks)
        pair.ready()
        yield pair
        for worker in networks:
            worker.kill()


@pytest.mark.guarantee("G6")
@pytest.mark.parametrize(("stage", "sent"), [("memory", "nothing of it"), ("memory", "half of it"), ("sections", "all of it")])
def test_a_worker_frozen_inside_a_save_gives_its_locks_back_and_writes_nothing_when_it_wakes(
    pair: Pair, stage: str, sent: str
) -> None:
    """Within the lease the application can write the profile, and another worker has the run."""
    freezer = Freezer(SAVES[stage], SENT[sent])
    for worker, network in pair.networks.items():
        network.watch = freezer.for_worker(worker)
    user = pair.world.a_user(a_small_export("origami"))
    pair.world.publish(user)
    assert freezer.happened.wait(30)
    began = time.monotonic()
    pair.world.execute("SET lock_timeout = '20 s'")
    pair.world.execute("UPDATE user_profiles SET full_pass_error = 'the application was here' WHERE user_id = $1", user.uuid)
    waited = time.monotonic() - began
    until(lambda: pair.world.runs(user)[0]["attempt"] == 2, what="another worker had the run")
    taken_over = time.monotonic() - began
    measured(f"frozen in {stage}, sent {sent}: locks free after {waited:.2f} s, taken over after {taken_over:.2f} s")
    assert waited < LEASE_SECONDS + 0.5
    assert taken_over < LEASE_SECONDS + 2
    run = pair.world.until_ended(user)
    assert freezer.frozen is not None
    pair.wakes_and_writes_nothing(freezer.frozen, user, run)


@pytest.mark.guarantee("G6")
def test_a_worker_frozen_while_it_waits_for_an_answer_is_followed_within_the_lease(pair: Pair) -> None:
    """Its call is answered while it sleeps; another worker buys that answer, and the run ends once."""
    user = pair.world.a_user(a_small_export("falconry"))
    pair.world.script({"match": {"kind": "memory", "contains": "falconry"}, "times": 1, "fault": {"kind": "hang"}})
    pair.world.publish(user)
    until(lambda: pair.world.asked("falconry", "memory"), what="MEMORY was asked for")
    frozen = pair.holder(user)
    frozen.process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    until(lambda: pair.world.runs(user)[0]["attempt"] == 2, what="another worker had the run")
    measured(f"frozen in a call: taken over after {time.monotonic() - began:.2f} s")
    assert time.monotonic() - began < LEASE_SECONDS + 2
    pair.wakes_and_writes_nothing(frozen, user, pair.world.until_ended(user))
