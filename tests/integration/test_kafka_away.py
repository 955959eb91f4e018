"""Clients whose broker is gone or silent: they end in time, and leave nothing running."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import pytest

from consumer.health import Health
from consumer.kafka.connection import CLOSE_SECONDS, idempotent_producer
from consumer.kafka.intake import Intake
from consumer.kafka.relay import Relay
from consumer.metrics import Metrics
from sandbox.kafka import KafkaServer
from tests.integration.kafka_environment import Environment, a_memory, an_environment, an_event, until, values_of
from tests.integration.part_process import variables_of


@pytest.mark.parametrize("transactional", [False, True])
def test_a_producer_gives_up_what_a_dead_broker_will_never_acknowledge(
    own_kafka: KafkaServer, database_url: str, topic_prefix: str, transactional: bool
) -> None:
    """The client itself would wait for ever, and its tasks would go on sending after the part was started again."""

    async def scenario() -> None:
        async with an_environment(own_kafka.bootstrap_servers, database_url, topic_prefix) as env:
            tasks = asyncio.all_tasks()
            async with asyncio.timeout(CLOSE_SECONDS + 20):
                transactional_id = topic_prefix if transactional else None
                async with idempotent_producer(env.settings, transactional_id) as producer:
                    if transactional:
                        await producer.begin_transaction()
                    await producer.send_and_wait(env.topics.names.completed, b"v", b"k")
                    own_kafka.kill()
                    future = await producer.send(env.topics.names.completed, b"v", b"k")
            future.exception()
            await until(lambda: asyncio.all_tasks() == tasks, seconds=20)

    asyncio.run(scenario())


def test_parts_stop_in_time_while_the_broker_is_dead(own_kafka: KafkaServer, database_url: str, topic_prefix: str) -> None:
    async def scenario() -> None:
        async with an_environment(own_kafka.bootstrap_servers, database_url, topic_prefix) as env:
            intake = Intake(env.settings, env.ledger, env.health, env.metrics)
            relay = Relay(env.settings, env.outbox, env.health, env.metrics)
            async with asyncio.timeout(40):
                async with env.running(intake, relay) as stopping:
                    own_kafka.kill()
                    stopping.set()
                    started = asyncio.get_running_loop().time()
                assert asyncio.get_running_loop().time() - started < 15

    asyncio.run(scenario())


def test_parts_go_on_by_themselves_when_the_broker_is_back(own_kafka: KafkaServer, database_url: str, topic_prefix: str) -> None:
    async def scenario() -> None:
        async with an_environment(own_kafka.bootstrap_servers, database_url, topic_prefix) as env:
            intake = Intake(env.settings, env.ledger, env.health, env.metrics)
            relay = Relay(env.settings, env.outbox, env.health, env.metrics)
            async with env.running(intake, relay):
                own_kafka.kill()
                await env.announce(a_memory(1))
                await asyncio.to_thread(own_kafka.start)
                await env.produce(*values_of([an_event("k-1")]))
                await until(lambda: env.sample("messages_taken_total") == 1)
                await until(lambda: nothing_waits(env))
            assert sorted((await env.event_ids()).values()) == [1]

    asyncio.run(scenario())


async def nothing_waits(env: Environment) -> bool:
    return await env.unpublished() == 0


@pytest.mark.guarantee("G6")
def test_a_frozen_relay_is_followed_within_the_lease_and_repeats_nothing_when_it_wakes(
    kafka: KafkaServer, database_url: str, topic_prefix: str
) -> None:
    async def scenario() -> None:
        async with an_environment(kafka.bootstrap_servers, database_url, topic_prefix, lease_seconds=2) as env:
            frozen = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.integration.part_process", "relay",
                env={**os.environ, **variables_of(env), "FULL_PASS_LEASE_SECONDS": "2"},
            )  # fmt: skip
            try:
                await env.announce(a_memory(0))
                await until(lambda: nothing_waits(env))
                frozen.send_signal(signal.SIGSTOP)
                await env.announce(*[a_memory(number) for number in range(1, 40)])
                begun = asyncio.get_running_loop().time()
                async with env.running(Relay(env.settings, env.outbox, Health(), Metrics()), ready=False):
                    await until(lambda: nothing_waits(env))
                    assert asyncio.get_running_loop().time() - begun < 6
                    frozen.send_signal(signal.SIGCONT)
                    await frozen.wait()  # its session is gone: it says so and ends
                    await env.announce(a_memory(50))
                    await until(lambda: nothing_waits(env))
            finally:
                if frozen.returncode is None:
                    frozen.kill()
                    await frozen.wait()
            assert sorted((await env.event_ids()).values()) == [1] * 41

    asyncio.run(scenario())
