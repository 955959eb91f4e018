"""A relay that is stopped inside a Kafka transaction, and goes on much later."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading

import pytest

from consumer.health import Health
from consumer.kafka.relay import Relay
from consumer.metrics import Metrics
from sandbox.kafka import KafkaServer
from tests.integration.kafka_environment import Environment, a_memory, an_environment, until
from tests.integration.part_process import variables_of
from tests.integration.wire import is_kafka_request
from tests.network import Link, Network, measured

END_TXN = 26
LEASE_SECONDS = 2
EVENTS = 40


async def nothing_waits(env: Environment) -> bool:
    return await env.unpublished() == 0


@pytest.mark.guarantee("G5")
@pytest.mark.guarantee("G6")
def test_a_relay_frozen_inside_its_transaction_is_followed_within_the_lease_and_fenced_when_it_wakes(
    kafka: KafkaServer, database_url: str, topic_prefix: str
) -> None:
    """Its records lie in the topic already; the end of its transaction leaves the machine when another has sent them."""
    frozen_now = threading.Event()
    pid = 0

    def watch(link: Link, piece: bytes) -> None:
        if pid and not frozen_now.is_set() and is_kafka_request(END_TXN, piece):
            os.kill(pid, signal.SIGSTOP)
            link.hold()
            frozen_now.set()

    async def scenario() -> None:
        nonlocal pid
        async with an_environment(kafka.bootstrap_servers, database_url, topic_prefix, lease_seconds=LEASE_SECONDS) as env:
            variables = {**variables_of(env), "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{network.port}"}
            frozen = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.integration.part_process", "relay",
                env={**os.environ, **variables, "FULL_PASS_LEASE_SECONDS": str(LEASE_SECONDS)}, stderr=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
            try:
                pid = frozen.pid
                await env.announce(*[a_memory(number) for number in range(EVENTS)])
                await until(frozen_now.is_set)
                begun = asyncio.get_running_loop().time()
                async with env.running(Relay(env.settings, env.outbox, Health(), Metrics()), ready=False):
                    await until(lambda: nothing_waits(env))
                    took = asyncio.get_running_loop().time() - begun
                    measured(f"relay frozen inside its transaction: another had sent everything after {took:.2f} s")
                    assert took < LEASE_SECONDS + 3
                    frozen.send_signal(signal.SIGCONT)
                    network.release()
                    await asyncio.wait_for(frozen.wait(), 20)  # it finds itself fenced, or its session gone, and ends
                    await env.announce(a_memory(EVENTS))
                    await until(lambda: nothing_waits(env))
            finally:
                if frozen.returncode is None:
                    frozen.kill()
                    await frozen.wait()
            assert sorted((await env.event_ids()).values()) == [1] * (EVENTS + 1)
            raw = await env.event_ids(env.topics.names.memory_saved, isolation="read_uncommitted")
            assert max(raw.values()) == 2  # the frozen relay's own were there, and nobody saw them

    with Network(int(kafka.bootstrap_servers.rpartition(":")[2]), watch) as network:
        asyncio.run(scenario())
