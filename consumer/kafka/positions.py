"""Where a group goes on when Kafka no longer has what stands at its position; nothing is passed over in silence.

The client would begin at the oldest record by itself (`auto_offset_reset`) and say nothing, so it is told not to.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError, NoOffsetForPartitionError, OffsetOutOfRangeError

from consumer.kafka.connection import REQUEST_TIMEOUT_MS, KafkaTrouble
from consumer.logs import Log
from consumer.metrics import Metrics

METADATA_AGE_MS = 3_000  # so soon a topic that was made anew, or partitions that were added, are noticed; by default 5 minutes
_PATIENCE_SECONDS = 2.0
NO_POSITION = (NoOffsetForPartitionError, OffsetOutOfRangeError)
"""What a consumer with `auto_offset_reset="none"` raises, once a partition."""


async def begin_at_oldest(consumer: AIOKafkaConsumer, error: KafkaError, metrics: Metrics, log: Log) -> None:
    """Let the partition of the error begin at the oldest record that Kafka has, and say what was missed.

    Where retention removed records before they were read, their number is counted and the new position committed, so that it
    is counted once. What was read before has to be committed when this is called.

    Returns in any case within two seconds, so that a part can stop; while no broker answers the same error comes again.

    Raises:
        KafkaTrouble: when Kafka refuses.
    """
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await _begin(consumer, *_place_of(error), metrics, log)
    except KafkaError as trouble:
        raise KafkaTrouble(f"Kafka does not say where its oldest messages are ({type(trouble).__name__})") from trouble


async def _begin(consumer: AIOKafkaConsumer, partition: TopicPartition, position: int | None, metrics: Metrics, log: Log) -> None:
    oldest = (await consumer.beginning_offsets([partition]))[partition]
    place = {"topic": partition.topic, "partition": partition.partition, "begins_at": oldest}
    try:
        consumer.seek(partition, oldest)
    except IllegalStateError:
        return  # it went to another member meanwhile, who finds the same
    if position is None:
        log.info("no_offset_committed", **place, hint="a new group, or one whose offsets have expired; it begins at the oldest")
    elif position < oldest:
        metrics.messages_missed.inc(oldest - position)
        log.error("messages_missed", **place, expected=position, count=oldest - position, hint=_MISSED)
        await _commit(consumer, partition, oldest)
    else:
        log.error("log_ends_before_position", **place, expected=position, hint=_SHORTER)
        await _commit(consumer, partition, oldest)


async def durable_positions(consumer: AIOKafkaConsumer) -> dict[TopicPartition, int]:
    """What is committed of each assigned partition, else where its log begins.

    Raises:
        KafkaTrouble: when Kafka doesn't say.
    """
    try:
        async with asyncio.timeout(REQUEST_TIMEOUT_MS / 1000):
            committed = {partition: await consumer.committed(partition) for partition in consumer.assignment()}
            unknown = [partition for partition, offset in committed.items() if offset is None]
            return committed | (await consumer.beginning_offsets(unknown) if unknown else {})
    except (KafkaError, TimeoutError) as error:
        raise KafkaTrouble(f"Kafka does not say what is committed ({type(error).__name__})") from error


def _place_of(error: KafkaError) -> tuple[TopicPartition, int | None]:
    (about,) = error.args
    if isinstance(error, NoOffsetForPartitionError):
        return about, None
    ((partition, position),) = about.items()
    return partition, position


async def _commit(consumer: AIOKafkaConsumer, partition: TopicPartition, offset: int) -> None:
    try:
        await consumer.commit({partition: offset})
    except CommitFailedError:
        return  # the group rebalanced: whoever has the partition now finds the same


_MISSED = (
    "retention removed them before they were read (at most so many: markers of transactions count too); publish their events"
    " again, see 'Retention overtook the consumer' in docs/runbook.md"
)
_SHORTER = (
    "the topic was made anew, or a broker lost the end of its log; what is there is read from the beginning, and what the ledger"
    " knows changes nothing"
)
