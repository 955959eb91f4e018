"""What a consumer group has committed, asked from outside of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError, GroupLoadInProgressError, NotCoordinatorForGroupError
from aiokafka.structs import OffsetAndMetadata

from consumer.kafka.connection import START_SECONDS, KafkaTrouble

_AGAIN_SECONDS = 0.1


async def committed_offsets(
    admin: AIOKafkaAdminClient, group: str, partitions: Sequence[TopicPartition]
) -> dict[TopicPartition, OffsetAndMetadata]:
    """What the group has committed for each of the partitions; offset -1 where it has nothing.

    Waits for a coordinator: a new cluster makes its own topic for offsets when it is first asked, and one that has just been
    elected loads it first.

    Raises:
        KafkaTrouble: when no coordinator says. An empty answer is never taken for "nothing committed".
    """
    try:
        async with asyncio.timeout(START_SECONDS):
            while True:
                with suppress(GroupCoordinatorNotAvailableError, GroupLoadInProgressError, NotCoordinatorForGroupError):
                    committed: dict[TopicPartition, OffsetAndMetadata]
                    committed = await admin.list_consumer_group_offsets(group, partitions=list(partitions))
                    if set(committed) == set(partitions):  # the client shows an error of the group as an empty answer
                        return committed
                await asyncio.sleep(_AGAIN_SECONDS)
    except TimeoutError:
        raise KafkaTrouble(f"the coordinator of group {group} did not answer; expected its committed offsets") from None
