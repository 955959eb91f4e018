"""Alerts: tells a webhook of runs that failed (design, way of the data, 7)."""

from __future__ import annotations

import asyncio

import aiohttp
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, KafkaError
from pydantic import ValidationError

from consumer.health import Health
from consumer.kafka.alert_messages import Held, alert_body
from consumer.kafka.connection import REQUEST_TIMEOUT_MS, KafkaTrouble, admin_client, connection_options, started
from consumer.kafka.groups import committed_offsets
from consumer.kafka.messages import Record
from consumer.kafka.positions import METADATA_AGE_MS, NO_POSITION, begin_at_oldest
from consumer.kafka.topics import Topics
from consumer.kafka.webhook import MINUTE_SECONDS, Webhook
from consumer.logs import get_log
from consumer.metrics import Metrics
from consumer.settings import Settings
from schemas.events import ErrorCode, V2Failed

PART = "alerts"
_POLL_MS = 250
_NOT_TOLD = frozenset({ErrorCode.SUPERSEDED, ErrorCode.CANCELLED})  # nothing is wrong: somebody or something newer took over

_log = get_log(PART)


class Alerts:
    """The part that reads `v2-failed`. It needs FULL_PASS_ALERT_WEBHOOK_URL and is not to be started without.

    The first failures of a minute are told one by one; those beyond the webhook's limit are counted, and when there is room
    again one message sums them up. `minute_seconds` is how long a call counts.
    """

    def __init__(self, settings: Settings, health: Health, metrics: Metrics, minute_seconds: float = MINUTE_SECONDS) -> None:
        self._settings = settings
        self._health = health
        self._metrics = metrics
        self._topics = Topics(settings)
        self._webhook = Webhook(settings, metrics, minute_seconds)

    async def run(self, stopping: asyncio.Event) -> None:
        """Tell of failures until `stopping` is set.

        A failure is told at least once: its offset is committed after the webhook took the message that tells or counts it.

        Raises:
            WebhookUnavailable: when the webhook fails; what it was not told is read again after a restart.
            KafkaTrouble: when Kafka refuses or doesn't answer.
            TopicsMissing: when the topic isn't there.
        """
        await self._topics.require()
        await fix_the_beginning(self._settings)
        backlog = _Backlog()
        consumer = _consumer(self._settings)
        consumer.subscribe([self._topics.names.failed], listener=backlog)
        try:
            async with self._webhook.connections() as http:
                await started(consumer, self._settings)
                if not self._webhook.failing:  # else the reason stands until it takes something, or nothing is left to tell
                    self._health.well(PART)
                while not stopping.is_set():
                    await self._tell_next(consumer, http, backlog, stopping)
        finally:
            await consumer.stop()

    async def _tell_next(
        self, consumer: AIOKafkaConsumer, http: aiohttp.ClientSession, backlog: _Backlog, stopping: asyncio.Event
    ) -> None:
        try:
            if backlog.held.count and not self._webhook.room_in_seconds:
                await self._tell_held(consumer, http, backlog)
            # One at a time: what is in hand when partitions are revoked is read again, so there must be nothing behind it.
            fetched = await consumer.getmany(timeout_ms=_POLL_MS, max_records=1)
            for partition, records in fetched.items():
                await self._take(partition, records[0], consumer, http, backlog)
            if self._webhook.failing and not backlog.held.count and await _nothing_left(consumer):
                self._health.well(PART)
        except NO_POSITION as error:
            if await self._tell_all(consumer, http, backlog, stopping):
                await begin_at_oldest(consumer, error, self._metrics, _log)
        except CommitFailedError:
            _log.info("commit_left_to_another_member", hint="the group rebalanced; the alert may be sent again")
        except KafkaError as error:
            raise KafkaTrouble(f"alerts can't be read ({type(error).__name__})") from error

    async def _take(
        self,
        partition: TopicPartition,
        record: Record,
        consumer: AIOKafkaConsumer,
        http: aiohttp.ClientSession,
        backlog: _Backlog,
    ) -> None:
        """Tell of one record, or let it wait for the next message."""
        failure = self._failure(record)
        if backlog.held.count or (failure is not None and self._webhook.room_in_seconds):
            backlog.held.cover({partition: record.offset + 1}, failure)
            await asyncio.sleep(0)  # what was fetched ahead comes without a wait; other parts run on this loop, too
            return
        if failure is not None:
            await self._webhook.tell(http, alert_body(failure), {"run_id": str(failure.run_id)})
            self._health.well(PART)
        await _commit(consumer, {partition: record.offset + 1})

    def _failure(self, record: Record) -> V2Failed | None:
        """What to tell of; None for what nobody has to know."""
        try:
            failure = V2Failed.model_validate_json(record.value or b"")
        except ValidationError:
            self._metrics.alerts_sent.labels("invalid").inc()
            _log.warning("alert_not_readable", topic=record.topic, partition=record.partition, offset=record.offset)
            return None
        return None if failure.error_code in _NOT_TOLD else failure

    async def _tell_held(self, consumer: AIOKafkaConsumer, http: aiohttp.ClientSession, backlog: _Backlog) -> None:
        """Sum up what was held back. When partitions are revoked meanwhile, it is read and told again."""
        held = backlog.held
        await self._webhook.tell(http, held.body(), {"failures": held.count})
        self._health.well(PART)
        _log.info("failures_summed_up", count=held.count)
        if backlog.held is held:
            backlog.held = Held()
            await _commit(consumer, held.offsets)

    async def _tell_all(
        self, consumer: AIOKafkaConsumer, http: aiohttp.ClientSession, backlog: _Backlog, stopping: asyncio.Event
    ) -> bool:
        """Tell what is held back as soon as there is room; False when `stopping` came first."""
        if not backlog.held.count:
            return True
        try:
            async with asyncio.timeout(self._webhook.room_in_seconds):
                await stopping.wait()
        except TimeoutError:
            await self._tell_held(consumer, http, backlog)
        return not stopping.is_set()


class _Backlog(ConsumerRebalanceListener):  # type: ignore[misc]
    """What the limit holds back. A rebalance sets positions back to what is committed, so it is read and counted again."""

    def __init__(self) -> None:
        self.held = Held()

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:  # noqa: ARG002 - aiokafka's signature
        self.held = Held()

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Nothing is held: since the revocation no record came."""


def alerts_group(settings: Settings) -> str:
    """The group under which an environment's alerts are read."""
    return f"{settings.topic_prefix}{settings.consumer_group}-alerts"


async def _nothing_left(consumer: AIOKafkaConsumer) -> bool:
    """Whether all was handed out that Kafka has of our partitions."""
    for partition in consumer.assignment():
        end = consumer.last_stable_offset(partition)  # None before the first fetch
        if end is None or await consumer.position(partition) < end:
            return False
    return True


async def _commit(consumer: AIOKafkaConsumer, offsets: dict[TopicPartition, int]) -> None:
    """Commit what the webhook was told; partitions that went to another member are left to it."""
    if mine := {partition: offset for partition, offset in offsets.items() if partition in consumer.assignment()}:
        await consumer.commit(mine)


async def fix_the_beginning(settings: Settings) -> None:
    """Let a new group begin at the end of the topic as it is now, so that no failure from here on is missed.

    A group that has committed anything stays as it is: a partition that it doesn't know is one that was added, and is read
    from its start.

    Raises:
        KafkaTrouble: when Kafka doesn't answer.
    """
    topics, group = Topics(settings), alerts_group(settings)
    try:
        async with admin_client(settings) as admin:
            (topic,) = (found for found in await admin.describe_topics() if found["topic"] == topics.names.failed)
            partitions = [TopicPartition(topics.names.failed, found["partition"]) for found in topic["partitions"]]
            committed = await committed_offsets(admin, group, partitions)
        if all(place.offset < 0 for place in committed.values()):
            await _commit_the_end(settings, partitions)
    except (KafkaError, TimeoutError) as error:
        raise KafkaTrouble(f"the beginning of alerts could not be fixed ({type(error).__name__})") from error


async def _commit_the_end(settings: Settings, partitions: list[TopicPartition]) -> None:
    consumer = _consumer(settings)
    try:
        await started(consumer, settings)
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        async with asyncio.timeout(REQUEST_TIMEOUT_MS / 1000):
            await consumer.commit(ends)
    except CommitFailedError:
        _log.info("alerts_began_elsewhere", hint="another worker joined the group in this moment, and had fixed its beginning")
    finally:
        await consumer.stop()


def _consumer(settings: Settings) -> AIOKafkaConsumer:
    return AIOKafkaConsumer(
        **connection_options(settings),
        group_id=alerts_group(settings),
        enable_auto_commit=False,
        isolation_level="read_committed",
        auto_offset_reset="none",  # a partition that was added begins at its oldest, but never in silence
        metadata_max_age_ms=METADATA_AGE_MS,
        request_timeout_ms=REQUEST_TIMEOUT_MS,
    )
