"""`full-pass status`: one screen for the person who was woken."""

from __future__ import annotations

import asyncio
from typing import Any

from consumer.commands.database import opened
from consumer.commands.output import AsJson, print_json, print_pairs
from consumer.kafka.broker import BrokerProbe
from consumer.postgres.migrating import missing_migration
from consumer.postgres.overview import Overview
from consumer.settings import Settings, load_settings


def status(as_json: AsJson = False) -> None:
    """Show the backlog, what runs, failures by code, spend, the relay's lag and the dependencies."""
    found = asyncio.run(_status(load_settings()))
    if as_json:
        print_json(found)
    else:
        print_pairs(found)


async def _status(settings: Settings) -> dict[str, Any]:
    async with opened(settings) as database:
        migration = await missing_migration(database)
        ledger = {} if migration else await Overview(database).status()
    return {**ledger, "dependencies": {"postgresql": migration or "ok", "kafka": await _kafka(settings)}}


async def _kafka(settings: Settings) -> str:
    if settings.kafka_bootstrap_servers is None:
        return "KAFKA_BOOTSTRAP_SERVERS is not set"
    async with BrokerProbe(settings) as probe:
        return await probe.check() or "ok"
