"""One of everything, however often an event comes and whoever is killed."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.acceptance.exports import a_small_export
from tests.acceptance.worker import Worker, until
from tests.acceptance.world import User, World

STAGES = ("reading", "facts", "memory", "sections")
HANG: dict[str, Any] = {"kind": "hang"}


def digest(request: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(request["body"], sort_keys=True).encode()).hexdigest()


def times_asked(world: World, word: str) -> Counter[str]:
    """How often each request was asked."""
    return Counter(digest(request) for request in world.asked(word))


@pytest.mark.guarantee("G2")
@pytest.mark.guarantee("G5")
def test_the_same_event_ten_times_over_two_workers_gives_one_of_everything(world: World) -> None:
    user = world.a_user(a_small_export("weaving"))
    first, second = world.worker(), world.worker()
    first.ready()
    second.ready()
    value = json.dumps(user.event).encode()
    world.produce([(key, value, []) for key in (None, *(str(number).encode() for number in range(9)))])

    run = world.until_ended(user)
    until(lambda: taken(first) + taken(second) == 10, what="both workers together had taken all ten messages")
    assert repeated(first) + repeated(second) == 9
    assert [row["status"] for row in world.runs(user)] == ["completed"]
    assert (run["attempt"], run["failures"], run["profile_version"]) == (1, 0, 2)
    assert world.names_of(user) == ["memory-saved", "v2-completed"]
    assert set(times_asked(world, "weaving").values()) == {1}
    assert world.profile(user)["profile_version"] == 2
    assert len(world.chunks(user)) == 3


def taken(worker: Worker) -> float:
    return worker.metric("full_pass_messages_taken_total") + repeated(worker)


def repeated(worker: Worker) -> float:
    return worker.metric("full_pass_messages_repeated_total")


@dataclass(frozen=True)
class Killed:
    """A world in which the worker was killed with a run in each stage, and one started anew has ended them all."""

    world: World
    users: dict[str, User]
    asked_before: dict[str, Counter[str]]
    answered_before: dict[str, int]


@pytest.fixture(scope="module")
def killed(own_world: World) -> Iterator[Killed]:
    """Four runs, each held in another stage; then SIGKILL; then another worker, with a model API that is well again."""
    world = own_world
    world.settings["FULL_PASS_FACTS_TOKENS_PER_CALL"] = "1"  # a request for each chunk
    users = {stage: world.a_user(a_small_export(f"{stage}craft")) for stage in STAGES}
    hold_last_facts = {"match": {"kind": "facts", "contains": "Why factscraft"}, "times": None, "fault": HANG}
    others = [{"match": {"kind": kind, "contains": f"{kind}craft"}, "times": None, "fault": HANG} for kind in STAGES[2:]]
    world.script(hold_last_facts, *others)
    with world.worker().ready():
        for stage in STAGES[1:]:
            world.publish(users[stage])
            world.until_stage(users[stage], stage)
        until(lambda: all(in_flight(world, stage) for stage in STAGES[1:]), what="a request of each hung")
        until(lambda: len(recorded(world, users["facts"])) == 2, what="the other facts were recorded")
        answered = {stage: len(recorded(world, users[stage])) for stage in STAGES}
        with world.holding("LOCK TABLE conversation_chunks IN ACCESS EXCLUSIVE MODE"):
            world.publish(users["reading"])
            world.until_stage(users["reading"], "reading")
            until(lambda: waits_for_lock(world), what="the chunks of the run waited to be saved")
            world.workers[0].kill()
    asked = {stage: times_asked(world, f"{stage}craft") for stage in STAGES}
    world.clear_script()
    with world.worker():
        for user in users.values():
            world.until_ended(user)
        yield Killed(world, users, asked, answered)


def in_flight(world: World, stage: str) -> bool:
    return any(not request["completed"] for request in world.asked(f"{stage}craft"))


def recorded(world: World, user: User) -> list[dict[str, Any]]:
    return world.rows("SELECT kind FROM full_pass_model_calls WHERE user_id = $1", user.uuid)


def waits_for_lock(world: World) -> bool:
    return bool(world.rows("SELECT FROM pg_locks WHERE NOT granted AND relation = 'conversation_chunks'::regclass"))


@pytest.mark.guarantee("G1")
@pytest.mark.guarantee("G5")
@pytest.mark.parametrize("stage", STAGES)
def test_a_worker_killed_in_a_stage_and_started_again_gives_one_of_everything(killed: Killed, stage: str) -> None:
    user = killed.users[stage]
    (run,) = killed.world.runs(user)
    assert (run["status"], run["attempt"], run["profile_version"]) == ("completed", 2, 2)
    assert killed.world.names_of(user) == ["memory-saved", "v2-completed"]
    assert killed.world.profile(user)["profile_version"] == 2
    assert len(killed.world.chunks(user)) == 3
    assert [each["chunk_index"] for each in killed.world.chunks(user)] == [0, 0, 0]


@pytest.mark.guarantee("G8")
@pytest.mark.parametrize("stage", STAGES)
def test_after_sigkill_only_the_model_calls_in_flight_are_bought_again(killed: Killed, stage: str) -> None:
    asked = killed.world.asked(f"{stage}craft")
    assert {kind: answers(asked, kind) for kind in ("facts", "memory", "sections")} == {"facts": 3, "memory": 1, "sections": 1}
    twice = [each for each, times in times_asked(killed.world, f"{stage}craft").items() if times > 1]
    assert len(twice) == (0 if stage == "reading" else 1)
    assert killed.answered_before[stage] == {"reading": 0, "facts": 2, "memory": 3, "sections": 4}[stage]
    (run,) = killed.world.runs(killed.users[stage])
    assert run["model_calls"] == 5


def answers(asked: list[dict[str, Any]], kind: str) -> int:
    """How many requests of a kind were answered to their end."""
    return sum(each["kind"] == kind and each["completed"] for each in asked)


@pytest.mark.guarantee("G3")
def test_a_memory_that_was_saved_before_the_kill_is_not_saved_again(killed: Killed) -> None:
    (run,) = killed.world.runs(killed.users["sections"])
    (memory, completed) = killed.world.announced(killed.users["sections"])
    assert memory.data["profile_version"] == 1
    assert run["memory_saved_at"].isoformat(timespec="microseconds").replace("+00:00", "Z") == memory.data["saved_at"]
    killed_at = killed.world.workers[0].said()[-1]["at"]
    assert memory.data["saved_at"] < killed_at < completed.data["completed_at"]
