"""Outages, shutdown, and workers that start before everything is there."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sandbox.kafka import KafkaServer
from sandbox.postgres import PostgresServer
from sandbox.stand_in import StandInServer
from tests.acceptance.exports import a_small_export
from tests.acceptance.worker import until
from tests.acceptance.world import World


def answering(status: int, times: int | None, kind: str | None = None) -> dict[str, Any]:
    match = {} if kind is None else {"kind": kind}
    return {"match": match, "times": times, "fault": {"kind": "status", "status": status}}


def test_an_overloaded_api_holds_a_run_up_and_costs_it_no_failure(world: World) -> None:
    user = world.a_user(a_small_export("mosaics"))
    worker = world.worker().ready()
    world.script(answering(529, None))
    world.publish(user)
    reasons = until(worker.reasons, what="the worker was not ready")
    assert "529" in reasons["model"]
    assert (worker.metric("full_pass_pace_open"), worker.get("/health/live")[0]) == (0, 200)
    until(lambda: [run for run in world.runs(user) if run["attempt"] > 1], what="the run was tried again")
    (run,) = world.runs(user)
    assert (run["failures"], run["memory_saved_at"], run["error_code"]) == (0, None, None)

    world.clear_script()
    run = world.until_ended(user)
    assert (run["status"], run["failures"], run["model_calls"], run["held_up_since"]) == ("completed", 0, 3, None)
    assert world.names_of(user) == ["memory-saved", "v2-completed"]
    worker.ready()
    assert worker.metric("full_pass_pace_open") == 1


def test_a_refused_key_makes_the_worker_not_ready_and_runs_wait_for_it(world: World) -> None:
    user = world.a_user(a_small_export("lacquer"))
    worker = world.worker().ready()
    world.script(answering(401, None))
    world.publish(user)
    reasons = until(worker.reasons, what="the worker was not ready")
    assert "ANTHROPIC_API_KEY" in reasons["model"]
    assert "sk-test-never-printed" not in json.dumps(reasons)
    until(lambda: world.runs(user)[0]["attempt"] > 2, what="the run was tried again and again")
    (run,) = world.runs(user)
    assert (run["failures"], run["held_up_since"], run["error_code"]) == (0, None, None)

    world.clear_script()
    assert world.until_ended(user)["status"] == "completed"
    worker.ready()


@pytest.mark.guarantee("G10")
def test_sigterm_during_facts_hands_the_run_back_and_the_next_worker_completes_it(world: World) -> None:
    user = world.a_user(a_small_export("marquetry"))
    world.settings["FULL_PASS_FACTS_TOKENS_PER_CALL"] = "1"
    hanging = {"match": {"kind": "facts", "contains": "Why marquetry"}, "times": None, "fault": {"kind": "hang"}}
    world.script(hanging)
    worker = world.worker(FULL_PASS_SHUTDOWN_SECONDS="3").ready()
    world.publish(user)
    world.until_stage(user, "facts")
    until(lambda: len(world.asked("marquetry", "facts")) == 3, what="all facts were asked for")
    assert worker.stop(seconds=6) == 0
    (run,) = world.runs(user)
    assert (run["status"], run["attempt"], run["failures"], run["lease_until"]) == ("pending", 1, 0, None)
    assert worker.events("run_handed_back")[0]["reason"] == "shutdown"
    assert worker.said()[-1]["event"] == "worker_stopped"

    world.clear_script()
    with world.worker():
        run = world.until_ended(user)
    assert (run["status"], run["attempt"], run["failures"], run["model_calls"]) == ("completed", 2, 0, 5)
    assert [each["completed"] for each in world.asked("marquetry", "facts")].count(True) == 3


def test_sigterm_lets_a_run_finish_that_is_nearly_done(world: World) -> None:
    user = world.a_user(a_small_export("bookbinding"))
    slow = {"match": {"kind": "sections"}, "times": 1, "fault": {"kind": "latency", "seconds": 1.5}}
    world.script(slow)
    worker = world.worker().ready()
    world.publish(user)
    until(lambda: world.asked("bookbinding", "sections"), what="the sections were asked for")
    assert worker.stop() == 0
    (run,) = world.runs(user)
    assert (run["status"], run["attempt"]) == ("completed", 1)
    assert world.names_of(user) == ["memory-saved", "v2-completed"]


def test_a_worker_without_topics_and_tables_lives_says_what_is_missing_and_recovers(
    kafka: KafkaServer, stand_in_server: StandInServer, database_url: str, topic_prefix: str, tmp_path: Any
) -> None:
    (tmp_path / "store").mkdir()
    world = World(kafka.bootstrap_servers, database_url, stand_in_server.url, topic_prefix, tmp_path)
    worker = world.worker()
    try:
        wanted = {"full-pass topics create", "full-pass db upgrade"}
        until(lambda: wanted == {each for each in wanted if each in json.dumps(worker.reasons())}, what="it named both commands")
        assert worker.get("/health/live") == (200, '{"live": true}')

        assert world.run("db", "upgrade", "--json").json == {"revision": "full_pass_0002"}
        until(lambda: "db upgrade" not in json.dumps(worker.reasons()), what="it had found the tables")
        assert worker.reasons() != {}
        made = world.run("topics", "create", "--partitions", "3", "--json").json
        assert sorted(made["created"]) == sorted(topic_prefix + name for name in TOPICS)
        assert made["existing"] == []
        worker.ready()
        assert worker.alive

        user = world.a_user(a_small_export("origami"))
        world.publish(user)
        assert world.until_ended(user)["status"] == "completed"
        assert world.names_of(user) == ["memory-saved", "v2-completed"]
    finally:
        world.close()


TOPICS = ("quick-pass-completed", "quick-pass-completed-dead-letters", "memory-saved", "v2-completed", "v2-failed")


def test_a_worker_outlives_postgresql_and_the_run_goes_on(world: World, own_postgres: PostgresServer, migrated: str) -> None:
    """PostgreSQL is killed under a run and comes back: the run costs no failure, and nothing is told twice."""
    world.database_url = own_postgres.url()
    assert world.run("db", "upgrade").status == 0
    user = world.a_user(a_small_export("calligraphy"))
    world.script({"match": {"kind": "memory"}, "times": 1, "fault": {"kind": "latency", "seconds": 2}})
    worker = world.worker().ready()
    world.publish(user)
    until(lambda: world.asked("calligraphy", "memory"), what="MEMORY was asked for")
    own_postgres.kill()
    assert "DATABASE_URL" in str(until(worker.reasons, what="the worker was not ready"))
    own_postgres.start()
    world.reconnect()
    run = world.until_ended(user)
    assert (run["status"], run["failures"]) == ("completed", 0)
    assert world.names_of(user) == ["memory-saved", "v2-completed"]
    worker.ready()
