"""`full-pass status`: one screen for the person who was woken."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from consumer.commands.database import opened
from consumer.commands.output import AsJson, pairs_table, print_json, print_pairs
from consumer.commands.status_screen import screen_of
from consumer.commands.stdout import reader_has_left
from consumer.errors import ConfigurationError
from consumer.kafka.broker import BrokerProbe
from consumer.kafka.connection import KafkaTrouble
from consumer.kafka.replaying import InputTopic
from consumer.postgres.database import Database, DatabaseUnavailable
from consumer.postgres.migrating import missing_migration
from consumer.postgres.overview import Overview
from consumer.postgres.pause import Pause
from consumer.postgres.spend import Spend
from consumer.settings import Settings, load_settings

_INTAKE_SECONDS = 3.0


def status(
    watch: Annotated[bool, typer.Option("--watch", help="Draw it again and again in the same place, until Ctrl-C.")] = False,
    every: Annotated[float, typer.Option(min=0.1, max=3600, metavar="SECONDS", help="With --watch: how often.")] = 2.0,
    as_json: AsJson = False,
) -> None:
    """Show on one screen: pause, intake, backlog, failures by code, spend and its limit, relay, replays, dependencies.

    Of the backlog, 'due' waits for an executor; 'waiting for an outage' for a model API, a store or a limit of the day; 'due
    later' for its time after a failure or for a replay's rate; 'held' for 'replay resume'. --json has every code and replay.
    """
    settings = load_settings()
    if watch and as_json:
        raise ConfigurationError("--watch: expected without --json; a script asks as often as it likes")
    if watch:
        try:
            asyncio.run(_watch(settings, every))
        except KeyboardInterrupt:
            return
    found, away = asyncio.run(_status(settings))
    if as_json:
        print_json(found)
    else:
        print_pairs(screen_of(found, datetime.now(UTC)))
    if away is not None:
        raise away


async def _status(settings: Settings) -> tuple[dict[str, Any], DatabaseUnavailable | None]:
    """All there is to say; without PostgreSQL that is the dependencies alone, and why it is away."""
    ledger: dict[str, Any] = {}
    away = None
    try:
        async with opened(settings) as database:
            migration = await missing_migration(database)
            ledger = {} if migration else await _ledger(settings, database)
            postgresql = migration or "ok"
    except DatabaseUnavailable as error:
        away, postgresql = error, error.detail
    kafka = await _kafka(settings)
    intake = await _intake(settings) if kafka == "ok" else None
    return {**ledger, "intake": intake, "dependencies": {"postgresql": postgresql, "kafka": kafka}}, away


async def _watch(settings: Settings, every_seconds: float) -> None:
    """What is away meanwhile is said, and looked for again."""
    console = Console(markup=False, emoji=False, highlight=False)
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            found, _ = await _status(settings)
            now = datetime.now(UTC)
            screen = screen_of(found, now)
            title = Text(f"{now:%Y-%m-%d %H:%M:%S} UTC, every {every_seconds:g} s, Ctrl-C ends", style="dim")
            if console.is_terminal:
                live.update(Group(title, pairs_table(screen)), refresh=True)
            else:
                console.print(title, pairs_table(screen))
            if reader_has_left():
                return
            await asyncio.sleep(every_seconds)


async def _ledger(settings: Settings, database: Database) -> dict[str, Any]:
    paused = await Pause(database).state()
    return {
        "paused": None if paused is None else asdict(paused),
        **await Overview(database).status(),
        **await _day(settings, database),
    }


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


async def _intake(settings: Settings) -> dict[str, int] | None:
    """How many records wait on the topic, and how many were lost to retention; None where Kafka doesn't say at once."""
    try:
        async with asyncio.timeout(_INTAKE_SECONDS), InputTopic.connect(settings) as topic:
            extent = await topic.extent()
    except (KafkaTrouble, TimeoutError):
        return None
    return {"waiting": extent.waiting, "removed_unread": extent.removed_unread}
