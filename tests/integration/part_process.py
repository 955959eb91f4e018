"""A part in a process of its own, for tests that kill it at a moment seen on the wire."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from consumer.health import Health
from consumer.kafka.intake import Intake
from consumer.kafka.relay import Relay
from consumer.metrics import Metrics
from consumer.postgres.database import Database
from consumer.postgres.outbox import Outbox
from consumer.postgres.runs import Ledger
from consumer.settings import load_settings, required
from tests.integration.kafka_environment import Environment


def variables_of(env: Environment) -> dict[str, str]:
    """The variables that lead a process of its own into an environment."""
    return {
        "FULL_PASS_TOPIC_PREFIX": env.settings.topic_prefix,
        "FULL_PASS_CONSUMER_GROUP": env.settings.consumer_group,
        "KAFKA_BOOTSTRAP_SERVERS": env.settings.kafka_bootstrap_servers or "",
        "DATABASE_URL": env.database.url,
    }


async def kill_when(moment: asyncio.Event, env: Environment, part: str, **changes: str) -> None:
    """Run a part of an environment, with some variables changed, until the moment comes; then kill it with SIGKILL."""
    variables = {**variables_of(env), **changes}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.integration.part_process", part, env={**os.environ, **variables}
    )
    try:
        async with asyncio.timeout(30):
            await moment.wait()
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        await process.wait()


async def main(name: str) -> None:
    """Run the part for ever, with the settings of the environment."""
    settings = load_settings()
    database = Database(required(settings.database_url, "DATABASE_URL"))
    health, metrics = Health(), Metrics()
    parts: dict[str, Intake | Relay] = {
        "intake": Intake(settings, Ledger(database), health, metrics),
        "relay": Relay(settings, Outbox(database), health, metrics),
    }
    await parts[name].run(asyncio.Event())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
