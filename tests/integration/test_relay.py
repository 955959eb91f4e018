"""From the outbox to Kafka, on real servers."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import Counter
from urllib.parse import urlsplit, urlunsplit

import pytest
from aiokafka import TopicPartition
from aiokafka.structs import OffsetAndMetadata

from consumer.health import Health
from consumer.kafka.connection import KafkaTrouble, idempotent_producer
from consumer.kafka.relay import BATCH_ROWS, Relay, relay_name
from consumer.metrics import Metrics
from consumer.postgres.database import DatabaseUnavailable
from consumer.postgres.wakeups import Wakeups
from sandbox.kafka import KafkaServer
from schemas.events import MemorySaved, V2Failed, event_id_of
from tests.integration.kafka_environment import Environment, a_failure, a_memory, an_environment, limit_topic, until
from tests.integration.part_process import kill_when
from tests.integration.wire import Proxy, is_kafka_request

END_TXN = 26
MARK = b"UPDATE full_pass_outbox"


def relay_of(env: Environment) -> Relay:
    return Relay(env.settings, env.outbox, env.health, env.metrics)


async def nothing_waits(env: Environment) -> bool:
    return await env.unpublished() == 0


def through(proxy: Proxy, url: str) -> str:
    """A database's address by way of a proxy."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{parts.netloc.rpartition(':')[0]}:{proxy.port}"))


def test_events_reach_their_topics_as_they_were_committed(kafka: KafkaServer, database_url: str, topic_prefix: str) -> None:
    async def scenario() -> None:
        async with an_environment(kafka.bootstrap_servers, database_url, topic_prefix) as env:
            memory, failure = a_memory(1), a_failure(2)
            async with env.running(relay_of(env)):
                await env.announce(memory, failure)
                await until(lambda: nothing_waits(env))
            for event in (memory, failure):
                (record,) = await env.read(env.topics.names.of(event.event_type))
                headers = {name: (value or b"").decode() for name, value in record.headers}
                assert json.loads(record.value or b"") == json.loads(event.model_dump_json())
                assert record.key == str(event.user_id).encode()
                assert headers["ce_type"] == event.event_type
                assert headers["ce_id"] == str(event_id_of(event.run_id, event.event_type))
                assert headers["ce_dataschema"] == event.schema_id()
                assert env.sample("events_published_total", type=event.event_type) == 1
            assert env.sample("outbox_unpublished") == 0

    asyncio.run(scenario())


def test_a_commit_wakes_the_relay_long_before_it_would_look(kafka: KafkaServer, database_url: str, topic_prefix: str) -> None:
    async def scenario() -> None:
        slow = an_environment(kafka.bootstrap_servers, database_url, topic_prefix, poll_seconds=60, lease_seconds=300)
        async with slow as env, env.running(relay_of(env)):
            await env.announce(a_memory(1))
            await until(lambda: nothing_waits(env), seconds=5)

    asyncio.run(scenario())


@pytest.mark.guarantee("G5")
def test_the_events_of_a_user_keep_their_order_over_many_batches(
    kafka: KafkaServer, database_url: str, topic_prefix: str
) -> None:
    users = [uuid.uuid4() for _ in range(7)]
    events = [a_memory(number, users[number % 7]) for number in range(BATCH_ROWS * 3 + 20)]

    async def scenario() -> None:
        async with an_environment(kafka.bootstrap_servers, database_url, topic_prefix, partitions=4) as env:
            await env.announce(*events)
            async with env.running(relay_of(env)):
                await until(lambda: nothing_waits(env))
            seen: dict[str, list[int]] = {str(user): [] for user in users}
            for record in await env.read(env.topics.names.memory_saved):
                data = json.loads(record.value or b"")
                seen[data["user_id"]].append(data["profile_version"])
            assert sum(map(len, seen.values())) == len(events)
            assert all(versions == sorted(versions) for versions in seen.values())

    asyncio.run(scenario())


async def killed_before_the_mark(env: Environment) -> None:
    """Let a relay publish, and kill it when it is about to mark what Kafka has committed."""
    marking = asyncio.Event()

    def forward(piece: bytes) -> bool:
        if MARK in piece:
            marking.set()
        return not marking.is_set()

    parts = urlsplit(env.database.url)
    async with Proxy.between(parts.hostname or "", parts.port or 0, forward) as proxy:
        await kill_when(marking, env, "relay", DATABASE_URL=through(proxy, env.database.url))


@pytest.mark.guarantee("G5")
def test_a_relay_killed_between_kafkas_commit_and_the_mark_has_sent_nothing_twice(
    kafka: KafkaServer, database_url: str, topic_prefix: str
) -> None:
    events = [a_memory(number) for number in range(BATCH_ROWS + 30)]
    expected = Counter({str(event_id_of(event.run_id, event.event_type)): 1 for event in events})

    async def scenario() -> None:
        async with an_environment(kafka.bootstrap_servers, database_url, topic_prefix) as env:
            await env.announce(*events)
            await killed_before_the_mark(env)
            assert sum((await env.event_ids()).values()) == BATCH_ROWS
            assert await env.unpublished() == len(events)
            async with env.running(relay_of(env)):
                await until(lambda: nothing_waits(env))
            assert await env.event_ids() == expected

    asyncio.run(scenario())


@pytest.mark.guarantee("G5")
def test_without_the_ids_of_the_last_batch_the_next_leader_would_send_it_again(
    kafka: KafkaServer, database_url: str, topic_prefix: str
) -> None:
    """Shows that the test above can fail: what the first leader committed with its batch is what the second goes by."""
    events = [a_memory(number) for number in range(20)]

    async def scenario() -> None:
        async with an_environment(kafka.bootstrap_servers, database_url, topic_prefix) as env:
            await env.announce(*events)
            await killed_before_the_mark(env)
            await forget_the_last_batch(env)
            async with env.running(relay_of(env)):
                await until(lambda: nothing_waits(env))
            assert set((await env.event_ids()).values()) == {2}

    asyncio.run(scenario())


async def forget_the_last_batch(env: Environment) -> None:
    name = relay_name(env.settings)
    async with idempotent_producer(env.settings, transactional_id=name) as producer, producer.transaction():
        place = TopicPartition(env.topics.names.memory_saved, 0)
        await producer.send_offsets_to_transaction({place: OffsetAndMetadata(0, "")}, name)


@pytest.mark.guarantee("G5")
@pytest.mark.parametrize("arrives", [False, True], ids=["the commit never arrives", "its answer never does"])
def test_a_relay_killed_while_kafka_commits_has_sent_everything_once(
    kafka: KafkaServer, database_url: str, topic_prefix: str, arrives: bool
) -> None:
    events = [a_memory(number) for number in range(40)]
    host, port = kafka.bootstrap_servers.split(":")

    async def scenario() -> None:
        async with an_environment(kafka.bootstrap_servers, database_url, topic_prefix) as env:
            await env.announce(*events)
            committing = asyncio.Event()

            def forward(piece: bytes) -> bool:
                if is_kafka_request(END_TXN, piece):
                    committing.set()
                return arrives or not committing.is_set()

            async with Proxy.between(host, int(port), forward) as proxy:
                await kill_when(committing, env, "relay", KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{proxy.port}")
            async with env.running(relay_of(env)):
                await until(lambda: nothing_waits(env))
            assert set((await env.event_ids()).values()) == {1}
            assert len(await env.event_ids()) == len(events)

    asyncio.run(scenario())


@pytest.mark.guarantee("G5")
@pytest.mark.parametrize("refused", [0, 1, 2], ids=["the first", "one amid others", "the last"])
def test_a_batch_of_which_the_broker_refuses_one_event_is_not_committed_without_it(
    kafka: KafkaServer, database_url: str, topic_prefix: str, refused: int
) -> None:
    """The client itself would commit the rest, and the relay would then mark what never arrived."""
    events: list[MemorySaved | V2Failed] = [a_memory(1), a_memory(2)]
    events.insert(refused, a_failure(3))

    async def scenario() -> None:
        async with an_environment(kafka.bootstrap_servers, database_url, topic_prefix) as env:
            await limit_topic(env, env.topics.names.failed, 100)
            await env.announce(*events)
            with pytest.raises(KafkaTrouble, match="MessageSizeTooLarge"):
                async with asyncio.timeout(20):
                    await relay_of(env).run(asyncio.Event())
            assert await env.event_ids(env.topics.names.memory_saved) == Counter()
            assert await env.unpublished() == 3
            await limit_topic(env, env.topics.names.failed, 1_000_000)
            async with env.running(relay_of(env)):
                await until(lambda: nothing_waits(env))
            assert sorted((await env.event_ids()).values()) == [1, 1, 1]

    asyncio.run(scenario())


@pytest.mark.guarantee("G5")
def test_two_relays_that_fence_each_other_lose_nothing_and_send_nothing_twice(
    kafka: KafkaServer, database_url: str, topic_prefix: str
) -> None:
    """The lock only keeps this from happening; the fence makes it safe."""

    async def scenario() -> None:
        async with an_environment(kafka.bootstrap_servers, database_url, topic_prefix) as env:
            stopping = asyncio.Event()
            announced = fenced = 0

            async def lead_always() -> None:
                nonlocal fenced
                relay = Lockless(env.settings, env.outbox, Health(), Metrics())
                while not stopping.is_set():
                    try:
                        await relay.run(stopping)
                    except KafkaTrouble:
                        fenced += 1

            async with asyncio.TaskGroup() as group:
                group.create_task(lead_always())
                group.create_task(lead_always())
                while announced < BATCH_ROWS * 4 or not fenced:
                    await env.announce(*(a_memory(number) for number in range(announced, announced + BATCH_ROWS)))
                    announced += BATCH_ROWS
                    await until(lambda: nothing_waits(env), seconds=60)
                stopping.set()
            seen = await env.event_ids()
            assert len(seen) == announced
            assert set(seen.values()) == {1}

    asyncio.run(scenario())


class Lockless(Relay):
    """A relay that takes itself for the leader, as one does whose lock was lost while it slept."""

    async def run(self, stopping: asyncio.Event) -> None:
        url = self._settings.database_url
        assert url is not None
        async with Wakeups.connect(url.get_secret_value(), 30, channels=()) as wakeups:
            await self._lead(wakeups, stopping)


def test_one_leads_while_the_others_stand_by_and_take_over(kafka: KafkaServer, database_url: str, topic_prefix: str) -> None:
    async def scenario() -> None:
        async with an_environment(kafka.bootstrap_servers, database_url, topic_prefix) as env:
            first, second = (Relay(env.settings, env.outbox, Health(), Metrics()) for _ in range(2))
            stop_first, stop_second = asyncio.Event(), asyncio.Event()
            async with asyncio.TaskGroup() as group:
                leader = group.create_task(first.run(stop_first))
                await env.announce(a_memory(1))
                await until(lambda: nothing_waits(env))
                group.create_task(second.run(stop_second))
                second._health.expect("relay")
                await until(lambda: second._health.ready)
                await env.announce(a_memory(2))
                await until(lambda: nothing_waits(env))
                assert (
                    second._metrics.registry.get_sample_value("full_pass_events_published_total", {"type": "memory-saved"})
                    is None
                )
                stop_first.set()
                await leader
                await env.announce(a_memory(3))
                await until(lambda: nothing_waits(env))
                stop_second.set()
            assert sorted((await env.event_ids()).values()) == [1, 1, 1]

    asyncio.run(scenario())


def test_a_relay_that_loses_its_session_says_so_instead_of_leading_on(
    kafka: KafkaServer, database_url: str, topic_prefix: str
) -> None:
    async def scenario() -> None:
        async with an_environment(kafka.bootstrap_servers, database_url, topic_prefix) as env, env.running(relay_of(env)):
            await env.rows(
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND database ="
                " (SELECT oid FROM pg_database WHERE datname = current_database())"
            )
            await asyncio.sleep(30)  # the relay's error ends this block long before

    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(scenario())
    assert [type(error) for error in caught.value.exceptions] == [DatabaseUnavailable]


def test_a_frozen_broker_holds_events_up_and_repeats_none(own_kafka: KafkaServer, database_url: str, topic_prefix: str) -> None:
    async def scenario() -> None:
        async with an_environment(own_kafka.bootstrap_servers, database_url, topic_prefix) as env:
            async with env.running(relay_of(env)):
                await env.announce(*[a_memory(number) for number in range(5)])
                await until(lambda: nothing_waits(env))
                own_kafka.freeze()
                await env.announce(*[a_memory(number) for number in range(5, 10)])
                await until(lambda: env.sample("outbox_unpublished") == 0)
                own_kafka.thaw()
                await until(lambda: nothing_waits(env))
            assert sorted((await env.event_ids()).values()) == [1] * 10

    asyncio.run(scenario())
