"""Publish one quick-pass-completed event, with aiokafka alone. Copy it into the service that runs the quick pass.

    python examples/publish.py --user-id 5f0c7b1e-8a55-4a6e-9d53-3d1b8f0f3a11 --storage-path exports/5f0c7b1e/conversations.zip \\
        --completed-at 2026-11-24T14:01:28.403901Z --export-folder /where/the/bucket/lies

What has to be so before the event goes out:

1. The user's profile row is **committed**. The consumer looks for it from another session of the database: a row of a transaction
   that is still open isn't there for it. Publish after COMMIT, or from an outbox table that the same transaction fills.
2. The export can be **read** at `storage_path`: the upload was acknowledged, not merely begun.

A consumer that finds either missing looks again for a minute, then ends the run as `profile_not_found` or `export_not_found`.

Publishing twice is harmless, publishing never is not: after an error or a crash publish again, with the same `completed_at`. That
is when the quick pass ended, kept with the profile, and not the time of publication: with another one it is another event, which
asks for another run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import sys
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

SOURCE = "/chat/quick-pass"  # who you are; a name of yours
EVENT_TYPE = "quick-pass-completed"

Check = Callable[[], Awaitable[bool]]


@dataclass(frozen=True)
class Completion:
    """A quick pass that has ended. `completed_at` has a time zone and is the same in every publication."""

    user_id: uuid.UUID
    storage_path: str
    completed_at: datetime

    @property
    def instant(self) -> str:
        """`completed_at` in UTC."""
        return self.completed_at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


class NotVisible(Exception):
    """The consumer would not find the profile row or the export."""


def headers_of(completion: Completion, traceparent: str | None = None) -> list[tuple[str, bytes]]:
    """CloudEvents 1.0 in Kafka's binary mode: the attributes are headers, and the value is the data alone.

    `traceparent` is that of the request which ended the quick pass: the run, its model calls and its events continue that trace.
    """
    same_every_time = uuid.uuid5(
        uuid.NAMESPACE_URL, f"{SOURCE} {completion.user_id} {completion.storage_path} {completion.instant}"
    )
    attributes = {
        "ce_specversion": "1.0",
        "ce_id": str(same_every_time),
        "ce_source": SOURCE,
        "ce_type": EVENT_TYPE,
        "ce_subject": str(completion.user_id),
        "ce_time": completion.instant,
        "ce_dataschema": "urn:full-pass:schemas:quick-pass-completed:1",
        "content-type": "application/json",
        "traceparent": traceparent or f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01",
    }
    return [(name, value.encode()) for name, value in attributes.items()]


async def publish(
    producer: AIOKafkaProducer,
    topic: str,
    completion: Completion,
    profile_is_committed: Check,
    export_is_readable: Check,
    traceparent: str | None = None,
) -> tuple[int, int]:
    """Publish the event once profile and export are visible; returns partition and offset when all replicas have it.

    Raises:
        NotVisible: when they are not: nothing was published.
        KafkaError: when Kafka did not take it, or did not say so. Publish again.
    """
    if not await profile_is_committed():
        raise NotVisible("the profile row is not committed; publish after COMMIT")
    if not await export_is_readable():
        raise NotVisible("the export can't be read at storage_path; publish after the upload was acknowledged")
    data = {
        "user_id": str(completion.user_id),
        "storage_path": completion.storage_path,
        "completed_at": completion.instant,
    }
    sent = await producer.send_and_wait(
        topic,
        value=json.dumps(data).encode(),
        key=str(completion.user_id).encode(),  # one partition per user, so that their events keep their order
        headers=headers_of(completion, traceparent),
    )
    return sent.partition, sent.offset


async def main(given: argparse.Namespace) -> None:
    """What your service does after a quick pass, in little."""
    completion = Completion(given.user_id, given.storage_path, given.completed_at)

    async def profile_is_committed() -> bool:
        # Yours: SELECT FROM user_profiles WHERE user_id = $1, on a connection that is not the one which wrote the row.
        return True

    async def export_is_readable() -> bool:
        # Yours: a HEAD request, where the store is a bucket. Here a bucket is a folder.
        return os.access(given.export_folder / completion.storage_path, os.R_OK)

    # Idempotent and acknowledged by all replicas: a retry inside the client writes nothing twice, and an answer means it is kept.
    producer = AIOKafkaProducer(bootstrap_servers=given.bootstrap_servers, acks="all", enable_idempotence=True)
    try:
        await producer.start()
        place = await publish(producer, given.topic, completion, profile_is_committed, export_is_readable, given.traceparent)
    finally:
        await producer.stop()
    sys.stdout.write("published to {}, partition {}, offset {}\n".format(given.topic, *place))


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--user-id", type=uuid.UUID, required=True)
    parser.add_argument("--storage-path", required=True, help="bucket/key")
    parser.add_argument("--completed-at", type=datetime.fromisoformat, required=True, help="with a time zone")
    parser.add_argument("--export-folder", type=Path, required=True, help="the folder in which buckets are folders")
    parser.add_argument("--traceparent", help="of the request that ended the quick pass")
    parser.add_argument("--topic", default=os.environ.get("FULL_PASS_TOPIC_PREFIX", "") + EVENT_TYPE)
    parser.add_argument("--bootstrap-servers", default=os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "localhost:9092"))
    given = parser.parse_args()
    if given.completed_at.tzinfo is None:
        parser.error("--completed-at: expected a time zone, such as Z")
    return given


if __name__ == "__main__":
    try:
        asyncio.run(main(arguments()))
    except (NotVisible, KafkaError) as problem:
        sys.exit(f"not published: {problem}")
