"""One environment on real servers: topics and a database of its own, and parts that run in it."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from consumer.health import Health
from consumer.kafka.connection import admin_client, idempotent_producer
from consumer.kafka.messages import Headers, Record
from consumer.kafka.topics import Topics
from consumer.metrics import Metrics
from consumer.postgres import migrating
from consumer.postgres.database import Database
from consumer.postgres.outbox import Outbox, announce
from consumer.postgres.runs import Ledger
from consumer.settings import Settings
from schemas.events import ErrorCode, MemorySaved, QuickPassCompleted, V2Failed, run_id_of

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Part(Protocol):
    """What the worker supervises."""

    async def run(self, stopping: asyncio.Event) -> None: ...


@dataclass(frozen=True)
class Environment:
    """Topics, a migrated database, and what parts are built from."""

    settings: Settings
    database: Database
    topics: Topics
    health: Health
    metrics: Metrics

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.database)

    @property
    def outbox(self) -> Outbox:
        return Outbox(self.database)

    def sample(self, name: str, **labels: str) -> float:
        """The value of one of our metrics; 0 while it has none."""
        return self.metrics.registry.get_sample_value(f"full_pass_{name}", labels) or 0

    async def produce(self, *values: bytes | None, headers: Headers = (), key: bytes | None = b"k") -> None:
        """Put records on the input topic, one after the other."""
        async with idempotent_producer(self.settings) as producer:
            for value in values:
                await producer.send_and_wait(self.topics.names.completed, value, key, headers=headers)

    async def produce_empty(self) -> None:
        """Put a record without key and value on the input topic."""
        async with idempotent_producer(self.settings) as producer:
            batch = producer.create_batch()
            batch.append(timestamp=None, key=None, value=None, headers=[])
            await (await producer.send_batch(batch, self.topics.names.completed, partition=0))

    async def rows(self, question: str) -> list[Any]:
        """What the database answers."""
        connection = await asyncpg.connect(self.database.url)
        try:
            return list(await connection.fetch(question))
        finally:
            await connection.close()

    async def keys(self) -> list[str]:
        """The idempotency keys in the ledger, in order."""
        return [row["idempotency_key"] for row in await self.rows(
            "SELECT idempotency_key FROM full_pass_runs ORDER BY idempotency_key")]  # fmt: skip

    async def committed(self, group: str, topic: str) -> dict[int, int]:
        """Partition → offset committed by a group."""
        async with admin_client(self.settings) as admin:
            found = await admin.list_consumer_group_offsets(group)
        return {place.partition: meta.offset for place, meta in found.items() if place.topic == topic}

    async def read(self, topic: str, isolation: str = "read_committed") -> list[Record]:
        """Everything on a topic as a reader without a group sees it now, up to an open transaction."""
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.settings.kafka_bootstrap_servers,
            enable_auto_commit=False, auto_offset_reset="earliest", isolation_level=isolation,
        )  # fmt: skip
        await consumer.start()
        try:
            async with admin_client(self.settings) as admin:
                (found,) = [each for each in await admin.describe_topics() if each["topic"] == topic]
            places = [TopicPartition(topic, each["partition"]) for each in found["partitions"]]
            consumer.assign(places)
            await consumer.seek_to_beginning(*places)
            ends = await consumer.end_offsets(places)
            records: list[Record] = []
            async with asyncio.timeout(30):
                while [place for place in places if await consumer.position(place) < ends[place]]:
                    for fetched in (await consumer.getmany(timeout_ms=100)).values():
                        records += fetched
            return records
        finally:
            await consumer.stop()

    async def event_ids(self, *topics: str, isolation: str = "read_committed") -> Counter[str]:
        """How often a reader sees each event's id."""
        seen: Counter[str] = Counter()
        for topic in topics or self.topics.names.all()[2:]:
            seen.update((dict(record.headers)["ce_id"] or b"").decode() for record in await self.read(topic, isolation))
        return seen

    async def announce(self, *events: MemorySaved | V2Failed) -> None:
        """Commit events to the outbox."""
        async with self.database.transaction() as transaction:
            for event in events:
                await announce(transaction, event, TRACEPARENT, datetime.now(UTC))

    async def unpublished(self) -> int:
        """Outbox rows that wait."""
        return (await self.outbox.backlog())[0]

    @asynccontextmanager
    async def running(self, *parts: Part, ready: bool = True) -> AsyncIterator[asyncio.Event]:
        """Run parts side by side for the length of the block, which begins when they are well."""
        stopping = asyncio.Event()
        if ready:
            for part in parts:
                self.health.expect(name_of(part))
        async with asyncio.TaskGroup() as group:
            for part in parts:
                group.create_task(part.run(stopping))
            await until(lambda: self.health.ready)
            yield stopping
            stopping.set()


@asynccontextmanager
async def an_environment(
    bootstrap_servers: str, database_url: str, prefix: str, partitions: int = 2, **changes: Any
) -> AsyncIterator[Environment]:
    """An environment of its own: topics made, tables migrated."""
    places: dict[str, Any] = {"KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers, "DATABASE_URL": database_url}
    names: dict[str, Any] = {"topic_prefix": prefix, "consumer_group": f"{prefix}group", "poll_seconds": 0.2, **changes}
    settings = Settings(**places, **names)
    database = Database(database_url)
    try:
        await migrating.upgrade(database)
        topics = Topics(settings)
        await topics.create(partitions)
        yield Environment(settings, database, topics, Health(), Metrics())
    finally:
        await database.close()


async def limit_topic(env: Environment, topic: str, max_message_bytes: int) -> None:
    """Let a topic take messages of that size and no larger."""
    await configure_topic(env, topic, **{"max.message.bytes": str(max_message_bytes)})


async def configure_topic(env: Environment, topic: str, **configuration: str) -> None:
    """Give a topic this configuration alone, and wait until the broker has it."""
    async with admin_client(env.settings) as admin:
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configuration)])

        async def has_it() -> bool:
            (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
            now = {entry[0]: entry[1] for resource in answer.resources for entry in resource[4]}
            return configuration.items() <= now.items()

        await until(has_it)


def name_of(part: Part) -> str:
    """The name under which a part tells its health."""
    return type(part).__name__.lower()


async def until(condition: Callable[[], bool | Awaitable[bool]], seconds: float = 30) -> None:
    """Wait for a condition with a deadline."""
    async with asyncio.timeout(seconds):
        while True:
            met = condition()
            if await met if isinstance(met, Awaitable) else met:
                return
            await asyncio.sleep(0.02)


def an_event(key: str, user_id: uuid.UUID | None = None) -> QuickPassCompleted:
    """A completion event with that idempotency key."""
    user = user_id or uuid.uuid4()
    return QuickPassCompleted(
        user_id=user, storage_path=f"exports/{user}.json", completed_at=datetime.now(UTC), idempotency_key=key
    )


def values_of(events: Sequence[QuickPassCompleted]) -> list[bytes]:
    """Events as a console producer would write them."""
    return [event.model_dump_json().encode() for event in events]


def a_memory(number: int, user_id: uuid.UUID | None = None) -> MemorySaved:
    """A memory-saved event; the number is its profile version."""
    user = user_id or uuid.uuid4()
    return MemorySaved(
        user_id=user,
        idempotency_key=f"key-{number}",
        generation=0,
        run_id=run_id_of(user, f"key-{number}", 0),
        profile_version=number + 1,
        memory_sha256="0" * 64,
        memory_chars=10,
        fact_count=1,
        coverage=1.0,
        saved_at=datetime.now(UTC),
    )


def a_failure(number: int, code: ErrorCode = ErrorCode.EXPORT_EMPTY) -> V2Failed:
    """A v2-failed event of a user of its own; the number is its attempts."""
    user = uuid.uuid4()
    return V2Failed(
        user_id=user,
        idempotency_key=f"key-{number}",
        generation=0,
        run_id=run_id_of(user, f"key-{number}", 0),
        profile_version=None,
        error_code=code,
        error_detail="the export holds no conversation with a visible message",
        stage="reading",
        attempts=number,
        memory_saved=False,
        failed_at=datetime.now(UTC),
    )
