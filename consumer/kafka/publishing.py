"""Publishing completion events, as `full-pass publish` does for people."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from consumer.kafka.connection import REQUEST_TIMEOUT_MS, KafkaTrouble, idempotent_producer
from consumer.kafka.messages import continued_trace, to_completion_message
from consumer.kafka.refusals import what_is_denied
from consumer.kafka.topics import Topics
from consumer.settings import Settings
from schemas.events import QuickPassCompleted

IN_FLIGHT = 2_000
PATIENCE_SECONDS = REQUEST_TIMEOUT_MS / 1000


async def publish(settings: Settings, event: QuickPassCompleted) -> tuple[str, int, int]:
    """Publish one event in CloudEvents' binary mode; returns topic, partition and offset once all replicas have it.

    Raises:
        TopicsMissing: when the topic isn't there.
        KafkaTrouble: when Kafka can't be reached or refuses the record.
    """
    topics = Topics(settings)
    await topics.require(topics.names.completed)  # a publisher may not be allowed to see the others
    message = to_completion_message(event, continued_trace())
    async with idempotent_producer(settings) as producer:
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_MS / 1000):
                sent = await producer.send_and_wait(topics.names.completed, message.value, message.key, headers=message.headers)
        except (KafkaError, TimeoutError) as error:
            raise KafkaTrouble(what_is_denied(error) or f"Kafka did not take the event ({type(error).__name__})") from error
    return sent.topic, sent.partition, sent.offset


@dataclass(slots=True)
class Publication:
    """How far a publication of many events has come: what all replicas have, and what is on its way, oldest first."""

    published: int = 0
    _in_flight: deque[tuple[int, asyncio.Future[Any]]] = field(default_factory=deque)

    async def publish_all(
        self,
        settings: Settings,
        events: AsyncIterable[tuple[int, QuickPassCompleted]],
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        """Publish events, each with the number of its line, in batches; at most `IN_FLIGHT` wait for their acknowledgement.

        A user's events stay in order. `published` is true at every moment, also after an error or a cancellation.

        Raises:
            TopicsMissing: when the topic isn't there.
            KafkaTrouble: when Kafka can't be reached, refuses an event, or acknowledges none for `patience_seconds`.
        """
        topics = Topics(settings)
        await topics.require(topics.names.completed)  # a publisher may not be allowed to see the others
        try:
            async with idempotent_producer(settings) as producer:
                async for line, event in events:
                    await self._send(producer, topics.names.completed, line, event)
                    if len(self._in_flight) >= IN_FLIGHT:
                        await self._wait_for_oldest(patience_seconds)
                    self._settle()
                while self._in_flight:
                    await self._wait_for_oldest(patience_seconds)
                    self._settle()
        finally:
            self._count_what_arrived()

    async def _send(self, producer: AIOKafkaProducer, topic: str, line: int, event: QuickPassCompleted) -> None:
        message = to_completion_message(event, continued_trace())
        try:
            sent = await producer.send(topic, message.value, message.key, headers=message.headers)
        except KafkaError as error:
            raise KafkaTrouble(what_is_denied(error) or _not_taken(line, type(error).__name__)) from error
        self._in_flight.append((line, sent))

    async def _wait_for_oldest(self, patience_seconds: float) -> None:
        line, oldest = self._in_flight[0]
        done, _ = await asyncio.wait([oldest], timeout=patience_seconds)
        if not done:
            raise KafkaTrouble(_not_taken(line, f"no answer in {patience_seconds:g} s"))

    def _settle(self) -> None:
        """Count what is acknowledged, up to the first that isn't yet."""
        while self._in_flight and self._in_flight[0][1].done():
            line, sent = self._in_flight.popleft()
            if (error := sent.exception()) is not None:
                raise KafkaTrouble(what_is_denied(error) or _not_taken(line, type(error).__name__)) from error
            self.published += 1

    def _count_what_arrived(self) -> None:
        """After an end before time: what the producer could still get through while it was closed."""
        while self._in_flight:
            _, sent = self._in_flight.popleft()
            self.published += sent.done() and not sent.cancelled() and sent.exception() is None


def _not_taken(line: int, why: str) -> str:
    return f"Kafka did not take the event of line {line} ({why})"
