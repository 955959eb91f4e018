"""The input topic as seen from outside of intake: what it has, and a range of it read once more, in no group."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from consumer.errors import CommandError, ConfigurationError, InvalidMessage
from consumer.kafka.careful import read_carefully
from consumer.kafka.connection import REQUEST_TIMEOUT_MS, KafkaTrouble, admin_client, connection_options, started
from consumer.kafka.groups import committed_offsets
from consumer.kafka.messages import A_DAY_MS, Record, to_new_run
from consumer.kafka.raw_records import UNREADABLE
from consumer.kafka.storage_paths import AllowedPaths
from consumer.kafka.topic_range import Extent, TopicRange
from consumer.kafka.topics import Topics
from consumer.postgres.criteria import Criteria
from consumer.postgres.runs import NewRun
from consumer.settings import Settings

_BATCH_RECORDS = 1_000
_PARTITION_BYTES = 4 * 1024 * 1024
_POLL_MS = 200


@dataclass(slots=True)
class TopicEvents:
    """Some records of the range, looked at: events to be replayed, and how many others there were.

    `not_yet_taken` are events that intake has still to take, `invalid` are records that no run can be made of.
    """

    records: int = 0
    runs: list[NewRun] = field(default_factory=list)
    not_yet_taken: int = 0
    invalid: int = 0


class InputTopic:
    """`quick-pass-completed`, for the length of a command."""

    def __init__(self, settings: Settings, consumer: AIOKafkaConsumer, topic: str) -> None:
        self._settings = settings
        self._consumer = consumer
        self._topic = topic
        self._paths = AllowedPaths(settings.storage_path_pattern)

    @classmethod
    @asynccontextmanager
    async def connect(cls, settings: Settings) -> AsyncIterator[InputTopic]:
        """Connect for the length of the block.

        Raises:
            TopicsMissing: when the topic isn't there.
            KafkaTrouble: when the brokers can't be reached or stop answering.
        """
        topics = Topics(settings)
        await topics.require(topics.names.completed)
        consumer = AIOKafkaConsumer(
            **connection_options(settings),
            enable_auto_commit=False,
            auto_offset_reset="none",  # it would be silent about what it passes over
            isolation_level="read_committed",
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            max_partition_fetch_bytes=_PARTITION_BYTES,
        )
        try:
            await started(consumer, settings)
            yield cls(settings, consumer, topics.names.completed)
        except OffsetOutOfRangeError as error:
            raise CommandError(
                "the topic no longer has the events of this replay; '--source ledger' takes what is known of them"
            ) from error
        except (KafkaError, TimeoutError) as error:
            raise KafkaTrouble(f"the events could not be read ({type(error).__name__})") from error
        finally:
            await asyncio.sleep(0)  # its tasks have to have begun: else `stop` raises their cancellation
            await consumer.stop()

    async def extent(self) -> Extent:
        """Where the topic begins and ends now, and how far intake has come."""
        async with admin_client(self._settings) as admin:
            [described] = await admin.describe_topics([self._topic])
            places = sorted(TopicPartition(self._topic, each["partition"]) for each in described["partitions"])
            committed = await committed_offsets(admin, self._settings.consumer_group, places)
        async with asyncio.timeout(REQUEST_TIMEOUT_MS / 1000):
            begins = await self._consumer.beginning_offsets(places)
            ends = await self._consumer.end_offsets(places)
            oldest = await self._consumer.offsets_for_times(dict.fromkeys(places, 0))
        return Extent(
            begins=_by_number(begins),
            oldest_ms={place.partition: None if oldest[place] is None else oldest[place].timestamp for place in places},
            ends=_by_number(ends),
            taken={
                place.partition: begins[place] if committed[place].offset < 0 else committed[place].offset for place in places
            },
        )

    async def range_for(self, criteria: Criteria, extent: Extent) -> TopicRange:
        """The offsets that the criteria name, or in which events of that time can be.

        Raises:
            ConfigurationError: when a partition is named that there isn't.
            CommandError: when an offset is named that the topic no longer has.
        """
        named = criteria.from_offsets.keys() | criteria.to_offsets.keys()
        if unknown := named - extent.begins.keys():
            raise ConfigurationError(f"--from-offset, --to-offset: {self._topic} has no partition {min(unknown)}")
        partitions = sorted(named or extent.begins)
        begins = {partition: extent.begins[partition] for partition in partitions}
        for partition, offset in criteria.from_offsets.items():
            if offset < begins[partition]:
                raise CommandError(
                    f"{self._topic} no longer has offset {offset} of partition {partition}; it begins at {begins[partition]}"
                )
            begins[partition] = offset
        ends = {partition: extent.ends[partition] for partition in partitions}
        ends |= {partition: min(ends[partition], offset) for partition, offset in criteria.to_offsets.items()}
        if criteria.since is not None:
            for partition, offset in (await self._offsets_since(criteria.since, partitions, extent)).items():
                begins[partition] = max(begins[partition], offset)
        return TopicRange(begins, ends, {partition: extent.taken[partition] for partition in partitions})

    async def _offsets_since(self, since: datetime, partitions: Collection[int], extent: Extent) -> dict[int, int]:
        """Where to begin: a record is accepted whose event was completed up to a day after the record's own time."""
        moment = max(0, int(since.timestamp() * 1000) - A_DAY_MS)
        places = [TopicPartition(self._topic, partition) for partition in partitions]
        async with asyncio.timeout(REQUEST_TIMEOUT_MS / 1000):
            found = await self._consumer.offsets_for_times(dict.fromkeys(places, moment))
        begins = {place.partition: None if found[place] is None else found[place].offset for place in places}
        return {
            partition: offset if offset is not None else extent.ends[partition]
            for partition, offset in begins.items()
            if extent.oldest_ms[partition] is not None  # else its records have no time
        }

    async def events(self, wanted: TopicRange, criteria: Criteria) -> AsyncIterator[TopicEvents]:
        """The events of the range that fit, partition by partition, in batches."""
        for partition, end in wanted.ends.items():
            if wanted.begins[partition] >= end:
                continue
            place = TopicPartition(self._topic, partition)
            async for records in self._records(place, wanted.begins[partition], end):
                yield self._look_at(records, wanted.taken[partition], criteria)

    def _look_at(self, records: Collection[Record | None], taken: int, criteria: Criteria) -> TopicEvents:
        found = TopicEvents(len(records))
        for record in records:
            try:
                run = None if record is None else to_new_run(record, self._paths)
            except InvalidMessage:
                run = None
            if record is None or run is None:
                found.invalid += 1
            elif not criteria.takes(run.user_id, run.completed_at):
                continue
            elif record.offset >= taken:
                found.not_yet_taken += 1
            else:
                found.runs.append(run)
        return found

    async def _records(self, place: TopicPartition, begin: int, end: int) -> AsyncIterator[list[Record | None]]:
        """The records of a partition in batches; None stands for a batch of records that can't be unpacked."""
        self._consumer.assign([place])
        self._consumer.seek(place, begin)
        position = begin
        while position < end:
            try:
                records, position = await self._fetch(place, end)
            except UNREADABLE:
                raw = (await read_carefully(self._settings, {place: position}, _PARTITION_BYTES)).get(place)
                if raw is None:
                    raise KafkaTrouble(f"a record of {self._topic} can't be read, and is gone on a second look") from None
                records, position = [*raw.readable(), *(None for _ in raw.unreadable())], raw.next_offset
                self._consumer.seek(place, position)
            if records := [record for record in records if record is None or record.offset < end]:
                yield records

    async def _fetch(self, place: TopicPartition, end: int) -> tuple[list[Any], int]:
        """The next records, and where it goes on; markers of transactions are passed over, so there may be none."""
        async with asyncio.timeout(REQUEST_TIMEOUT_MS / 1000):
            while True:
                fetched = await self._consumer.getmany(place, timeout_ms=_POLL_MS, max_records=_BATCH_RECORDS)
                if records := fetched.get(place):
                    return records, records[-1].offset + 1
                if (position := await self._consumer.position(place)) >= end:
                    return [], position


def _by_number(offsets: Mapping[TopicPartition, int]) -> dict[int, int]:
    return {place.partition: offset for place, offset in offsets.items()}
