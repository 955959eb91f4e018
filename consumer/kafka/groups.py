"""What a consumer group has committed, asked from outside of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError, GroupLoadInProgressError
from aiokafka.structs import OffsetAndMetadata

from consumer.kafka.connection import START_SECONDS, KafkaTrouble

_AGAIN_SECONDS = 0.1


async def committed_offsets(
    admin: AIOKafkaAdminClient, group: str, partitions: Sequence[TopicPartition]
) -> dict[TopicPartition, OffsetAndMetadata]:
    """What the group has committed for each of the partitions; offset -1 where it has nothing.

    Raises:
        KafkaTrouble: when the group's coordinator doesn't say. An empty answer is never taken for "nothing committed".
    """
    coordinator = await _coordinator(admin, group)
    committed: dict[TopicPartition, OffsetAndMetadata] = await admin.list_consumer_group_offsets(
        group, coordinator, partitions=list(partitions)
    )
    if set(committed) != set(partitions):  # the client shows an error of the whole group as an answer without partitions
        raise KafkaTrouble(f"the coordinator of group {group} did not answer; expected its committed offsets")
    return committed


async def _coordinator(admin: AIOKafkaAdminClient, group: str) -> int:
    """The group's coordinator. A new cluster makes its own topic for offsets when it is first asked, which takes a moment."""
    async with asyncio.timeout(START_SECONDS):
        while True:
            try:
                return int(await admin.find_coordinator(group))
            except (GroupCoordinatorNotAvailableError, GroupLoadInProgressError):
                await asyncio.sleep(_AGAIN_SECONDS)
