"""A part in a process of its own, for tests that kill it: `python -m tests.integration.part_process relay`."""

from __future__ import annotations

import asyncio
import sys

from consumer.health import Health
from consumer.kafka.intake import Intake
from consumer.kafka.relay import Relay
from consumer.metrics import Metrics
from consumer.postgres.database import Database
from consumer.postgres.outbox import Outbox
from consumer.postgres.runs import Ledger
from consumer.settings import load_settings, required


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
