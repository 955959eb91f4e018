"""`full_pass_outbox`: events that are committed with what they announce, and wait for the relay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from consumer.postgres import tables
from consumer.postgres.database import Database
from consumer.postgres.wakeups import OUTBOX_CHANNEL
from schemas.events import MemorySaved, V2Completed, V2Failed, event_id_of


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """An event to be published. `data` is its JSON text, `event_type` its topic without the prefix."""

    id: int
    event_id: UUID
    event_type: str
    user_id: UUID
    data: str
    traceparent: str
    occurred_at: datetime


async def announce(
    transaction: AsyncConnection, event: MemorySaved | V2Completed | V2Failed, traceparent: str, occurred_at: datetime
) -> None:
    """Put an event into the outbox, within the transaction of what it announces, and wake the relay with the commit."""
    values = {
        "event_id": event_id_of(event.run_id, event.event_type),
        "event_type": event.event_type,
        "run_id": event.run_id,
        "user_id": event.user_id,
        "data": event.model_dump_json(),
        "traceparent": traceparent,
        "occurred_at": occurred_at,
    }
    await transaction.execute(_ANNOUNCE, values)


class Outbox:
    """The relay's side of the outbox."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def unpublished(self, limit: int) -> list[OutboxRow]:
        """The oldest rows that Kafka has not acknowledged, by id."""
        table = tables.outbox.c
        question = (
            select(
                table.id,
                table.event_id,
                table.event_type,
                table.user_id,
                table.data,
                table.traceparent,
                table.occurred_at,
            )
            .where(table.published_at.is_(None))
            .order_by(table.id)
            .limit(limit)
        )
        async with self._database.transaction() as transaction:
            return [OutboxRow(*row) for row in await transaction.execute(question)]

    async def mark_published(self, event_ids: Sequence[UUID], places: Sequence[tuple[int, int]] = ()) -> int:
        """Note that Kafka has these events, and where: partition and offset of each, none of any where that is not known.

        Returns:
            How many were not marked before.
        """
        values = {
            "event_ids": list(event_ids),
            "partitions": [partition for partition, _ in places],
            "offsets": [offset for _, offset in places],
        }
        async with self._database.transaction() as transaction:
            return (await transaction.execute(_MARK_PUBLISHED, values)).rowcount

    async def backlog(self) -> tuple[int, float]:
        """How many rows wait, and the age of the oldest in seconds (0 when none does)."""
        async with self._database.transaction() as transaction:
            row = (await transaction.execute(_BACKLOG)).one()
        return int(row.waiting), float(row.oldest_seconds)


_ANNOUNCE = text(f"""
    WITH announced AS (
        INSERT INTO full_pass_outbox (event_id, event_type, run_id, user_id, data, traceparent, occurred_at)
        VALUES (:event_id, :event_type, :run_id, :user_id, :data, :traceparent, :occurred_at)
        RETURNING 1
    )
    SELECT pg_notify('{OUTBOX_CHANNEL}', '') FROM announced
""")

_MARK_PUBLISHED = text("""
    UPDATE full_pass_outbox AS event
    SET published_at = clock_timestamp(), kafka_partition = sent.partition, kafka_offset = sent.offset_
    FROM unnest(CAST(:event_ids AS uuid[]), CAST(:partitions AS integer[]), CAST(:offsets AS bigint[]))
        AS sent (event_id, partition, offset_)
    WHERE event.event_id = sent.event_id AND event.published_at IS NULL
""")

_BACKLOG = text("""
    SELECT count(*) AS waiting, coalesce(extract(epoch FROM clock_timestamp() - min(occurred_at)), 0) AS oldest_seconds
    FROM full_pass_outbox WHERE published_at IS NULL
""")
