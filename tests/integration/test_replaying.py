"""What a replay reads of the topic: how far it reaches back, which offsets, and what it does with odd records."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from consumer.commands.replay_work import Frozen, taking, where_from
from consumer.errors import CommandError, ConfigurationError
from consumer.kafka.topic_range import Extent, range_of
from consumer.postgres.claiming import REPLAY_PRIORITY
from consumer.postgres.criteria import Criteria
from consumer.postgres.replays import Replays, fill
from sandbox.kafka import KafkaServer
from schemas.events import QuickPassCompleted, run_id_of
from tests.integration.kafka_environment import Environment, an_environment
from tests.integration.raw_batches import Raw, a_batch, send_batches
from tests.integration.test_kafka_trouble import expire

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
A_DAY = timedelta(days=1)


def value(number: int, day: int = 0) -> bytes:
    event = {"user_id": str(UUID(int=number)), "storage_path": "exports/a.json", "completed_at": (NOON + day * A_DAY).isoformat()}
    return json.dumps(event).encode()


async def commit(env: Environment, **offsets: int) -> None:
    """What intake would have committed."""
    places = {TopicPartition(env.topics.names.completed, int(name[1:])): offset for name, offset in offsets.items()}
    consumer = AIOKafkaConsumer(
        bootstrap_servers=env.settings.kafka_bootstrap_servers, group_id=env.settings.consumer_group, enable_auto_commit=False
    )
    await consumer.start()
    try:
        consumer.assign(list(places))
        await consumer.commit(places)
    finally:
        await consumer.stop()


async def taken(env: Environment, criteria: Criteria, frozen: Frozen | None = None) -> tuple[list[int], int, int]:
    """Users picked (their numbers), events that are still intake's, invalid records."""
    frozen = frozen or await where_from(env.settings, criteria)
    async with taking(env.settings, env.database, criteria, frozen, None) as found:
        users = [user.int async for page in found.selection.key_pages() for user, _ in page]
        return users, found.not_yet_taken, found.invalid


def test_offsets_and_times_are_held_and_odd_records_are_counted(kafka: KafkaServer, database_url: str, topic_prefix: str) -> None:
    """A header whose name is not UTF-8 stops the Kafka client, not a replay."""

    async def scenario() -> None:
        async with an_environment(kafka.bootstrap_servers, database_url, topic_prefix) as env:
            topic = env.topics.names.completed
            first = [Raw(value(1)), Raw(value(2), headers=[(b"x-caf\xe9", b"1")]), Raw(b"{"), Raw(None), Raw(value(3, 1))]
            later = [Raw(value(4, 2)), Raw(value(1, 3)), Raw(value(5, 3))]
            await send_batches(kafka.bootstrap_servers, topic, a_batch(first), a_batch(later))
            await send_batches(kafka.bootstrap_servers, topic, a_batch([Raw(value(6))]), partition=1)
            whole = Criteria(source="topic")
            assert await taken(env, whole) == ([], 6 + 1, 2)  # intake has taken nothing
            await commit(env, p0=7, p1=1)
            assert await taken(env, whole) == ([1, 2, 3, 4, 6], 1, 2)
            assert await taken(env, Criteria(source="topic", since=NOON + A_DAY, until=NOON + 3 * A_DAY)) == ([3, 4], 0, 2)
            assert await taken(env, Criteria(from_offsets={0: 4}, to_offsets={0: 6})) == ([3, 4], 0, 0)
            assert await taken(env, Criteria(to_offsets={0: 2})) == ([1, 2], 0, 0)
            assert await taken(env, Criteria(source="topic", user_ids=frozenset({UUID(int=3)}))) == ([3], 0, 2)

            frozen = await where_from(env.settings, whole)
            assert frozen.range is not None
            assert range_of(frozen.range.document()) == frozen.range
            await send_batches(kafka.bootstrap_servers, topic, a_batch([Raw(value(7))]), partition=1)
            await commit(env, p0=8, p1=2)
            assert await taken(env, whole, frozen) == ([1, 2, 3, 4, 6], 1, 2)  # as it was when it was begun

            async with taking(env.settings, env.database, whole, frozen, None) as found:
                generation, _ = await Replays(env.database).begin("topic", whole.document(), {}, None)
                await fill(found.selection, generation, None, lambda _looked_at, _made: None)
            runs = await env.rows("SELECT * FROM full_pass_runs ORDER BY user_id")
            assert [run["user_id"].int for run in runs] == [1, 2, 3, 4, 6]
            newest = QuickPassCompleted.model_validate_json(value(1, 3))
            assert json.loads(runs[0]["event"]) == newest.known_fields()
            assert (runs[0]["idempotency_key"], runs[0]["completed_at"]) == (newest.key(), NOON + 3 * A_DAY)
            assert runs[0]["run_id"] == run_id_of(newest.user_id, newest.key(), generation)
            assert {(run["priority"], run["status"], run["generation"]) for run in runs} == {(REPLAY_PRIORITY, "pending", 1)}

            with pytest.raises(ConfigurationError, match="has no partition 2"):
                await where_from(env.settings, Criteria(from_offsets={2: 0}))

    asyncio.run(scenario())


def test_where_the_topic_no_longer_reaches_back_the_ledger_is_taken_and_it_is_said(
    kafka: KafkaServer, database_url: str, topic_prefix: str
) -> None:
    async def scenario() -> None:
        async with an_environment(kafka.bootstrap_servers, database_url, topic_prefix, partitions=1) as env:
            at_ms = int(NOON.timestamp() * 1000)
            for day in range(3):
                batch = a_batch([Raw(value(day, day))], at_ms=at_ms + day * 86_400_000)
                await send_batches(kafka.bootstrap_servers, env.topics.names.completed, batch)
            long_ago = Criteria(since=NOON - 30 * A_DAY)
            assert (await where_from(env.settings, long_ago)).source == "topic"  # there never was anything older

            frozen = await where_from(env.settings, long_ago)
            await expire(env, env.topics.names.completed, 1)
            found = await where_from(env.settings, long_ago)
            assert (found.source, found.range) == ("ledger", None)
            assert found.source_reason == (
                "the topic no longer reaches back to 2026-10-21T12:00:00Z; its oldest event there is of 2026-11-21T12:00:00Z"
            )
            assert (await where_from(env.settings, Criteria(until=NOON))).source == "ledger"
            assert (await where_from(env.settings, Criteria(since=NOON + A_DAY))).source == "topic"
            assert (await where_from(env.settings, Criteria(source="topic", since=NOON))).source_reason.startswith(
                "as asked, though "
            )
            with pytest.raises(CommandError, match="no longer has offset 0 of partition 0; it begins at 1"):
                await where_from(env.settings, Criteria(from_offsets={0: 0}))
            with pytest.raises(CommandError, match="no longer has the events of this replay"):
                await taken(env, long_ago, frozen)

    asyncio.run(scenario())


def test_an_empty_partition_that_lost_its_records_does_not_reach_back() -> None:
    extent = Extent(begins={0: 0, 1: 9}, oldest_ms={0: 5, 1: None}, ends={0: 4, 1: 9}, taken={0: 4, 1: 9})
    assert extent.why_not_back_to(NOON) == "the topic no longer reaches back to 2026-11-20T12:00:00Z"
    assert extent.why_not_back_to(None) == "the topic no longer holds its first events"


def test_a_partition_that_lost_nothing_reaches_back_whenever_it_began() -> None:
    noon_ms = int(NOON.timestamp() * 1000)
    extent = Extent(begins={0: 0, 1: 9}, oldest_ms={0: noon_ms + 1, 1: noon_ms}, ends={0: 4, 1: 12}, taken={0: 4, 1: 12})
    assert extent.why_not_back_to(NOON) is None
    assert extent.why_not_back_to(NOON - A_DAY) is not None


def test_what_waits_and_what_was_removed_unread_is_counted_apart() -> None:
    extent = Extent(begins={0: 5, 1: 0, 2: 3}, oldest_ms={}, ends={0: 9, 1: 4, 2: 3}, taken={0: 2, 1: 3, 2: 3})
    assert (extent.waiting, extent.removed_unread) == (4 + 1, 3)
