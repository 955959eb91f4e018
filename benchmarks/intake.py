"""How fast intake drains a topic, beside a bare bulk insert of the same rows: `python -m benchmarks.intake`.

Each round has a database and topics of its own. 20,000 events are drained as new ones, then published and drained again as
repeats; the bare inserts send the same rows, ready made, in batches of the same size through one asyncpg connection. Goal: at
least half as fast as bare. Uses the Kafka and PostgreSQL that the environment names, or starts its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
from rich.console import Console
from rich.table import Table

from consumer.app import spare_the_collector
from consumer.health import Health
from consumer.kafka.connection import idempotent_producer
from consumer.kafka.intake import BATCH_RECORDS, Intake
from consumer.kafka.messages import continued_trace, to_completion_message
from consumer.kafka.topics import Topics
from consumer.logs import configure_logs
from consumer.metrics import Metrics
from consumer.postgres import migrating
from consumer.postgres.database import Database
from consumer.postgres.runs import Ledger
from consumer.settings import Settings
from sandbox.kafka import KafkaServer
from sandbox.postgres import PostgresServer
from schemas.events import QuickPassCompleted, run_id_of

_BARE = """
    INSERT INTO full_pass_runs (run_id, user_id, idempotency_key, generation, priority, completed_at, event, traceparent)
    SELECT a, b, c, 0, 0, d, e::jsonb, f
    FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::timestamptz[], $5::text[], $6::text[]) AS new (a, b, c, d, e, f)
    ON CONFLICT DO NOTHING
"""


@dataclass(frozen=True)
class Servers:
    """Where Kafka and PostgreSQL are."""

    bootstrap_servers: str
    database_url: str

    def settings(self, name: str) -> Settings:
        """Topics, group and database of one round."""
        url = urlunsplit(urlsplit(self.database_url)._replace(path=f"/{name}"))
        places: dict[str, Any] = {"KAFKA_BOOTSTRAP_SERVERS": self.bootstrap_servers, "DATABASE_URL": url}
        return Settings(**places, topic_prefix=f"{name}.", consumer_group=name)


@contextmanager
def servers() -> Iterator[Servers]:
    """The environment's servers, or two of our own for the length of the block."""
    if (kafka_at := os.environ.get("KAFKA_BOOTSTRAP_SERVERS")) and (postgres_at := os.environ.get("DATABASE_URL")):
        yield Servers(kafka_at, postgres_at)
        return
    with tempfile.TemporaryDirectory(prefix="full-pass-benchmark-", ignore_cleanup_errors=True) as folder:
        kafka, postgres = KafkaServer(Path(folder) / "kafka"), PostgresServer(Path(folder) / "postgres")
        try:
            kafka.start()
            postgres.start()
            yield Servers(kafka.bootstrap_servers, postgres.url())
        finally:
            kafka.stop()
            postgres.stop()


def made_up_events(count: int, seed: int) -> list[QuickPassCompleted]:
    """Completion events of as many users."""
    draw = random.Random(seed)
    start = datetime.now(UTC) - timedelta(days=1)
    events = []
    for number in range(count):
        user = uuid.UUID(int=draw.getrandbits(128), version=4)
        done = start + timedelta(milliseconds=number)
        events.append(
            QuickPassCompleted(user_id=user, storage_path=f"exports/{user}/{number}.zip", completed_at=done, message_count=number)
        )
    return events


async def publish(settings: Settings, events: Sequence[QuickPassCompleted]) -> None:
    """Put the events on the topic, as a publisher would."""
    topic = Topics(settings).names.completed
    async with idempotent_producer(settings) as producer:
        sending = []
        for event in events:
            message = to_completion_message(event, continued_trace())
            sending.append(await producer.send(topic, message.value, message.key, headers=message.headers))
        await asyncio.gather(*sending)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition that no event announces."""
    while not condition():
        await asyncio.sleep(0.005)


async def drain(settings: Settings, database: Database, count: int, counter: str) -> float:
    """Seconds from a ready intake to the last of `count` events."""
    health, metrics, stopping = Health(), Metrics(), asyncio.Event()
    health.expect("intake")
    intake = Intake(settings, Ledger(database), health, metrics)
    async with asyncio.TaskGroup() as parts, asyncio.timeout(120):
        parts.create_task(intake.run(stopping))
        await until(lambda: health.ready)
        start = time.perf_counter()
        await until(lambda: (metrics.registry.get_sample_value(counter) or 0) >= count)
        seconds = time.perf_counter() - start
        stopping.set()
    return seconds


async def insert_bare(url: str, events: Sequence[QuickPassCompleted]) -> float:
    """Seconds for the same rows by themselves."""
    batches = []
    for at in range(0, len(events), BATCH_RECORDS):
        batch = sorted(events[at : at + BATCH_RECORDS], key=lambda event: (event.user_id, event.key()))
        batches.append(
            (
                [run_id_of(event.user_id, event.key(), 0) for event in batch],
                [event.user_id for event in batch],
                [event.key() for event in batch],
                [event.completed_at for event in batch],
                [json.dumps(event.model_dump(mode="json")) for event in batch],
                [continued_trace() for _ in batch],
            )
        )
    connection = await asyncpg.connect(url)
    try:
        start = time.perf_counter()
        for columns in batches:
            await connection.execute(_BARE, *columns)
        return time.perf_counter() - start
    finally:
        await connection.close()


async def measure(places: Servers, count: int, seed: int) -> dict[str, float]:
    """One round: seconds by what was done."""
    events = made_up_events(count, seed)
    intake_name, bare_name = (f"bench_{kind}_{uuid.uuid4().hex[:8]}" for kind in ("intake", "bare"))
    admin = await asyncpg.connect(places.database_url)
    for name in (intake_name, bare_name):
        await admin.execute(f"CREATE DATABASE {name}")
    settings, bare = places.settings(intake_name), places.settings(bare_name)
    database, bare_database = (Database(each.database_url.get_secret_value()) for each in (settings, bare) if each.database_url)
    try:
        await Topics(settings).create(partitions=6)
        await migrating.upgrade(database)
        await migrating.upgrade(bare_database)
        seconds = {}
        await publish(settings, events)
        seconds["intake, new"] = await drain(settings, database, count, "full_pass_messages_taken_total")
        seconds["bare, new"] = await insert_bare(bare_database.url, events)
        await publish(settings, events)
        seconds["intake, again"] = await drain(settings, database, count, "full_pass_messages_repeated_total")
        seconds["bare, again"] = await insert_bare(bare_database.url, events)
    finally:
        await database.close()
        await bare_database.close()
        for name in (intake_name, bare_name):
            await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await admin.close()
    return seconds


def report(rounds: list[dict[str, float]], count: int) -> Table:
    """The median of each measure, and intake's share of the speed at which bare inserts new rows."""
    middle = {measured: statistics.median(each[measured] for each in rounds) for measured in rounds[0]}
    table = Table(title=f"{count:,} events, median of {len(rounds)} rounds")
    for column in ("", "intake, events/s", "bare insert, events/s", "intake / bare insert of new rows"):
        table.add_column(column, justify="right" if column else "left")
    for kind in ("new", "again"):
        intake, bare = middle[f"intake, {kind}"], middle[f"bare, {kind}"]
        table.add_row(kind, f"{count / intake:,.0f}", f"{count / bare:,.0f}", f"{middle['bare, new'] / intake:.2f}")
    return table


def main() -> None:
    """Run the rounds and print the table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--events", type=int, default=20_000)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--seed", type=int, default=random.randrange(2**32))
    given = arguments.parse_args()
    configure_logs("WARNING", "console")
    console = Console()
    console.print(f"seed {given.seed}")
    spare_the_collector()  # as the worker does
    with servers() as places:
        rounds = [asyncio.run(measure(places, given.events, given.seed + number)) for number in range(given.rounds)]
    console.print(report(rounds, given.events))


if __name__ == "__main__":
    main()
