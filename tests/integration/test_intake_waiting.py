"""An intake that waits for records while its group rebalances."""

from __future__ import annotations

import asyncio

import pytest

from consumer.health import Health
from consumer.kafka.intake import Intake
from consumer.metrics import Metrics
from sandbox.kafka import KafkaServer
from tests.integration.kafka_environment import Environment, an_environment, an_event, until, values_of


@pytest.mark.guarantee("G1")
def test_records_that_a_fetch_brings_which_began_before_a_rebalance_are_taken(
    kafka: KafkaServer, database_url: str, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They belong to the new assignment. Dropped, they would be passed over for good: their partition is read on behind them."""
    monkeypatch.setattr("consumer.kafka.intake._POLL_MS", 8_000)  # so that a fetch lasts from one assignment to the next

    async def scenario() -> None:
        async with an_environment(kafka.bootstrap_servers, database_url, topic_prefix) as env:
            first = Intake(env.settings, env.ledger, env.health, env.metrics)
            health, stopping = Health(), asyncio.Event()
            second = Intake(env.settings, env.ledger, health, Metrics())
            before, after = (sorted(f"{time}-{number:02}" for number in range(20)) for time in ("before", "then"))
            async with env.running(first), asyncio.TaskGroup() as group:
                await env.produce(*values_of([an_event(key) for key in before]), key=None)
                await until(lambda: taken(env, before))  # both partitions have an offset to go on from
                health.expect("intake")
                joining = group.create_task(second.run(stopping))
                await until(lambda: health.ready)
                await env.produce(*values_of([an_event(key) for key in after]), key=None)
                await until(lambda: taken(env, before + after), seconds=12)
                joining.cancel()

    asyncio.run(scenario())


async def taken(env: Environment, keys: list[str]) -> bool:
    return await env.keys() == keys
