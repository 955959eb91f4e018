"""The relay: committed outbox rows go to Kafka, each exactly once for a `read_committed` reader (design, way of the data, 6).

A batch and the ids of its events are one Kafka transaction: the ids are the metadata of the group's one committed offset.
Whoever leads next reads them back and marks those rows before it sends anything, so that a relay killed between Kafka's
commit and the mark in PostgreSQL has sent nothing twice.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import IllegalOperation, KafkaError
from aiokafka.structs import OffsetAndMetadata

from consumer.health import Health
from consumer.kafka.connection import KafkaTrouble, admin_client, idempotent_producer
from consumer.kafka.groups import committed_offsets
from consumer.kafka.messages import to_message
from consumer.kafka.refusals import what_is_denied
from consumer.kafka.topics import Topics
from consumer.logs import get_log
from consumer.metrics import Metrics
from consumer.postgres.outbox import Outbox, OutboxRow
from consumer.postgres.wakeups import OUTBOX_CHANNEL, Wakeups
from consumer.settings import Settings, required

PART = "relay"
BATCH_ROWS = 150  # ids of 16 bytes in base64: 3,200 of the 4,096 bytes that Kafka keeps with an offset
_TRANSACTION_SECONDS = 30.0
_LONGEST_NAP_SECONDS = 0.5

_log = get_log(PART)


class Relay:
    """The part that publishes the outbox. One leads; the others stand by for the lock in PostgreSQL."""

    def __init__(self, settings: Settings, outbox: Outbox, health: Health, metrics: Metrics) -> None:
        self._settings = settings
        self._outbox = outbox
        self._health = health
        self._metrics = metrics
        self._topics = Topics(settings)
        self._name = relay_name(settings)
        self._place = TopicPartition(self._topics.names.memory_saved, 0)

    async def run(self, stopping: asyncio.Event) -> None:
        """Lead or stand by until `stopping` is set, then finish the batch in hand.

        Raises:
            KafkaTrouble: after any error of Kafka's, a commit of unknown outcome included.
            TopicsMissing: when a topic isn't there.
            DatabaseUnavailable: when PostgreSQL is away, and with it the lock.
        """
        await self._topics.require()
        url = required(self._settings.database_url, "DATABASE_URL")
        async with Wakeups.connect(url, self._settings.lease_seconds, channels=(OUTBOX_CHANNEL,)) as wakeups:
            while not stopping.is_set():
                if await wakeups.try_lock(self._name):
                    await self._lead(wakeups, stopping)
                    return
                self._health.well(PART)
                await self._rest(wakeups, stopping, heed_notifications=False)

    async def _lead(self, wakeups: Wakeups, stopping: asyncio.Event) -> None:
        try:
            async with idempotent_producer(self._settings, transactional_id=self._name) as producer:
                await self._recover()
                self._health.well(PART)
                _log.info("relay_leads")
                while not stopping.is_set():
                    published = await self._publish_next(producer)
                    await self._tell_backlog()
                    if published < BATCH_ROWS:
                        await self._rest(wakeups, stopping)
                    await wakeups.ping()
                await self._publish_next(producer)  # what the last runs of this worker announced
        except (KafkaError, IllegalOperation, TimeoutError, AssertionError) as error:
            # aiokafka says that a producer was fenced in any of these ways.
            raise KafkaTrouble(what_is_denied(error) or f"Kafka did not take the outbox ({type(error).__name__})") from error

    async def _recover(self) -> None:
        """Mark what the last committed batch holds. A predecessor's transaction has ended by now: InitProducerId waits for it."""
        async with admin_client(self._settings) as admin:
            committed = await committed_offsets(admin, self._name, [self._place])
        event_ids = from_metadata(committed[self._place].metadata)
        marked = await self._outbox.mark_published(event_ids) if event_ids else 0
        if marked:
            _log.info("last_batch_marked", count=marked, hint="a relay stopped between Kafka's commit and the mark")

    async def _publish_next(self, producer: AIOKafkaProducer) -> int:
        """Publish at most 150 rows and return how many it were."""
        rows = await self._outbox.unpublished(BATCH_ROWS)
        if not rows:
            return 0
        async with asyncio.timeout(_TRANSACTION_SECONDS):
            places = await self._transact(producer, rows)
        await self._outbox.mark_published([row.event_id for row in rows], places)
        for row in rows:
            self._metrics.events_published.labels(row.event_type).inc()
        return len(rows)

    async def _transact(self, producer: AIOKafkaProducer, rows: Sequence[OutboxRow]) -> list[tuple[int, int]]:
        """Send the rows as one transaction; returns partition and offset of each, once it is committed."""
        await producer.begin_transaction()
        sending: list[asyncio.Future[Any]] = []
        try:
            for row in rows:
                message = to_message(row)
                topic = self._topics.names.of(row.event_type)
                sent = await producer.send(topic, message.value, message.key, headers=message.headers)
                sent.add_done_callback(_looked_at)
                sending.append(sent)
            metadata = to_metadata(row.event_id for row in rows)
            await producer.send_offsets_to_transaction({self._place: OffsetAndMetadata(0, metadata)}, self._name)
            sent_to = await asyncio.gather(*sending)  # aiokafka would commit without those that the broker refused
            await producer.commit_transaction()
            return [(sent.partition, sent.offset) for sent in sent_to]
        finally:
            _let_go(sending)

    async def _tell_backlog(self) -> None:
        count, oldest_age_seconds = await self._outbox.backlog()
        self._metrics.outbox_unpublished.set(count)
        self._metrics.outbox_oldest_seconds.set(oldest_age_seconds or 0)

    async def _rest(self, wakeups: Wakeups, stopping: asyncio.Event, *, heed_notifications: bool = True) -> None:
        """Wait for a notification or the poll, in naps short enough for `stopping` and for the session's timeout."""
        loop = asyncio.get_running_loop()
        until = loop.time() + min(self._settings.poll_seconds, self._settings.lease_seconds / 3)
        while not stopping.is_set() and (left := until - loop.time()) > 0:
            if await wakeups.wait(min(left, _LONGEST_NAP_SECONDS)) and heed_notifications:
                return


def _let_go(sending: Sequence[asyncio.Future[Any]]) -> None:
    """Hear each future out or cancel it: one that fails and is never asked would log a traceback a record."""
    for future in sending:
        if not future.cancel() and not future.cancelled():
            future.exception()


def _looked_at(sent: asyncio.Future[object]) -> None:
    """A producer that is fenced fails every record it has; the first failure is told, the others need no line of their own."""
    if not sent.cancelled():
        sent.exception()


def relay_name(settings: Settings) -> str:
    """Transactional id, group and lock of an environment's relay."""
    return f"{settings.topic_prefix}{settings.consumer_group}-relay"


def to_metadata(event_ids: Iterable[uuid.UUID]) -> str:
    """The ids of a batch as they stand in the metadata of the committed offset."""
    return base64.b64encode(b"".join(event_id.bytes for event_id in event_ids)).decode()


def from_metadata(metadata: str | None) -> list[uuid.UUID]:
    """The ids of the last committed batch; none where nothing was committed yet.

    Raises:
        KafkaTrouble: when the metadata is not a relay's: another program commits under the relay's group.
    """
    try:
        packed = base64.b64decode(metadata or "", validate=True)
        return [uuid.UUID(bytes=packed[at : at + 16]) for at in range(0, len(packed), 16)]
    except (binascii.Error, ValueError):
        raise KafkaTrouble(
            "the relay's group holds an offset that no relay committed; give it a CONSUMER_GROUP of its own"
        ) from None
