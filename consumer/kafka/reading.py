"""The outgoing events as a reader gets them: for the demo, and for people who want to see."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from consumer.kafka.connection import REQUEST_TIMEOUT_MS, KafkaTrouble, connection_options, started
from consumer.kafka.messages import Record
from consumer.kafka.topics import TopicNames
from consumer.settings import Settings
from schemas.events import MemorySaved, V2Completed, V2Failed


@dataclass(frozen=True, slots=True)
class ReadEvent:
    """An event with its place, its CloudEvents headers and its data."""

    topic: str
    partition: int
    offset: int
    headers: dict[str, str]
    data: dict[str, Any]


async def read_events(settings: Settings, user_id: UUID) -> list[ReadEvent]:
    """All events of a user that a `read_committed` reader sees now, in the order of their times.

    Raises:
        KafkaTrouble: when the brokers don't answer.
    """
    names = TopicNames(settings.topic_prefix)
    topics = [names.of(event.event_type) for event in (MemorySaved, V2Completed, V2Failed)]
    key = str(user_id).encode()
    consumer = AIOKafkaConsumer(
        **connection_options(settings), isolation_level="read_committed", enable_auto_commit=False, auto_offset_reset="earliest"
    )
    found: list[ReadEvent] = []
    try:
        await started(consumer, settings)
        for topic in topics:
            for partition in await partitions_of(consumer, topic):
                found += [_read(record) async for record in until_its_end(consumer, partition) if record.key == key]
    except (KafkaError, TimeoutError) as error:
        raise KafkaTrouble(f"the events could not be read ({type(error).__name__})") from error
    finally:
        await consumer.stop()
    return sorted(found, key=lambda event: event.headers.get("ce_time", ""))


async def partitions_of(consumer: AIOKafkaConsumer, topic: str) -> list[TopicPartition]:
    """The partitions of a topic that exists."""
    async with asyncio.timeout(REQUEST_TIMEOUT_MS / 1000):
        consumer.assign([TopicPartition(topic, 0)])  # makes the client learn about the topic
        while not (found := consumer.partitions_for_topic(topic)):
            await consumer.getmany(timeout_ms=100)
    return [TopicPartition(topic, partition) for partition in sorted(found)]


async def until_its_end(consumer: AIOKafkaConsumer, partition: TopicPartition) -> AsyncIterator[Record]:
    """The records of a partition from its beginning to its end as it is now."""
    consumer.assign([partition])
    end = (await consumer.end_offsets([partition]))[partition]
    await consumer.seek_to_beginning(partition)
    while await consumer.position(partition) < end:
        async with asyncio.timeout(REQUEST_TIMEOUT_MS / 1000):
            while not (fetched := await consumer.getmany(partition, timeout_ms=200)):
                if await consumer.position(partition) >= end:
                    return
        for record in fetched[partition]:
            if record.offset < end:
                yield record


def _read(record: Any) -> ReadEvent:
    headers = {name: value.decode(errors="replace") for name, value in record.headers}
    return ReadEvent(record.topic, record.partition, record.offset, headers, json.loads(record.value))
