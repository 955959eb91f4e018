"""`full-pass status`: one screen for the person who was woken."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

from consumer.commands.database import opened
from consumer.commands.output import AsJson, print_json, print_pairs
from consumer.kafka.broker import BrokerProbe
from consumer.postgres.database import Database
from consumer.postgres.migrating import missing_migration
from consumer.postgres.overview import Overview
from consumer.postgres.spend import Spend
from consumer.settings import Settings, load_settings


def status(as_json: AsJson = False) -> None:
    """Show the backlog, what runs, failures by code, spend and the day's limit, the relay's lag and the dependencies."""
    found = asyncio.run(_status(load_settings()))
    if as_json:
        print_json(found)
    else:
        print_pairs(found)


async def _status(settings: Settings) -> dict[str, Any]:
    async with opened(settings) as database:
        migration = await missing_migration(database)
        ledger = {} if migration else {**await Overview(database).status(), **await _day(settings, database)}
    return {**ledger, "dependencies": {"postgresql": migration or "ok", "kafka": await _kafka(settings)}}


async def _day(settings: Settings, database: Database) -> dict[str, Any]:
    """The limit of the day, whether it keeps runs from being claimed, and until when."""
    most_usd = settings.max_cost_usd_per_day
    day = None if most_usd is None else await Spend(database).last_day(Decimal(str(most_usd)))
    return {
        "max_cost_usd_per_day": most_usd,
        "held_back_by_day_limit": day is not None and day.spent_usd >= Decimal(str(most_usd)),
        "room_again_at": None if day is None else day.room_at,
    }


async def _kafka(settings: Settings) -> str:
    if settings.kafka_bootstrap_servers is None:
        return "KAFKA_BOOTSTRAP_SERVERS is not set"
    async with BrokerProbe(settings) as probe:
        return await probe.check() or "ok"
