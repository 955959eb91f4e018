"""`topics create`, and the question whether topics are there."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka.admin import NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from consumer.errors import CommandError
from consumer.kafka.broker import BrokerProbe
from consumer.kafka.connection import KafkaTrouble, admin_client
from consumer.kafka.topics import Topics, TopicsMissing
from consumer.settings import Settings
from sandbox.kafka import KafkaServer
from tests.integration.kafka_environment import until


def settings_for(kafka: KafkaServer, prefix: str) -> Settings:
    named: dict[str, Any] = {"KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers}
    return Settings(**named, topic_prefix=prefix)


async def configuration(settings: Settings, topic: str) -> dict[str, str]:
    async with admin_client(settings) as admin:
        (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    return {entry[0]: entry[1] for resource in answer.resources for entry in resource[4]}


async def partitions(settings: Settings) -> dict[str, int]:
    async with admin_client(settings) as admin:
        return {
            topic["topic"]: len(topic["partitions"])
            for topic in await admin.describe_topics()
            if topic["topic"].startswith(settings.topic_prefix)
        }


def test_the_five_topics_are_made_once_and_existing_ones_are_left_alone(kafka: KafkaServer, topic_prefix: str) -> None:
    settings = settings_for(kafka, topic_prefix)
    topics = Topics(settings)

    async def scenario() -> None:
        assert await topics.missing() == topics.names.all()
        assert await topics.create(partitions=3, retention_ms=3_600_000) == topics.names.all()
        assert await topics.create(partitions=7, retention_ms=1) == ()
        assert await partitions(settings) == dict.fromkeys(topics.names.all(), 3)
        assert (await configuration(settings, topics.names.failed))["retention.ms"] == "3600000"
        assert await topics.missing() == ()

    asyncio.run(scenario())


@pytest.mark.parametrize("limit", [None, 5_000_000])
def test_a_dead_letter_may_be_64_kib_larger_than_the_message(kafka: KafkaServer, topic_prefix: str, limit: int | None) -> None:
    settings = settings_for(kafka, topic_prefix)
    names = Topics(settings).names

    async def scenario() -> None:
        if limit is not None:
            async with admin_client(settings) as admin:
                await admin.create_topics([NewTopic(names.completed, 1, 1, topic_configs={"max.message.bytes": str(limit)})])
        await Topics(settings).create()
        sizes = [int((await configuration(settings, topic))["max.message.bytes"]) for topic in names.all()[:2]]
        assert sizes[1] == sizes[0] + 65_536
        assert limit is None or sizes[0] == limit

    asyncio.run(scenario())


def test_what_the_broker_refuses_is_said_in_its_words(kafka: KafkaServer, topic_prefix: str) -> None:
    with pytest.raises(CommandError, match=r"quick-pass-completed.*[Rr]eplication"):
        asyncio.run(Topics(settings_for(kafka, topic_prefix)).create(replication_factor=3))


def test_missing_topics_are_named_with_what_makes_them(kafka: KafkaServer, topic_prefix: str) -> None:
    with pytest.raises(TopicsMissing, match=rf"{topic_prefix}memory-saved.*full-pass topics create"):
        asyncio.run(Topics(settings_for(kafka, topic_prefix)).require())


def test_readiness_names_the_command_that_makes_missing_topics(kafka: KafkaServer, topic_prefix: str) -> None:
    async def scenario() -> str | None:
        async with BrokerProbe(settings_for(kafka, topic_prefix)) as probe:
            return await probe.check()

    assert "full-pass topics create" in (asyncio.run(scenario()) or "")


def test_readiness_notices_a_dead_and_a_frozen_broker_within_two_seconds(own_kafka: KafkaServer, topic_prefix: str) -> None:
    settings = settings_for(own_kafka, topic_prefix)

    async def check(probe: BrokerProbe) -> str | None:
        async with asyncio.timeout(2):
            return await probe.check()

    async def scenario() -> None:
        await Topics(settings).create()
        async with BrokerProbe(settings) as probe:
            assert await check(probe) is None
            own_kafka.freeze()
            assert "no Kafka broker answers" in (await check(probe) or "")
            own_kafka.thaw()
            assert await check(probe) is None
            own_kafka.kill()
            assert "no Kafka broker answers" in (await check(probe) or "")
            assert "no Kafka broker answers" in (await check(probe) or "")
            await asyncio.to_thread(own_kafka.start)
            await until(lambda: answers(probe))

    async def answers(probe: BrokerProbe) -> bool:
        return await check(probe) is None

    asyncio.run(scenario())


def test_a_probe_leaves_nothing_behind(own_kafka: KafkaServer, topic_prefix: str) -> None:
    """It asks every second for as long as an outage lasts."""
    settings = settings_for(own_kafka, topic_prefix)

    async def scenario() -> None:
        tasks = asyncio.all_tasks()
        own_kafka.kill()
        async with BrokerProbe(settings) as probe:
            for _ in range(20):
                assert await probe.check() is not None
            assert asyncio.all_tasks() == tasks

    asyncio.run(scenario())


def test_nobody_at_the_address_is_trouble_and_no_configuration_error(topic_prefix: str) -> None:
    named: dict[str, Any] = {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    with pytest.raises(KafkaTrouble, match="KAFKA_BOOTSTRAP_SERVERS"):
        asyncio.run(Topics(Settings(**named)).missing())
