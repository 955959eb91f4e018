"""PostgreSQL is lost and restored from a backup that is an hour old, by the steps of the runbook."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import OffsetAndMetadata

from sandbox.postgres import PostgresServer, programs
from tests.acceptance.exports import a_small_export
from tests.acceptance.topics import INPUT, OUTPUTS
from tests.acceptance.worker import until
from tests.acceptance.world import User, World


@pytest.mark.guarantee("G1")
@pytest.mark.guarantee("G5")
def test_what_happened_after_the_backup_happens_again_under_the_same_ids_and_nobody_is_lost(
    world: World, own_postgres: PostgresServer, tmp_path: Path
) -> None:
    """Readers that know an event's id already may drop it; those that lost what it told of are told again."""
    own_postgres.create_database("full_pass")
    world.database_url = own_postgres.url("full_pass")
    assert world.run("db", "upgrade").status == 0
    before, newer, after, waiting = (world.a_user(a_small_export(word)) for word in ("before", "newer", "after", "waiting"))
    later = User(newer.id, newer.path, "2026-11-21T09:00:00.000000Z")
    worker = world.worker().ready()
    for user in (before, newer):
        world.publish(user)
        assert world.until_ended(user)["status"] == "completed"
    world.script({"match": {"contains": "waiting"}, "times": None, "fault": {"kind": "status", "status": 529}})
    world.publish(waiting)
    until(lambda: [run for run in world.runs(waiting) if run["attempt"]], what="a run was under way")

    backup = tmp_path / "backup"
    until(lambda: world.rows("SELECT count(*) = 0 AS none FROM full_pass_outbox WHERE published_at IS NULL")[0]["none"])
    known = set(told(world))
    backed_up_at_ms = int(time.time() * 1000)
    in_postgres("pg_dump", world.database_url, "--format=custom", f"--file={backup}")
    world.clear_script()
    world.publish(after)
    for user in (after, waiting):
        assert world.until_ended(user)["status"] == "completed"
    world.publish(later)
    assert world.until_ended(later, runs=2)["status"] == "completed"
    run_ids, announced = ids(world), told(world)
    assert set(announced.values()) == {1}

    assert worker.stop() == 0
    world.reconnect()
    own_postgres.drop_database("full_pass")
    own_postgres.create_database("full_pass")
    in_postgres("pg_restore", world.database_url, "--exit-on-error", f"--dbname={world.database_url}", str(backup))
    assert world.run("db", "upgrade").status == 0
    assert sorted(run["finished_at"] is None for run in world.rows("SELECT finished_at FROM full_pass_runs")) == [
        False,
        False,
        True,
    ]
    asyncio.run(set_back(world, backed_up_at_ms - 60_000))
    world.worker().ready()

    until(lambda: ids(world) == run_ids, what="every run was in the ledger again")
    for user, runs in ((before, 1), (after, 1), (waiting, 1), (later, 2)):
        assert world.until_ended(user, runs)["status"] == "completed"
    again = told(world)
    assert again.keys() == announced.keys()
    assert {event_id for event_id, count in again.items() if count == 1} == known
    assert max(again.values()) == 2
    assert world.profile(newer)["profile_version"] == 4


def ids(world: World) -> set[str]:
    """The ids of all runs."""
    return {str(run["run_id"]) for run in world.rows("SELECT run_id FROM full_pass_runs")}


def told(world: World) -> Counter[str]:
    """How often a `read_committed` reader sees each event's id."""
    return Counter(seen.headers["ce_id"].decode() for seen in world.read(*OUTPUTS))


def in_postgres(program: str, url: str, *arguments: str) -> None:
    """Run one of PostgreSQL's own programs."""
    folder = programs()
    assert folder is not None
    source = [] if program == "pg_restore" else [f"--dbname={url}"]
    subprocess.run([folder / program, *source, *arguments], env=os.environ, check=True)


async def set_back(world: World, at_ms: int) -> None:
    """What `kafka-consumer-groups.sh --reset-offsets --to-datetime … --execute` does."""
    topic, group = world.prefix + INPUT, f"{world.prefix}group"
    consumer = AIOKafkaConsumer(bootstrap_servers=world.bootstrap_servers, group_id=group, enable_auto_commit=False)
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, number) for number in range(2)]
        consumer.assign(partitions)
        found = await consumer.offsets_for_times(dict.fromkeys(partitions, at_ms))
        ends = await consumer.end_offsets(partitions)
        await consumer.commit(
            {each: OffsetAndMetadata(found[each].offset if found[each] else ends[each], "") for each in partitions}
        )
    finally:
        await consumer.stop()
