"""A fetch that is taken apart by hand, for partitions in which the Kafka client can't read on."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.consumer.fetcher import READ_COMMITTED
from aiokafka.errors import CorruptRecordException, KafkaError, LeaderNotAvailableError, NoError, for_code
from aiokafka.protocol.fetch import FetchRequest

from consumer.kafka.connection import REQUEST_TIMEOUT_MS, KafkaTrouble, connection_options
from consumer.kafka.raw_records import RawRecords, taken_apart
from consumer.settings import Settings

_WAIT_MS = 500


async def read_carefully(
    settings: Settings, positions: Mapping[TopicPartition, int], partition_bytes: int
) -> dict[TopicPartition, RawRecords]:
    """Fetch once from each position and take it apart; partitions with nothing to read are left out.

    Raises:
        KafkaTrouble: when a broker doesn't answer or refuses, or when the checksum of a batch is wrong.
    """
    client = AIOKafkaClient(**connection_options(settings), request_timeout_ms=REQUEST_TIMEOUT_MS)
    try:
        async with asyncio.timeout(REQUEST_TIMEOUT_MS / 1000):
            await client.bootstrap()
            await client.set_topics({partition.topic for partition in positions})
            return await _fetch(client, positions, partition_bytes)
    except (KafkaError, TimeoutError, OSError) as error:
        raise KafkaTrouble(f"completion events can't be read one by one either ({type(error).__name__})") from error
    finally:
        await client.close()


async def _fetch(
    client: AIOKafkaClient, positions: Mapping[TopicPartition, int], partition_bytes: int
) -> dict[TopicPartition, RawRecords]:
    by_leader: dict[int, list[TopicPartition]] = defaultdict(list)
    for partition in positions:
        leader = client.cluster.leader_for_partition(partition)
        if leader in (None, -1):
            raise LeaderNotAvailableError
        by_leader[leader].append(partition)
    found: dict[TopicPartition, RawRecords] = {}
    for leader, partitions in by_leader.items():
        wanted = [(each.topic, [(each.partition, positions[each], partition_bytes)]) for each in partitions]
        request = FetchRequest(_WAIT_MS, 1, partition_bytes * len(partitions), READ_COMMITTED, wanted)
        for topic, answers in (await client.send(leader, request)).topics:
            for answer in answers:
                partition = TopicPartition(topic, answer[0])
                if (raw := _taken_apart(partition, positions[partition], answer)) is not None:
                    found[partition] = raw
    return found


def _taken_apart(partition: TopicPartition, position: int, answer: Any) -> RawRecords | None:
    """`answer`: partition, error, high watermark, last stable offset, …, aborted transactions, (read replica,) the bytes."""
    error = for_code(answer[1])
    if error is not NoError:
        raise error(partition)
    aborted = next((part for part in reversed(answer[:-1]) if isinstance(part, list)), None)
    try:
        raw = taken_apart(partition, position, bytes(answer[-1] or b""), aborted or ())
    except CorruptRecordException as broken:
        raise KafkaTrouble(
            f"{partition.topic} holds bytes at or after offset {position} of partition {partition.partition} whose checksum is"
            " wrong. Look at the broker's disk; to go on without them set the group's offset behind them"
        ) from broken
    return raw if raw.next_offset > position else None
