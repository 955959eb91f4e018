"""Kafka and PostgreSQL killed, full, read-only or closed to us: a worker lives on, says so, and catches up by itself."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from sandbox.kafka import KafkaServer
from sandbox.postgres import PostgresServer
from sandbox.stand_in import StandInServer
from tests.acceptance.exports import a_small_export
from tests.acceptance.worker import until
from tests.acceptance.world import World
from tests.network import measured

NOTICED_SECONDS = RECOVERED_SECONDS = 2.0
SLOW: dict[str, Any] = {"kind": "latency", "seconds": 1.5}
EVENTS = ["memory-saved", "v2-completed"]


def seconds_until(condition: Callable[[], object], what: str) -> float:
    began = time.monotonic()
    until(condition, what=what)
    return time.monotonic() - began


@pytest.fixture
def alone(
    kafka: KafkaServer, own_postgres: PostgresServer, stand_in_server: StandInServer, topic_prefix: str, tmp_path: Path
) -> Iterator[World]:
    """A world whose PostgreSQL is the test's own."""
    (tmp_path / "store").mkdir()
    own_postgres.create_database("world")
    world = World(kafka.bootstrap_servers, own_postgres.url("world"), stand_in_server.url, topic_prefix, tmp_path)
    assert world.run("db", "upgrade").status == 0
    world.create_topics()
    yield world
    world.close()


@pytest.mark.chaos
def test_servers_killed_under_a_run_one_after_the_other_and_both(
    alone: World, own_kafka: KafkaServer, own_postgres: PostgresServer
) -> None:
    """The run costs no failure, its events come once, and the worker never exits."""
    world = alone
    world.bootstrap_servers = own_kafka.bootstrap_servers
    world.create_topics()
    world.script({"match": {"kind": "memory"}, "times": None, "fault": SLOW})
    worker = world.worker().ready()
    rounds: dict[str, list[KafkaServer | PostgresServer]] = {
        "kafka": [own_kafka], "database": [own_postgres], "both": [own_kafka, own_postgres]
    }  # fmt: skip
    users = []
    for name, servers in rounds.items():
        user = world.a_user(a_small_export(f"{name}craft"))
        users.append(user)
        world.publish(user)
        until(lambda name=name: world.asked(f"{name}craft", "memory"), what="MEMORY was asked for")  # type: ignore[misc]
        for server in servers:
            server.kill()
        parts = {"kafka", "database"} if name == "both" else {name}
        noticed = seconds_until(lambda parts=parts: parts <= set(worker.reasons()), f"it said that {name} is away")  # type: ignore[misc]
        for server in servers:
            server.start()
        recovered = seconds_until(lambda: not worker.reasons(), "it was ready again")
        measured(f"{name} killed: not ready after {noticed:.2f} s, ready {recovered:.2f} s after the servers answered")
        assert noticed < NOTICED_SECONDS
        assert recovered < RECOVERED_SECONDS + 3 * ("kafka" in parts)
        world.reconnect()
        run = world.until_ended(user)
        assert (run["status"], run["failures"]) == ("completed", 0)
    assert [world.names_of(user) for user in users] == [EVENTS] * 3
    assert worker.alive


@pytest.mark.guarantee("G10")
@pytest.mark.chaos
def test_a_postgresql_restarted_every_few_seconds_costs_no_run_more_than_a_step(
    alone: World, own_postgres: PostgresServer
) -> None:
    """No run comes near `FULL_PASS_MAX_FAILURES`, although each is in somebody's hands at every restart."""
    world = alone
    world.script({"match": {}, "times": None, "fault": {"kind": "latency", "seconds": 0.3}})
    world.settings["FULL_PASS_RUN_CONCURRENCY"] = "3"
    users = [world.a_user(a_small_export(f"craft{number}")) for number in range(12)]
    workers = [world.worker().ready() for _ in range(2)]
    world.produce([(user.id.encode(), json.dumps(user.event).encode(), []) for user in users])
    for _ in range(4):
        until(lambda: sum(len(worker.events("run_claimed")) for worker in workers) > 2, what="runs were under way")
        own_postgres.kill()
        own_postgres.start()
        time.sleep(1)  # the load: what gets done between two restarts
    world.reconnect()
    for user in users:
        run = world.until_ended(user, seconds=60)
        assert (run["status"], run["profile_version"]) == ("completed", 2)
    claims = [line for worker in workers for line in worker.events("run_claimed")]
    measured(f"{len(users)} runs over 4 restarts: {len(claims)} claims, most failures {max(each['failures'] for each in claims)}")
    assert max(each["failures"] for each in claims) <= 1
    assert sorted(world.names_of(user) for user in users) == [EVENTS] * len(users)
    assert all(worker.alive for worker in workers)


FULL = """
CREATE FUNCTION no_space() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$;
CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON full_pass_runs FOR EACH STATEMENT EXECUTE FUNCTION no_space()
"""


REFUSALS = (
    (FULL, "DROP FUNCTION no_space CASCADE", "has no disk space left"),
    ("ALTER SYSTEM SET default_transaction_read_only = on", "ALTER SYSTEM RESET default_transaction_read_only", "is read-only"),
    ("REVOKE ALL ON full_pass_runs FROM worker", "GRANT ALL ON full_pass_runs TO worker", "let this role do what is needed"),
    ("ALTER ROLE worker PASSWORD 'new'", "ALTER ROLE worker PASSWORD 'old'", "refuses the user or the password"),
)
WORKER_ROLE = """
CREATE ROLE worker LOGIN BYPASSRLS PASSWORD 'old';
GRANT ALL ON ALL TABLES IN SCHEMA public TO worker; GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO worker;
ALTER ROLE postgres SET default_transaction_read_only = off
"""


def test_a_postgresql_that_refuses_us_for_a_while_costs_no_run_anything(alone: World, own_postgres: PostgresServer) -> None:
    """A full disk, a standby, a role without its rights, another password: each in the middle of a run."""
    world = alone

    def do(statements: str) -> None:
        for statement in (statements, "SELECT pg_reload_conf()"):
            own_postgres.run_sql(statement, "world")
        if "PASSWORD" in statements:
            own_postgres.run_sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'worker'", "world")

    do(WORKER_ROLE)
    world.script({"match": {"kind": "memory"}, "times": None, "fault": SLOW})
    worker = world.worker(DATABASE_URL=f"postgresql://worker:old@127.0.0.1:{own_postgres.port}/world").ready()
    for number, (breaking, mending, words) in enumerate(REFUSALS):
        user = world.a_user(a_small_export(f"craft{number}"))
        world.publish(user)
        until(lambda number=number: world.asked(f"craft{number}", "memory"), what="MEMORY was asked for")  # type: ignore[misc]
        do(breaking)
        noticed = seconds_until(lambda words=words: words in str(worker.reasons()), f"it said that PostgreSQL {words}")  # type: ignore[misc]
        if words == "is read-only":  # known without a write, for parts that write seldom
            until(lambda: "read-only" in worker.reasons().get("database", ""), what="readiness knew it of PostgreSQL itself")
        do(mending)
        recovered = seconds_until(lambda: not worker.reasons(), "it was ready again")
        measured(f"PostgreSQL {words}: not ready after {noticed:.2f} s, ready {recovered:.2f} s after it was mended")
        assert noticed < NOTICED_SECONDS + 1
        assert recovered < RECOVERED_SECONDS + 1
        run = world.until_ended(user)
        assert (run["status"], run["failures"], world.names_of(user)) == ("completed", 0, EVENTS)
    assert worker.alive


def test_topics_that_are_deleted_under_way_are_missed_at_once_and_used_when_they_are_back(world: World) -> None:
    worker = world.worker().ready()
    before = world.a_user(a_small_export("archery"))
    world.publish(before)
    world.until_ended(before)
    names = [world.prefix + name for name in ("memory-saved", "v2-completed")]
    asyncio.run(_delete(world.bootstrap_servers, names))
    noticed = seconds_until(lambda: "topics create" in str(worker.reasons()), "it missed the topics")
    user = world.a_user(a_small_export("fencing"))
    world.publish(user)
    until(lambda: world.runs(user) and world.runs(user)[0]["status"] == "completed", what="the run had ended")
    assert world.run("topics", "create", "--partitions", "2").status == 0
    recovered = seconds_until(lambda: not worker.reasons(), "it was ready again")
    measured(f"topics deleted: not ready after {noticed:.2f} s, ready {recovered:.2f} s after they were made")
    assert noticed < NOTICED_SECONDS
    assert world.until_ended(user)["failures"] == 0
    assert world.names_of(user) == EVENTS
    assert worker.alive


async def _delete(bootstrap_servers: str, names: list[str]) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    await admin.start()
    try:
        await admin.delete_topics(names)
    finally:
        await admin.close()
