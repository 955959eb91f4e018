"""Kafka as upstream and downstream services use it: producing, and reading what is committed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

INPUT, LETTERS = "quick-pass-completed", "quick-pass-completed-dead-letters"
OUTPUTS = ("memory-saved", "v2-completed", "v2-failed")
Sent = tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]
"""Key, value and headers."""


@dataclass(frozen=True)
class Seen:
    """A record as a `read_committed` reader gets it."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: dict[str, bytes]

    @property
    def data(self) -> dict[str, Any]:
        """The value as JSON."""
        found: dict[str, Any] = json.loads(self.value or b"")
        return found


async def create_topics(bootstrap_servers: str, names: Sequence[str], partitions: int) -> None:
    """Make topics, as an administrator does who doesn't use our command."""
    async with _administering(bootstrap_servers) as admin:
        await admin.create_topics([NewTopic(name, partitions, 1) for name in names])


async def produce(bootstrap_servers: str, topic: str, records: Sequence[Sent]) -> None:
    """Put records on a topic, one after the other."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap_servers, acks="all")
    await producer.start()
    try:
        for key, value, headers in records:
            await producer.send_and_wait(topic, value, key, headers=headers)
    finally:
        await producer.stop()


async def read(bootstrap_servers: str, topics: Sequence[str]) -> list[Seen]:
    """Everything that lies on the topics now, as a `read_committed` reader gets it, topic by topic."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap_servers, enable_auto_commit=False,
        auto_offset_reset="earliest", isolation_level="read_committed",
    )  # fmt: skip
    await consumer.start()
    try:
        places = await _places(bootstrap_servers, topics)
        consumer.assign(places)
        ends = await consumer.end_offsets(places)
        found: list[Seen] = []
        async with asyncio.timeout(30):
            while [place for place in places if await consumer.position(place) < ends[place]]:
                for records in (await consumer.getmany(timeout_ms=50)).values():
                    found += [_seen(record) for record in records]
    finally:
        await consumer.stop()
    return sorted(found, key=lambda seen: topics.index(seen.topic))


async def _places(bootstrap_servers: str, topics: Sequence[str]) -> list[TopicPartition]:
    async with _administering(bootstrap_servers) as admin:
        described = await admin.describe_topics(list(topics))
    return [TopicPartition(each["topic"], part["partition"]) for each in described for part in each["partitions"]]


@asynccontextmanager
async def _administering(bootstrap_servers: str) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


def _seen(record: Any) -> Seen:
    return Seen(record.topic, record.partition, record.offset, record.key, record.value, dict(record.headers))
