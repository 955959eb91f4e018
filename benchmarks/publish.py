"""How fast `full-pass publish --from-file` publishes, beside a bare aiokafka producer: `python -m benchmarks.publish`.

Both send 20,000 events to topics of their own on the same Kafka, idempotent and acknowledged by all replicas. The command's part
reads and validates a file and makes the messages; the bare producer gets the same records ready made. Uses the Kafka that the
environment names, or starts its own.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import tempfile
import time
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.intake import made_up_events
from consumer.commands.event_lines import events_of, opened
from consumer.kafka.connection import idempotent_producer
from consumer.kafka.messages import Message, continued_trace, to_completion_message
from consumer.kafka.publishing import IN_FLIGHT, Publication
from consumer.kafka.storage_paths import AllowedPaths
from consumer.kafka.topics import Topics
from consumer.settings import Settings
from sandbox.kafka import KafkaServer


@contextmanager
def kafka() -> Iterator[str]:
    """The environment's Kafka, or one of our own for the length of the block."""
    if there := os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        yield there
        return
    with tempfile.TemporaryDirectory(prefix="full-pass-benchmark-", ignore_cleanup_errors=True) as folder:
        server = KafkaServer(Path(folder) / "kafka")
        try:
            server.start()
            yield server.bootstrap_servers
        finally:
            server.stop()


async def settings_of(bootstrap_servers: str) -> Settings:
    """New topics."""
    places: dict[str, Any] = {"KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers}
    settings = Settings(**places, topic_prefix=f"bench-{uuid.uuid4().hex[:8]}-")
    await Topics(settings).create(partitions=6)
    return settings


async def publish_file(bootstrap_servers: str, path: Path, count: int) -> float:
    """Seconds of what the command does with a file, without the start of Python."""
    settings, publication = await settings_of(bootstrap_servers), Publication()
    start = time.perf_counter()
    with opened(str(path)) as source:
        refused: list[Any] = []
        await publication.publish_all(settings, events_of(source, AllowedPaths(""), refused.append, lambda _: None))
    assert (publication.published, refused) == (count, [])
    return time.perf_counter() - start


async def publish_bare(bootstrap_servers: str, messages: Sequence[Message]) -> float:
    """Seconds for the same records by themselves, as many in flight."""
    settings = await settings_of(bootstrap_servers)
    topic = Topics(settings).names.completed
    start = time.perf_counter()
    async with idempotent_producer(settings) as producer:
        sending: deque[asyncio.Future[Any]] = deque()
        for message in messages:
            sending.append(await producer.send(topic, message.value, message.key, headers=message.headers))
            if len(sending) == IN_FLIGHT:
                await sending.popleft()
        await asyncio.gather(*sending)
    return time.perf_counter() - start


def measure(bootstrap_servers: str, count: int, seed: int, folder: Path) -> dict[str, float]:
    """One round: seconds by what was done."""
    events = made_up_events(count, seed)
    path = folder / "events.jsonl"
    path.write_text("".join(f"{event.model_dump_json(exclude_none=True)}\n" for event in events), encoding="utf-8")
    messages = [to_completion_message(event, continued_trace()) for event in events]
    return {
        "publish --from-file": asyncio.run(publish_file(bootstrap_servers, path, count)),
        "bare producer": asyncio.run(publish_bare(bootstrap_servers, messages)),
    }


def main() -> None:
    """Run the rounds and print the table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--events", type=int, default=20_000)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--seed", type=int, default=random.randrange(2**32))
    given = arguments.parse_args()
    console = Console()
    console.print(f"seed {given.seed}")
    with kafka() as there, tempfile.TemporaryDirectory() as folder:
        rounds = [measure(there, given.events, given.seed + number, Path(folder)) for number in range(given.rounds)]
    table = Table("", "events/s", title=f"{given.events:,} events, median of {len(rounds)} rounds")
    for name in rounds[0]:
        table.add_row(name, f"{given.events / statistics.median(each[name] for each in rounds):,.0f}")
    console.print(table)


if __name__ == "__main__":
    main()
