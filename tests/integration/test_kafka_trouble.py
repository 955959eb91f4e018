"""What Kafka does to a group and to a producer by itself: retention, expired offsets, topics made anew, members expelled."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import NewTopic, RecordsToDelete
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.admin import DeleteGroupsRequest
from aiokafka.protocol.group import LeaveGroupRequest

from consumer.kafka.alerts import Alerts, alerts_group
from consumer.kafka.connection import KafkaTrouble, admin_client, idempotent_producer
from consumer.kafka.intake import Intake
from consumer.kafka.relay import Relay, relay_name
from sandbox.kafka import KafkaServer
from tests.integration.kafka_environment import Environment, a_failure, a_memory, an_environment, an_event, until, values_of
from tests.integration.test_alerts import a_hook

Logged = Callable[[], list[dict[str, Any]]]


def intake_of(env: Environment) -> Intake:
    return Intake(env.settings, env.ledger, env.health, env.metrics)


async def publish(env: Environment, *keys: str) -> None:
    await env.produce(*values_of([an_event(key) for key in keys]))


async def taken(env: Environment, *keys: str) -> None:
    async def all_there() -> bool:
        return await env.keys() == sorted(keys)

    await until(all_there)


async def committed(env: Environment, offset: int) -> None:
    async def is_so() -> bool:
        return await env.committed(env.settings.consumer_group, env.topics.names.completed) == {0: offset}

    await until(is_so)


async def expire(env: Environment, topic: str, before: int) -> None:
    """What retention does, now."""
    async with admin_client(env.settings) as admin:
        await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(before_offset=before)})


@asynccontextmanager
async def coordinator(env: Environment, group: str) -> AsyncIterator[Callable[[Any], Any]]:
    """A way to send requests to the coordinator of a group."""
    client = AIOKafkaClient(bootstrap_servers=env.settings.kafka_bootstrap_servers)
    await client.bootstrap()
    try:
        node = await client.coordinator_lookup(0, group)
        yield lambda request: client.send(node, request)
    finally:
        await client.close()


def of_event(logged: Logged, name: str) -> list[dict[str, Any]]:
    return [line for line in logged() if line["event"] == name]


@pytest.mark.guarantee("G1")
def test_what_retention_removed_unread_is_said_and_counted_once_and_the_rest_is_taken(
    kafka: KafkaServer, database_url: str, topic_prefix: str, logged: Logged
) -> None:
    """The Kafka client would begin at the oldest record by itself, and nobody would ever know that users were passed over."""

    async def scenario() -> None:
        async with an_environment(kafka.bootstrap_servers, database_url, topic_prefix, partitions=1) as env:
            await publish(env, "a", "b")
            async with env.running(intake_of(env)):
                await committed(env, 2)
            await publish(env, "lost-1", "lost-2", "lost-3")
            await expire(env, env.topics.names.completed, 5)
            async with env.running(intake_of(env)):
                await committed(env, 5)  # though nothing new has come: the next start says nothing
            async with env.running(intake_of(env)):
                await publish(env, "c")
                await taken(env, "a", "b", "c")
                await committed(env, 6)
            assert env.sample("messages_missed_total") == 3
            (line,) = of_event(logged, "messages_missed")
            assert (line["level"], line["count"], line["expected"], line["begins_at"]) == ("error", 3, 2, 5)
            assert (line["topic"], line["partition"]) == (env.topics.names.completed, 0)

    asyncio.run(scenario())


def test_retention_that_overtakes_a_group_at_work_is_said_and_counted(
    kafka: KafkaServer, database_url: str, topic_prefix: str, logged: Logged
) -> None:
    """Intake waits for a lock in PostgreSQL while the log moves on behind it."""

    async def scenario() -> None:
        async with an_environment(kafka.bootstrap_servers, database_url, topic_prefix, partitions=1) as env:
            async with env.running(intake_of(env)):
                connection = await asyncpg.connect(env.database.url)
                async with connection.transaction():
                    await connection.execute("LOCK full_pass_runs")
                    await publish(env, "a")
                    await until(lambda: waits_for_a_lock(env))
                    await publish(env, *[f"lost-{number}" for number in range(20)])
                    await expire(env, env.topics.names.completed, 21)
                await connection.close()
                await publish(env, "b")
                await until(lambda: env.sample("messages_taken_total") + env.sample("messages_missed_total") == 22)
                await committed(env, 22)
            read = len(await env.keys())
            assert sum(line["count"] for line in of_event(logged, "messages_missed")) == 22 - read

    asyncio.run(scenario())


async def waits_for_a_lock(env: Environment) -> bool:
    return bool(await env.rows("SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"))


def test_a_failure_that_retention_removed_before_it_was_told_is_counted(
    kafka: KafkaServer, database_url: str, topic_prefix: str, logged: Logged
) -> None:
    async def scenario() -> None:
        async with a_hook() as hook:
            named: dict[str, Any] = {"alert_webhook_url": hook.url}
            async with an_environment(kafka.bootstrap_servers, database_url, topic_prefix, partitions=1, **named) as env:
                topic = env.topics.names.failed
                async with env.running(Alerts(env.settings, env.health, env.metrics)):
                    pass
                async with idempotent_producer(env.settings) as producer:
                    for number in range(3):
                        await producer.send_and_wait(topic, a_failure(number).model_dump_json().encode(), b"k")
                await expire(env, topic, 2)
                async with env.running(Alerts(env.settings, env.health, env.metrics)):
                    await until(lambda: hook.attempts == [2])
                    await until(lambda: told(env, 3))
                assert env.sample("messages_missed_total") == 2
                assert of_event(logged, "messages_missed")[0]["topic"] == topic

    async def told(env: Environment, offset: int) -> bool:
        return await env.committed(alerts_group(env.settings), env.topics.names.failed) == {0: offset}

    asyncio.run(scenario())


@pytest.mark.guarantee("G2")
def test_a_group_whose_offsets_have_expired_begins_anew_and_no_event_runs_twice(
    kafka: KafkaServer, database_url: str, topic_prefix: str, logged: Logged
) -> None:
    """After a week without a member a group is forgotten; the ledger is not."""

    async def scenario() -> None:
        async with an_environment(kafka.bootstrap_servers, database_url, topic_prefix, partitions=1) as env:
            await publish(env, "a", "b")
            async with env.running(intake_of(env)):
                await committed(env, 2)
            group = env.settings.consumer_group
            async with coordinator(env, group) as ask:
                assert (await ask(DeleteGroupsRequest([group]))).results == [(group, 0)]
            await publish(env, "c")
            async with env.running(intake_of(env)):
                await taken(env, "a", "b", "c")
                await committed(env, 3)
            assert (env.sample("messages_taken_total"), env.sample("messages_repeated_total")) == (3, 2)
            assert env.sample("messages_missed_total") == 0
            assert len(of_event(logged, "no_offset_committed")) == 2

    asyncio.run(scenario())


@pytest.mark.guarantee("G1")
@pytest.mark.parametrize("running", [True, False], ids=["under a running intake", "while intake is away"])
def test_a_topic_that_is_made_anew_is_read_from_its_beginning(
    kafka: KafkaServer, database_url: str, topic_prefix: str, running: bool
) -> None:
    async def scenario() -> None:
        async with an_environment(kafka.bootstrap_servers, database_url, topic_prefix, partitions=1) as env:
            first = [f"first-{number}" for number in range(20)]
            await publish(env, *first)
            async with env.running(intake_of(env)):
                await committed(env, 20)
                if running:
                    await made_anew(env)
                    await taken(env, *first, "second-1", "second-2")
            if not running:
                await made_anew(env)
                async with env.running(intake_of(env)):
                    await taken(env, *first, "second-1", "second-2")

    async def made_anew(env: Environment) -> None:
        topic = env.topics.names.completed
        async with admin_client(env.settings) as admin:
            await admin.delete_topics([topic])
            async with asyncio.timeout(20):
                while (await admin.create_topics([NewTopic(topic, 1, 1)])).topic_errors[0][1]:
                    await asyncio.sleep(0.02)
        await publish(env, "second-1", "second-2")

    asyncio.run(scenario())


@pytest.mark.guarantee("G1")
def test_a_member_that_was_expelled_while_it_saved_loses_nothing_and_comes_back(
    kafka: KafkaServer, database_url: str, topic_prefix: str
) -> None:
    """A worker so slow that the group goes on without it: its commit is refused, and another takes the same records."""

    async def scenario() -> None:
        async with an_environment(kafka.bootstrap_servers, database_url, topic_prefix, partitions=1) as env:
            group, keys = env.settings.consumer_group, [f"key-{number:04}" for number in range(1_000)]
            async with env.running(intake_of(env)), coordinator(env, group) as ask:
                (slow,) = await members(env)
                connection = await asyncpg.connect(env.database.url)
                async with connection.transaction():
                    await connection.execute("LOCK full_pass_runs")
                    await publish(env, *keys)
                    await until(lambda: waits_for_a_lock(env))
                    assert (await ask(LeaveGroupRequest(group, slow))).error_code == 0
                await connection.close()
                await taken(env, *keys)
                await committed(env, len(keys))
                assert slow not in await members(env)
                await publish(env, "after")
                await taken(env, *keys, "after")
            assert env.sample("messages_taken_total") == len(keys) + 1

    asyncio.run(scenario())


async def members(env: Environment) -> list[str]:
    """The ids of the members of intake's group."""
    async with admin_client(env.settings) as admin:
        (answer,) = await admin.describe_consumer_groups([env.settings.consumer_group])
    (group,) = answer.groups
    return [member[0] for member in group[5]]


@pytest.mark.guarantee("G1")
def test_events_behind_a_transaction_in_doubt_wait_for_its_end_and_are_taken_then(
    kafka: KafkaServer, database_url: str, topic_prefix: str
) -> None:
    """A publisher died in its transaction. Kafka shows what stands behind it only when it has ended; nobody may skip it."""

    async def scenario() -> None:
        async with an_environment(kafka.bootstrap_servers, database_url, topic_prefix, partitions=1) as env:
            topic, transactional_id = env.topics.names.completed, topic_prefix
            async with idempotent_producer(env.settings, transactional_id) as died, env.running(intake_of(env)):
                await publish(env, "before")
                await died.begin_transaction()
                await died.send_and_wait(topic, *values_of([an_event("in doubt")]), partition=0)
                await publish(env, "behind")
                await taken(env, "before")
                assert len(await env.read(topic, "read_uncommitted")) == 3
                async with idempotent_producer(env.settings, transactional_id):  # it is started again, which aborts the first
                    await taken(env, "before", "behind")
                await committed(env, 3)  # the marker that ends the transaction is no record

    asyncio.run(scenario())


class Forgetful(KafkaServer):
    """A broker that forgets a transactional id after a second without a transaction, as others do after a week."""

    def _prepare(self) -> None:
        super()._prepare()
        more = {"transactional.id.expiration.ms": 1_000, "transaction.remove.expired.transaction.cleanup.interval.ms": 200}
        with self._properties.open("a", encoding="utf-8") as properties:
            properties.writelines(f"{name}={value}\n" for name, value in more.items())


@pytest.mark.guarantee("G5")
def test_a_relay_whose_producer_kafka_has_forgotten_says_so_and_sends_everything_once_when_started_again(
    tmp_path: Path, database_url: str, topic_prefix: str
) -> None:
    """A week without an event: the broker no longer knows the producer's id."""

    async def scenario(kafka: KafkaServer) -> None:
        async with an_environment(kafka.bootstrap_servers, database_url, topic_prefix) as env:
            await env.announce(a_memory(1))
            stopping = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                leading = group.create_task(lead(env, stopping))
                await until(lambda: nothing_waits(env))
                await until(lambda: is_forgotten(env))
                await env.announce(a_memory(2), a_memory(3))
                error = await leading
            assert "Kafka did not take the outbox" in str(error)
            async with env.running(Relay(env.settings, env.outbox, env.health, env.metrics)):
                await until(lambda: nothing_waits(env))
            seen = await env.event_ids()
            assert (len(seen), Counter(seen.values())) == (3, Counter({1: 3}))

    with Forgetful(tmp_path / "kafka") as kafka:
        asyncio.run(scenario(kafka))


async def lead(env: Environment, stopping: asyncio.Event) -> KafkaTrouble:
    with pytest.raises(KafkaTrouble) as caught:
        await Relay(env.settings, env.outbox, env.health, env.metrics).run(stopping)
    return caught.value


async def nothing_waits(env: Environment) -> bool:
    return await env.unpublished() == 0


async def is_forgotten(env: Environment) -> bool:
    """Whether the log of the transaction coordinator ends with a tombstone for the relay."""
    name = relay_name(env.settings).encode()
    about = [record for record in await env.read("__transaction_state", "read_uncommitted") if name in (record.key or b"")]
    return about[-1].value is None
