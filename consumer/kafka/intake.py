"""Intake: completion events become pending runs (design, way of the data, 1).

A batch is validated, inserted, its dead letters are written, and only then are its offsets committed; while PostgreSQL works
on one, the next is read and validated. Intake never waits for a model call, so a replayed topic drains at the speed of a bulk
insert. Whatever fails, the batch comes again from the committed offset, and the ledger takes each key once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, KafkaError

from consumer.errors import InvalidMessage, InvalidReason
from consumer.health import Health
from consumer.kafka.careful import read_carefully
from consumer.kafka.connection import REQUEST_TIMEOUT_MS, KafkaTrouble, connection_options, started
from consumer.kafka.dead_letters import DeadLetter, DeadLetters
from consumer.kafka.messages import Record, to_new_run
from consumer.kafka.positions import METADATA_AGE_MS, NO_POSITION, begin_at_oldest, durable_positions
from consumer.kafka.raw_records import UNREADABLE
from consumer.kafka.storage_paths import AllowedPaths
from consumer.kafka.topics import Topics
from consumer.logs import get_log
from consumer.metrics import Metrics
from consumer.postgres.database import DataRefused
from consumer.postgres.runs import Ledger, NewRun
from consumer.settings import Settings

PART = "intake"
BATCH_RECORDS = 2_000
_POLL_MS = 250
_FETCH_BYTES = 16 * 1024 * 1024  # a larger message still comes, alone: a fetch returns one at least
_PARTITION_BYTES = _FETCH_BYTES // 4
_SLICE_RECORDS = 50  # a millisecond: the insert that runs beside it needs a few round trips before PostgreSQL can begin
_SLICE_BYTES = 256 * 1024
_COMMIT_SECONDS = 15.0

_log = get_log(PART)
_Taken = TypeVar("_Taken")


@dataclass(slots=True)
class _Batch:
    """Records read together: what a run can be made of and what not, and the offsets to commit when all is durable."""

    ownership: int
    offsets: dict[TopicPartition, int]
    runs: list[tuple[Record, NewRun]] = field(default_factory=list)
    letters: list[DeadLetter] = field(default_factory=list)


class Intake:
    """The part that reads `quick-pass-completed`."""

    def __init__(self, settings: Settings, ledger: Ledger, health: Health, metrics: Metrics) -> None:
        self._settings = settings
        self._ledger = ledger
        self._health = health
        self._metrics = metrics
        self._topics = Topics(settings)
        self._paths = AllowedPaths(settings.storage_path_pattern)

    async def run(self, stopping: asyncio.Event) -> None:
        """Take events until `stopping` is set, then finish the batch in hand.

        Raises:
            KafkaTrouble: when Kafka refuses or doesn't answer.
            TopicsMissing: when a topic isn't there.
            DatabaseUnavailable: when the runs can't be inserted.
        """
        await self._topics.require()
        ownership = _Ownership(lambda: self._health.well(PART))
        consumer = _consumer(self._settings)
        consumer.subscribe([self._topics.names.completed], listener=ownership)
        try:
            async with DeadLetters.connect(self._settings) as dead_letters:
                await started(consumer, self._settings)
                read: _Batch | None = None
                while not stopping.is_set():
                    read = await _side_by_side(
                        self._save(read, consumer, ownership, dead_letters), self._read(consumer, ownership)
                    )
                await self._save(read, consumer, ownership, dead_letters)
        finally:
            await consumer.stop()

    async def _read(self, consumer: AIOKafkaConsumer, ownership: _Ownership) -> _Batch | None:
        """The next batch, validated in slices between which other tasks run: leases are renewed on the same event loop."""
        try:
            fetched = await consumer.getmany(timeout_ms=_POLL_MS, max_records=BATCH_RECORDS)
        except NO_POSITION as error:
            async with ownership.saving:  # what was read before is committed when the lock is free
                await begin_at_oldest(consumer, error, self._metrics, _log)
            return None
        except UNREADABLE:
            async with ownership.saving:
                return await self._read_carefully(consumer, ownership)
        except KafkaError as error:
            raise KafkaTrouble(f"Kafka refused to hand out completion events ({type(error).__name__})") from error
        if not fetched:
            return None
        # A fetch may begin before a rebalance and end after it: what it brings is of the assignment that holds now.
        batch = _Batch(ownership.number, {partition: records[-1].offset + 1 for partition, records in fetched.items()})
        await self._validate(batch, chain.from_iterable(fetched.values()))
        return batch

    async def _read_carefully(self, consumer: AIOKafkaConsumer, ownership: _Ownership) -> _Batch:
        """The next records as they lie in Kafka, from what is committed on, since the client has lost count of its positions."""
        owned, positions = ownership.number, await durable_positions(consumer)
        found = await read_carefully(self._settings, positions, _PARTITION_BYTES)
        if not found:
            raise KafkaTrouble(f"a record of {self._topics.names.completed} can't be read, and is gone on a second look")
        batch = _Batch(owned, {partition: raw.next_offset for partition, raw in found.items()})
        records = [record for raw in found.values() for record in raw.readable()]
        batch.letters += [DeadLetter(record, _unreadable()) for raw in found.values() for record in raw.unreadable()]
        _log.info("read_carefully", records=len(records), hint="the Kafka client could not read one of these records")
        await self._validate(batch, records)
        for partition, position in (positions | batch.offsets).items():
            consumer.seek(partition, position)
        return batch

    async def _validate(self, batch: _Batch, records: Iterable[Record]) -> None:
        """Sort records into runs and dead letters, in slices between which other tasks run."""
        slice_records = slice_bytes = 0
        for record in records:
            try:
                batch.runs.append((record, to_new_run(record, self._paths)))
            except InvalidMessage as problem:
                batch.letters.append(DeadLetter(record, problem))
            slice_records += 1
            slice_bytes += len(record.value or b"")
            if slice_records >= _SLICE_RECORDS or slice_bytes >= _SLICE_BYTES:
                slice_records = slice_bytes = 0
                await asyncio.sleep(0)

    async def _save(
        self, batch: _Batch | None, consumer: AIOKafkaConsumer, ownership: _Ownership, dead_letters: DeadLetters
    ) -> None:
        """Make everything in the batch durable, then commit its offsets."""
        if batch is None:
            return
        async with ownership.saving:
            if batch.ownership != ownership.number:
                return  # its partitions were given away in the meantime: whoever has them now takes it
            new = await self._insert(batch.runs, batch.letters)
            if batch.letters:
                await dead_letters.bury(batch.letters)
            self._count(new, batch)
            await _commit(consumer, batch.offsets)

    async def _insert(self, runs: list[tuple[Record, NewRun]], letters: list[DeadLetter]) -> int:
        """Insert runs and return how many were new; what PostgreSQL refuses as data is added to `letters`.

        A refused batch goes in by halves, so that one bad row among thousands costs a dozen statements.
        """
        if not runs:
            return 0
        try:
            return await self._ledger.accept([run for _, run in runs])
        except DataRefused:
            if len(runs) == 1:
                problem = InvalidMessage(InvalidReason.REFUSED_BY_DATABASE, "PostgreSQL refused a value of the event")
                letters.append(DeadLetter(runs[0][0], problem))
                return 0
        middle = len(runs) // 2
        return await self._insert(runs[:middle], letters) + await self._insert(runs[middle:], letters)

    def _count(self, new: int, batch: _Batch) -> None:
        refused = sum(letter.problem.reason is InvalidReason.REFUSED_BY_DATABASE for letter in batch.letters)
        repeated = len(batch.runs) - refused - new
        self._metrics.messages_taken.inc(new)
        if repeated:
            self._metrics.messages_repeated.inc(repeated)
            hint = "their runs are in the ledger already, or their users were forgotten"
            _log.info("messages_repeated", count=repeated, hint=hint)
        for letter in batch.letters:
            record, problem = letter.record, letter.problem
            self._metrics.messages_dead_lettered.labels(problem.reason).inc()
            place = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
            _log.warning("message_dead_lettered", reason=problem.reason, detail=problem.detail, **place)


class _Ownership(ConsumerRebalanceListener):  # type: ignore[misc]
    """Which assignment of partitions this is, and the lock that keeps it while a batch is saved.

    Partitions are given away after the batch that is being saved was committed, so that a rebalance repeats little; the
    batch read meanwhile is dropped.
    """

    def __init__(self, assigned: Callable[[], None]) -> None:
        self.number = 0
        self.saving = asyncio.Lock()
        self._assigned = assigned

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:  # noqa: ARG002 - aiokafka's signature
        async with self.saving:
            self.number += 1

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:  # noqa: ARG002 - as above
        """From now on records come; positions come from the committed offsets."""
        self._assigned()


async def _side_by_side(save: Coroutine[Any, Any, None], read: Coroutine[Any, Any, _Taken]) -> _Taken:
    """Both at once; the first error stops the other and is raised as itself."""
    try:
        async with asyncio.TaskGroup() as both:
            both.create_task(save)
            reading = both.create_task(read)
    except ExceptionGroup as group:
        raise group.exceptions[0] from group.exceptions[0].__cause__
    return reading.result()


def _unreadable() -> InvalidMessage:
    return InvalidMessage(
        InvalidReason.UNREADABLE_BATCH, "expected a batch of records that can be unpacked; the value is the whole batch"
    )


def _consumer(settings: Settings) -> AIOKafkaConsumer:
    return AIOKafkaConsumer(
        **connection_options(settings),
        group_id=settings.consumer_group,
        enable_auto_commit=False,
        isolation_level="read_committed",
        auto_offset_reset="none",  # it would be silent about what it passes over
        metadata_max_age_ms=METADATA_AGE_MS,
        request_timeout_ms=REQUEST_TIMEOUT_MS,
        fetch_max_bytes=_FETCH_BYTES,
        max_partition_fetch_bytes=_PARTITION_BYTES,
    )


async def _commit(consumer: AIOKafkaConsumer, offsets: dict[TopicPartition, int]) -> None:
    """Commit what is durable now. Partitions that went to another member are left to it: it takes the records again."""
    owned = consumer.assignment()
    mine = {partition: offset for partition, offset in offsets.items() if partition in owned}
    try:
        async with asyncio.timeout(_COMMIT_SECONDS):
            if mine:
                await consumer.commit(mine)
    except CommitFailedError:
        _log.info("commit_left_to_another_member", hint="the group rebalanced; the records are delivered again")
    except (KafkaError, TimeoutError) as error:
        raise KafkaTrouble(f"offsets could not be committed ({type(error).__name__})") from error
