"""Publishing a completion event, as `full-pass publish` does for people."""

from __future__ import annotations

import asyncio

from aiokafka.errors import KafkaError

from consumer.kafka.connection import REQUEST_TIMEOUT_MS, KafkaTrouble, idempotent_producer
from consumer.kafka.messages import continued_trace, to_completion_message
from consumer.kafka.topics import Topics
from consumer.settings import Settings
from schemas.events import QuickPassCompleted


async def publish(settings: Settings, event: QuickPassCompleted) -> tuple[str, int, int]:
    """Publish one event in CloudEvents' binary mode; returns topic, partition and offset once all replicas have it.

    Raises:
        TopicsMissing: when the topic isn't there.
        KafkaTrouble: when Kafka can't be reached or refuses the record.
    """
    topics = Topics(settings)
    await topics.require()
    message = to_completion_message(event, continued_trace())
    async with idempotent_producer(settings) as producer:
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_MS / 1000):
                sent = await producer.send_and_wait(topics.names.completed, message.value, message.key, headers=message.headers)
        except (KafkaError, TimeoutError) as error:
            raise KafkaTrouble(f"Kafka did not take the event ({type(error).__name__})") from error
    return sent.topic, sent.partition, sent.offset
