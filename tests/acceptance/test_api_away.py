"""The model API is away for a while, in every way that it can be: nobody is lost, and its return is no stampede."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest

from schemas.events import run_id_of
from tests.acceptance.exports import a_small_export
from tests.acceptance.worker import Worker, until
from tests.acceptance.world import TRACE, User, World

USERS = 6
CALLS_OF_A_RUN = 5
CONCURRENCY = 12
# Nothing may be counted against a run: one failure would end it.
UNFORGIVING = {
    "FULL_PASS_MAX_FAILURES": "1",
    "FULL_PASS_RUN_CONCURRENCY": str(USERS),
    "FULL_PASS_MODEL_CONCURRENCY": str(CONCURRENCY),
    "FULL_PASS_MODEL_TIMEOUT_SECONDS": "1",
    "FULL_PASS_FACTS_TOKENS_PER_CALL": "1",
}
OUTAGES: dict[str, tuple[dict[str, Any], str]] = {
    "overloaded": ({"kind": "status", "status": 529}, "529"),
    "limited": ({"kind": "status", "status": 429}, "429"),
    "silent": ({"kind": "hang"}, "did not answer within 1 s"),
    "garbage with status 200": ({"kind": "garbage"}, "something else than expected"),
    "a key revoked": ({"kind": "status", "status": 401}, "ANTHROPIC_API_KEY"),
    "an account run empty": ({"kind": "credit"}, "no credit left"),
}


def always(fault: dict[str, Any], skip: int = 0, **match: str) -> dict[str, Any]:
    return {"match": match, "times": None, "skip": skip, "fault": fault}


def some_users(world: World, word: str, count: int = USERS) -> list[User]:
    users = [world.a_user(a_small_export(f"{word}{number}")) for number in range(count)]
    for user in users:
        world.publish(user)
    return users


def all_ended(world: World, users: list[User]) -> list[dict[str, Any]]:
    """The runs of the users, each with its end."""
    return [world.until_ended(user, seconds=60) for user in users]


def refused(world: World, after: int) -> list[dict[str, Any]]:
    """The requests that met a fault since then."""
    return [each for each in world.asked() if each["number"] > after and each["outcome"]["fault"] not in (None, "latency")]


def newest(world: World) -> int:
    return max((each["number"] for each in world.asked()), default=0)


@pytest.fixture(scope="module")
def patient(own_world: World) -> Worker:
    """The worker of this module's world."""
    own_world.settings |= UNFORGIVING
    return own_world.worker().ready()


@pytest.mark.parametrize("outage", OUTAGES)
def test_an_outage_in_the_middle_of_many_runs_costs_none_a_failure_and_its_end_is_no_stampede(
    own_world: World, patient: Worker, outage: str
) -> None:
    """Calls begin again with the one that showed that it is over; each success after it allows one more at once."""
    fault, reason = OUTAGES[outage]
    own_world.clear_script()
    patient.ready()
    began = newest(own_world)
    some_facts = always(fault, skip=USERS, kind="facts")
    own_world.script(some_facts, always(fault, kind="memory"), always(fault, kind="sections"))
    users = some_users(own_world, outage.rsplit(maxsplit=1)[-1])
    assert reason in until(patient.reasons, what="the worker was not ready")["model"]
    until(lambda: len(refused(own_world, began)) >= 3, what="the API had refused")
    shut_at = newest(own_world)
    until(lambda: len(refused(own_world, shut_at)) >= 3, what="the worker had looked again, three times")
    runs = [run for user in users for run in own_world.runs(user)]
    assert [(run["failures"], run["error_code"], run["finished_at"]) for run in runs] == [(0, None, None)] * USERS
    assert sum(run["status"] == "running" for run in runs) <= 1  # the probe's; the others wait in the ledger
    assert len(refused(own_world, began)) <= CONCURRENCY + 2 * 3 + 4  # looking again is one call at a time

    over_at = newest(own_world)
    own_world.clear_script()
    own_world.script(always({"kind": "latency", "seconds": 0.3}))
    runs = all_ended(own_world, users)
    own_world.clear_script()
    assert [(run["status"], run["failures"], run["held_up_since"]) for run in runs] == [("completed", 0, None)] * USERS
    assert all(own_world.names_of(user) == ["memory-saved", "v2-completed"] for user in users)
    assert [run["model_calls"] for run in runs] == [CALLS_OF_A_RUN] * USERS
    patient.ready()
    assert_no_stampede([each for each in own_world.asked() if each["number"] > over_at])


def assert_no_stampede(calls: list[dict[str, Any]]) -> None:
    """At any call's beginning there are at most as many others under way as have succeeded since the outage."""
    spans = [(moment(call["at"]), moment(call["answered_at"])) for call in calls if call["outcome"]["fault"] == "latency"]
    assert len(spans) > CONCURRENCY
    for begun, _ in spans:
        under_way = sum(at < begun < answered for at, answered in spans)
        assert under_way <= sum(answered <= begun for _, answered in spans)
    assert max(sum(at <= begun < answered for at, answered in spans) for begun, _ in spans) > 2  # and it does get wider


def moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def test_a_backlog_of_days_that_meets_its_first_outages_loses_nobody(world: World) -> None:
    """Only outages count towards giving up, not the time that a run waited for its turn, before and between them."""
    patience_seconds = 3
    world.settings |= {
        **UNFORGIVING,
        "FULL_PASS_GIVE_UP_AFTER_SECONDS": str(patience_seconds),
        "FULL_PASS_RUN_CONCURRENCY": "2",
    }
    users = [world.a_user(a_small_export(f"backlog{number}")) for number in range(5)]
    for user in users:
        world.execute(
            "INSERT INTO full_pass_runs (run_id, user_id, idempotency_key, generation, priority, completed_at, event, "
            "traceparent, created_at, due_at) "
            "VALUES ($1, $2, $3, 0, 0, $4, $5, $6, now() - interval '5 days', now() - interval '5 days')",
            run_id_of(user.uuid, user.key, 0),
            user.uuid,
            user.key,
            datetime.fromisoformat(user.completed_at),
            json.dumps(user.event),
            f"00-{TRACE}-b7ad6b7169203331-01",
        )
    overloaded = {"match": {}, "times": 6, "fault": {"kind": "status", "status": 529}}
    slow = always({"kind": "latency", "seconds": 0.3})
    world.script(overloaded, {**overloaded, "skip": 10}, {**overloaded, "skip": 20}, slow)
    worker = world.worker().ready()
    began = datetime.now().astimezone()
    runs = all_ended(world, users)
    assert [(run["status"], run["failures"], run["error_code"]) for run in runs] == [("completed", 0, None)] * len(users)
    assert (max(run["finished_at"] for run in runs) - began).total_seconds() > patience_seconds
    assert len([line for line in worker.events("run_handed_back") if line["reason"] == "outage"]) >= 1
