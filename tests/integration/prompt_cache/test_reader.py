"""From the topics to the cache: what the example's reader does with events, and with everything that may be away."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.errors import GroupCoordinatorNotAvailableError

from examples.prompt_cache import TOPICS, Reader
from sandbox.kafka import KafkaServer
from sandbox.redis import RedisServer
from tests.acceptance.topics import create_topics
from tests.integration.prompt_cache.chat import Chat, a_chat, until

SAVED, COMPLETED = TOPICS
PARTITIONS = 2


def value(user: uuid.UUID, version: int) -> bytes:
    """As much of an event as a reader of versions looks at."""
    return json.dumps({"user_id": str(user), "profile_version": version}).encode()


@dataclass(frozen=True)
class Readers:
    """The topics, the group, and a chat service whose prompts they keep fresh."""

    chat: Chat
    servers: str
    prefix: str
    admin: AIOKafkaAdminClient
    producer: AIOKafkaProducer

    @property
    def places(self) -> list[TopicPartition]:
        return [TopicPartition(self.prefix + topic, number) for topic in TOPICS for number in range(PARTITIONS)]

    async def publish(self, topic: str, user: uuid.UUID, said: bytes | None) -> None:
        await self.producer.send_and_wait(self.prefix + topic, said, str(user).encode())

    async def change(self, topic: str, user: uuid.UUID, version: int) -> None:
        """A change of the profile, and its event."""
        await self.chat.commit(user, version)
        await self.publish(topic, user, value(user, version))

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        """Run a reader for the length of the block, which begins when it knows where it reads."""
        task = asyncio.create_task(Reader(self.chat.cache, self.chat.redis, self.servers, self.prefix).run())
        try:
            await until(self.committed, "the reader had a position everywhere")
            yield
        finally:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    async def committed(self) -> dict[TopicPartition, int]:
        """The group's offsets; empty while it has not one everywhere."""
        try:
            found = await self.admin.list_consumer_group_offsets(f"{self.prefix}prompt-cache")
        except GroupCoordinatorNotAvailableError:  # Kafka makes the topic of offsets for its first group
            return {}
        offsets = {place: meta.offset for place, meta in found.items() if meta.offset >= 0}
        return offsets if len(offsets) == len(self.places) else {}

    async def ends(self) -> dict[TopicPartition, int]:
        async with self._consumer() as consumer:
            found: dict[TopicPartition, int] = await consumer.end_offsets(self.places)
            return found

    async def until_read(self) -> None:
        """Wait until the group has taken everything that there is."""

        async def read() -> bool:
            return await self.committed() == await self.ends()

        await until(read, "everything was read")

    async def rewind(self) -> None:
        """Set the group, which nobody is in, back to the beginning."""
        async with self._consumer(group_id=f"{self.prefix}prompt-cache") as consumer:
            consumer.assign(self.places)
            await consumer.commit(dict.fromkeys(self.places, 0))

    @asynccontextmanager
    async def _consumer(self, **options: Any) -> AsyncIterator[AIOKafkaConsumer]:
        consumer = AIOKafkaConsumer(bootstrap_servers=self.servers, enable_auto_commit=False, **options)
        await consumer.start()
        try:
            yield consumer
        finally:
            await consumer.stop()


@asynccontextmanager
async def readers_of(
    kafka: KafkaServer, redis: RedisServer, profiles_url: str, prefix: str, **options: Any
) -> AsyncIterator[Readers]:
    servers = kafka.bootstrap_servers
    await create_topics(servers, [prefix + topic for topic in TOPICS], PARTITIONS)
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    producer = AIOKafkaProducer(bootstrap_servers=servers, acks="all")
    async with a_chat(redis, profiles_url, trust_seconds=3600, **options) as chat:
        await admin.start()
        await producer.start()
        try:
            yield Readers(chat, servers, prefix, admin, producer)
        finally:
            await producer.stop()
            await admin.close()


def test_events_of_both_topics_drop_and_a_replayed_topic_drops_nothing(
    kafka: KafkaServer, redis_server: RedisServer, profiles_url: str, topic_prefix: str
) -> None:
    async def story() -> None:
        user = uuid.uuid4()
        async with readers_of(kafka, redis_server, profiles_url, topic_prefix) as readers:
            chat = readers.chat
            async with readers.reading():
                for version, topic in ((1, SAVED), (2, COMPLETED)):
                    await chat.commit(user, version - 1)
                    await chat.cached(user)
                    await readers.change(topic, user, version)
                    await readers.until_read()
                    assert await chat.served(user) == (version, False)
                    assert await chat.served(user) == (version, True)
            await readers.rewind()
            async with readers.reading():
                await readers.until_read()
                assert await chat.served(user) == (2, True)

    asyncio.run(story())


def test_a_new_group_begins_at_the_end_and_drops_what_was_cached_before(
    kafka: KafkaServer, redis_server: RedisServer, profiles_url: str, topic_prefix: str
) -> None:
    async def story() -> None:
        user = uuid.uuid4()
        async with readers_of(kafka, redis_server, profiles_url, topic_prefix) as readers:
            await readers.chat.commit(user, 1)
            await readers.chat.cached(user)
            await readers.change(SAVED, user, 2)
            assert await readers.chat.served(user) == (1, True)
            async with readers.reading():
                assert await readers.chat.served(user) == (2, False)
                assert await readers.committed() == await readers.ends()

    asyncio.run(story())


def test_a_reader_whose_events_have_expired_drops_everything(
    kafka: KafkaServer, redis_server: RedisServer, profiles_url: str, topic_prefix: str
) -> None:
    """It was away for longer than the topic keeps: nobody can say whose profile changed."""

    async def story() -> None:
        user = uuid.uuid4()
        async with readers_of(kafka, redis_server, profiles_url, topic_prefix) as readers:
            async with readers.reading():
                await readers.chat.commit(user, 1)
                await readers.chat.cached(user)
            await readers.change(COMPLETED, user, 2)
            await readers.admin.delete_records({place: RecordsToDelete(end) for place, end in (await readers.ends()).items()})
            assert await readers.chat.served(user) == (1, True)
            async with readers.reading():
                await readers.until_read()
                assert await readers.chat.served(user) == (2, False)

    asyncio.run(story())


def test_what_no_reader_can_use_holds_nothing_up(
    kafka: KafkaServer,
    redis_server: RedisServer,
    profiles_url: str,
    topic_prefix: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What isn't readable is told by its place. An aborted event was never said. A record without a value forgets its user."""

    async def story() -> None:
        user, forgotten = uuid.uuid4(), uuid.uuid4()
        async with readers_of(kafka, redis_server, profiles_url, topic_prefix) as readers:
            chat = readers.chat
            async with readers.reading():
                for each in (user, forgotten):
                    await chat.commit(each, 2)
                    await chat.cached(each)
                for said in (b"no json", b"[]", b'{"user_id": "secret", "profile_version": 9}', value(user, 9)[:-2] + b'"x"}'):
                    await readers.publish(SAVED, user, said)
                await abort(readers, user, value(user, 9))
                await readers.publish(SAVED, user, value(user, 2))
                await readers.publish(SAVED, forgotten, None)
                await readers.until_read()
                assert await chat.served(user) == (2, True)
                assert not await chat.redis.exists(f"prompt:{forgotten}")
                await readers.change(SAVED, user, 3)
                await readers.until_read()
                assert await chat.served(user) == (3, False)

    asyncio.run(story())
    assert caplog.text.count("not readable") == 4
    assert "secret" not in caplog.text


async def abort(readers: Readers, user: uuid.UUID, said: bytes) -> None:
    """Write an event in a transaction that comes to nothing."""
    producer = AIOKafkaProducer(bootstrap_servers=readers.servers, transactional_id=f"{readers.prefix}aborts")
    await producer.start()
    await producer.begin_transaction()
    await producer.send_and_wait(readers.prefix + SAVED, said, str(user).encode())
    await producer.abort_transaction()
    await producer.stop()


def test_an_offset_is_committed_only_after_redis_has_taken_the_event(
    kafka: KafkaServer,
    own_redis: RedisServer,
    profiles_url: str,
    topic_prefix: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """At least once: an event that came while Redis hung is taken when it is back."""

    async def story() -> None:
        user = uuid.uuid4()
        async with (
            readers_of(kafka, own_redis, profiles_url, topic_prefix, socket_timeout=0.7) as readers,
            readers.reading(),
        ):
            await readers.chat.commit(user, 1)
            await readers.chat.cached(user)
            before = await readers.committed()
            own_redis.freeze()
            await readers.change(SAVED, user, 2)
            await until(told_of_trouble, "the reader met the hanging Redis")
            assert await readers.committed() == before
            own_redis.thaw()
            await readers.until_read()
            assert await readers.chat.served(user) == (2, False)

    async def told_of_trouble() -> bool:
        return "TimeoutError; trying again" in caplog.text

    asyncio.run(story())


def test_a_reader_goes_on_when_kafka_is_back(
    own_kafka: KafkaServer, redis_server: RedisServer, profiles_url: str, topic_prefix: str
) -> None:
    """Chats go on meanwhile, from the cache and from the row."""

    async def story() -> None:
        user, other = uuid.uuid4(), uuid.uuid4()
        async with readers_of(own_kafka, redis_server, profiles_url, topic_prefix) as readers, readers.reading():
            await readers.chat.commit(user, 1)
            await readers.chat.cached(user)
            await asyncio.to_thread(own_kafka.kill)
            assert await readers.chat.served(user) == (1, True)
            await readers.chat.commit(other, 1)
            assert await readers.chat.served(other) == (1, False)
            await asyncio.to_thread(own_kafka.start)
            await readers.change(SAVED, user, 2)

            async def fresh() -> bool:
                return (await readers.chat.prompt(user)).version == 2

            await until(fresh, "the event was taken")

    asyncio.run(story())
