"""Alerts: tells a webhook of runs that failed (design, way of the data, 7)."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections import deque
from typing import Any

import aiohttp
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import CommitFailedError, KafkaError
from pydantic import ValidationError

from consumer.errors import FullPassError
from consumer.health import Health
from consumer.kafka.connection import REQUEST_TIMEOUT_MS, KafkaTrouble, admin_client, connection_options, started
from consumer.kafka.groups import committed_offsets
from consumer.kafka.messages import Record
from consumer.kafka.positions import METADATA_AGE_MS, NO_POSITION, begin_at_oldest
from consumer.kafka.topics import Topics
from consumer.logs import get_log
from consumer.metrics import Metrics
from consumer.settings import Settings, required
from schemas.events import ErrorCode, V2Failed

PART = "alerts"
SIGNATURE_HEADER = "X-Full-Pass-Signature"
MOST_PER_MINUTE = 30
_TIMEOUT_SECONDS = 10.0
_MINUTE_SECONDS = 60.0
_POLL_MS = 250
_NOT_TOLD = frozenset({ErrorCode.SUPERSEDED, ErrorCode.CANCELLED})  # nothing is wrong: somebody or something newer took over
_TRY_AGAIN = frozenset({408, 429})

_log = get_log(PART)


class WebhookUnavailable(FullPassError):
    """The webhook at ALERT_WEBHOOK_URL can't be reached or fails; alerts wait in Kafka, runs go on."""


class Alerts:
    """The part that reads `v2-failed`. It needs ALERT_WEBHOOK_URL and is not to be started without."""

    def __init__(self, settings: Settings, health: Health, metrics: Metrics) -> None:
        self._settings = settings
        self._health = health
        self._metrics = metrics
        self._topics = Topics(settings)
        self._sent_at: deque[float] = deque(maxlen=MOST_PER_MINUTE)

    async def run(self, stopping: asyncio.Event) -> None:
        """Tell of failures until `stopping` is set.

        A failure is told at least once: its offset is committed after the webhook took it.

        Raises:
            WebhookUnavailable: when the webhook fails; the alert is tried again after a restart.
            KafkaTrouble: when Kafka refuses or doesn't answer.
            TopicsMissing: when the topic isn't there.
        """
        await self._topics.require()
        await fix_the_beginning(self._settings)
        consumer = _consumer(self._settings)
        consumer.subscribe([self._topics.names.failed])
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS)
        try:
            async with aiohttp.ClientSession(timeout=timeout) as http:
                await started(consumer, self._settings)
                self._health.well(PART)
                while not stopping.is_set():
                    await self._tell_next(consumer, http, stopping)
        finally:
            await consumer.stop()

    async def _tell_next(self, consumer: AIOKafkaConsumer, http: aiohttp.ClientSession, stopping: asyncio.Event) -> None:
        try:  # one at a time: waiting for the minute to end must not look like a consumer that hangs
            fetched = await consumer.getmany(timeout_ms=_POLL_MS, max_records=1)
            for partition, records in fetched.items():
                if await self._tell(records[0], http, stopping) and partition in consumer.assignment():
                    await consumer.commit({partition: records[0].offset + 1})
        except NO_POSITION as error:
            await begin_at_oldest(consumer, error, self._metrics, _log)
        except CommitFailedError:
            _log.info("commit_left_to_another_member", hint="the group rebalanced; the alert may be sent again")
        except KafkaError as error:
            raise KafkaTrouble(f"alerts can't be read ({type(error).__name__})") from error

    async def _tell(self, record: Record, http: aiohttp.ClientSession, stopping: asyncio.Event) -> bool:
        """Tell of one failure; False when `stopping` came first."""
        try:
            failure = V2Failed.model_validate_json(record.value or b"")
        except ValidationError:
            self._metrics.alerts_sent.labels("invalid").inc()
            _log.warning("alert_not_readable", topic=record.topic, partition=record.partition, offset=record.offset)
            return True
        if failure.error_code in _NOT_TOLD:
            return True
        if not await self._wait_for_room(stopping):
            return False
        await self._post(failure, http)
        return True

    async def _wait_for_room(self, stopping: asyncio.Event) -> bool:
        """Wait until fewer than 30 were sent in the last minute; False when `stopping` came first."""
        loop = asyncio.get_running_loop()
        if len(self._sent_at) == MOST_PER_MINUTE:
            try:
                async with asyncio.timeout_at(self._sent_at[0] + _MINUTE_SECONDS):
                    await stopping.wait()
            except TimeoutError:
                pass
        if stopping.is_set():
            return False
        self._sent_at.append(loop.time())
        return True

    async def _post(self, failure: V2Failed, http: aiohttp.ClientSession) -> None:
        body = alert_body(failure)
        headers = {"Content-Type": "application/json"}
        if secret := self._settings.alert_webhook_secret:
            headers[SIGNATURE_HEADER] = signature(body, secret.get_secret_value())
        url = required(self._settings.alert_webhook_url, "ALERT_WEBHOOK_URL")
        try:
            async with http.post(url, data=body, headers=headers, allow_redirects=False) as answer:
                status = answer.status
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            self._metrics.alerts_sent.labels("unreachable").inc()
            raise WebhookUnavailable(f"ALERT_WEBHOOK_URL can't be reached ({type(error).__name__})") from None
        self._judge(status, failure)

    def _judge(self, status: int, failure: V2Failed) -> None:
        if status >= 500 or status in _TRY_AGAIN:
            self._metrics.alerts_sent.labels("failed").inc()
            raise WebhookUnavailable(f"ALERT_WEBHOOK_URL answered {status}; the alert is sent again")
        if status >= 300:
            self._metrics.alerts_sent.labels("refused").inc()
            _log.warning("alert_refused", status=status, run_id=str(failure.run_id), hint="look at ALERT_WEBHOOK_URL")
            return
        self._metrics.alerts_sent.labels("sent").inc()


def alerts_group(settings: Settings) -> str:
    """The group under which an environment's alerts are read."""
    return f"{settings.topic_prefix}{settings.consumer_group}-alerts"


def alert_body(failure: V2Failed) -> bytes:
    """`text` for people (Slack shows it) and `event`, the data of `v2-failed`."""
    kept = "its MEMORY is saved" if failure.memory_saved else "no MEMORY was saved"
    text = (
        f"Full pass failed: {failure.error_code} in stage {failure.stage} after {failure.attempts} attempt(s), {kept}. "
        f"{failure.error_detail} (user {failure.user_id}, run {failure.run_id})"
    )
    event: dict[str, Any] = failure.model_dump(mode="json")
    return json.dumps({"text": text, "event": event}, ensure_ascii=False).encode()


def signature(body: bytes, secret: str) -> str:
    """HMAC-SHA256 of the body, as the header holds it."""
    return f"sha256={hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}"


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
