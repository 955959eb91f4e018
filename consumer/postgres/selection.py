"""What a replay takes: picked into a temporary table of one session, so that memory stays the same for any number of users.

Everything after that is SQL in pages of users. How a key stands is looked at when the pages are read: one with a run open is
passed over, one whose run this replay has made already is not made again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from consumer.postgres.criteria import Criteria
from consumer.postgres.database import Database, DataRefused, speaking_plainly
from consumer.postgres.forgotten import forgotten
from consumer.postgres.runs import NewRun

PAGE_ROWS = 1_000


@dataclass(frozen=True, slots=True)
class Picked:
    """A key of the selection, how it stands, and what is known of its cost.

    `standing`: `forgotten` and `passed_over` (another run of the key is open) are not replayed; `filled` has its run of this
    replay already; `superseded` gets one that ends at once, since a newer event of the user was saved; `new` gets one.
    The figures of an earlier run are those of a completed one that bought answers: of this key, or else of this user.
    `answers_usd` is what the user's recorded, usable answers of this model have cost.
    """

    user_id: UUID
    standing: str
    message_count: int | None
    model: str | None
    model_calls: int | None
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: Decimal | None
    chunks: int
    chunk_tokens: int
    answers_usd: Decimal


class Selection:
    """The events that were picked, in a temporary table that goes with its session.

    `generation` is that of the replay, once there is one: its own runs are no reason to pass a key over. What the ledger
    learned after `as_of` changes nothing.
    """

    def __init__(self, connection: AsyncConnection, criteria: Criteria, as_of: datetime, generation: int | None) -> None:
        self._connection = connection
        self._criteria = criteria
        self.as_of = as_of
        self.generation = generation
        self._one_of = "user_id, idempotency_key" if criteria.all_events else "user_id"

    async def create(self) -> None:
        """Make the empty table."""
        await self.execute(_CREATE)

    async def execute(self, statement: str, **values: Any) -> Sequence[Any]:
        """The rows of one statement, in a transaction of its own in the session that has the table."""
        with speaking_plainly():
            async with self._connection.begin():
                result = await self._connection.execute(text(statement.format(one_of=self._one_of)), values)
                return result.all() if result.returns_rows else ()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """A transaction in the session that has the table."""
        with speaking_plainly():
            async with self._connection.begin():
                yield self._connection

    async def take(self, runs: Sequence[NewRun]) -> int:
        """Pick events of the topic: a user's latest, or a key's where all events are wanted.

        Returns:
            How many PostgreSQL refused as data; they are left out.
        """
        if not runs:
            return 0
        try:
            await self.execute(_TAKE, **_columns(runs))
        except DataRefused:
            if len(runs) == 1:
                return 1
        else:
            return 0
        middle = len(runs) // 2
        return await self.take(runs[:middle]) + await self.take(runs[middle:])

    async def take_from_ledger(self) -> None:
        """Pick the events that the ledger knows, of the users and times that are wanted."""
        wanted = {
            "since": self._criteria.since,
            "until": self._criteria.until,
            "users": list(self._criteria.user_ids) or None,
        }
        async for first, last in self._pages("full_pass_runs"):
            await self.execute(_TAKE_FROM_LEDGER, first=first, last=last, **wanted, **self._moment())

    async def narrow(self) -> None:
        """Leave out keys whose latest run that had ended doesn't fit; a key that was never run doesn't either.

        A run that was cancelled or superseded says nothing about its key, unless its code is asked for.
        """
        criteria = self._criteria
        if not criteria.looks_at_runs:
            return
        fits = {
            "only_failed": criteria.only_failed or bool(criteria.error_codes),
            "codes": list(criteria.error_codes) or None,
            "model": criteria.older_than_model,
            "prompt": criteria.older_than_prompt,
        }
        async for first, last in self._pages("replay_selected"):
            await self.execute(_NARROW, first=first, last=last, **fits, **self._moment())

    async def size(self) -> int:
        """How many keys are picked."""
        [row] = await self.execute("SELECT count(*) AS picked FROM replay_selected")
        return int(row.picked)

    async def pages(self, model: str, retention_days: float) -> AsyncIterator[list[Picked]]:
        """All that is picked, by user; `model` is the one that would be asked now."""
        async for first, last in self._pages("replay_selected"):
            rows = await self.execute(
                _LOOK_AT, first=first, last=last, model=model, retention=retention_days, generation=self.generation
            )
            yield [Picked(*row) for row in rows]

    async def key_pages(self) -> AsyncIterator[list[tuple[UUID, str]]]:
        """User and key of all that is picked, in pages."""
        async for first, last in self._pages("replay_selected"):
            rows = await self.execute(_KEYS, first=first, last=last)
            yield [(row.user_id, row.idempotency_key) for row in rows]

    async def _pages(self, table: str) -> AsyncIterator[tuple[UUID, UUID]]:
        """Neighbouring ranges of users, both ends included, with about 1,000 rows of the table each."""
        after: UUID | None = None
        while True:
            behind = "" if after is None else "WHERE user_id > :after"
            question = _NEXT_USERS.replace("[table]", table).replace("[behind]", behind)
            rows = await self.execute(question, rows=PAGE_ROWS, **({} if after is None else {"after": after}))
            if not rows:
                return
            after = rows[-1].user_id
            yield rows[0].user_id, rows[-1].user_id

    def _moment(self) -> dict[str, Any]:
        return {"as_of": self.as_of, "generation": self.generation}


@asynccontextmanager
async def selecting(
    database: Database, criteria: Criteria, *, as_of: datetime | None = None, generation: int | None = None
) -> AsyncIterator[Selection]:
    """An empty selection, for the length of the block. `as_of` is now where it is None.

    Raises:
        DatabaseUnavailable: when PostgreSQL is away.
    """
    with speaking_plainly():
        async with database.engine.connect() as connection:
            async with connection.begin():
                now = (await connection.execute(text("SELECT clock_timestamp()"))).scalar_one()
            selection = Selection(connection, criteria, as_of or now, generation)
            await selection.create()
            try:
                yield selection
            finally:
                await connection.invalidate()  # the table goes with the session


def _columns(runs: Sequence[NewRun]) -> dict[str, list[Any]]:
    return {
        "user_ids": [run.user_id for run in runs],
        "keys": [run.idempotency_key for run in runs],
        "completed_at": [run.completed_at for run in runs],
        "events": [run.event for run in runs],
        "traceparents": [run.traceparent for run in runs],
    }


_CREATE = """
    CREATE TEMPORARY TABLE replay_selected (
        user_id uuid NOT NULL, idempotency_key text NOT NULL, completed_at timestamptz NOT NULL, event jsonb NOT NULL,
        traceparent text NOT NULL, PRIMARY KEY ({one_of})
    )
"""

_NEWEST_FIRST = "ORDER BY {one_of}, completed_at DESC, idempotency_key DESC"

_UNLESS_NEWER = """
    ON CONFLICT ({one_of}) DO UPDATE
    SET idempotency_key = excluded.idempotency_key, completed_at = excluded.completed_at, event = excluded.event,
        traceparent = excluded.traceparent
    WHERE (excluded.completed_at, excluded.idempotency_key) > (picked.completed_at, picked.idempotency_key)
"""

_TAKE = f"""
    INSERT INTO replay_selected AS picked (user_id, idempotency_key, completed_at, event, traceparent)
    SELECT DISTINCT ON ({{one_of}}) user_id, idempotency_key, completed_at, event::jsonb, traceparent
    FROM unnest(
        CAST(:user_ids AS uuid[]), CAST(:keys AS text[]), CAST(:completed_at AS timestamptz[]), CAST(:events AS text[]),
        CAST(:traceparents AS text[])
    ) AS new (user_id, idempotency_key, completed_at, event, traceparent)
    {_NEWEST_FIRST}
    {_UNLESS_NEWER}
"""

# Of a key's runs the first says what its event was; retries and replays carry the same.
_TAKE_FROM_LEDGER = f"""
    INSERT INTO replay_selected AS picked (user_id, idempotency_key, completed_at, event, traceparent)
    SELECT DISTINCT ON ({{one_of}}) user_id, idempotency_key, completed_at, event, traceparent
    FROM full_pass_runs
    WHERE user_id BETWEEN :first AND :last AND created_at <= :as_of
      AND generation IS DISTINCT FROM CAST(:generation AS bigint)
      AND completed_at >= coalesce(CAST(:since AS timestamptz), '-infinity')
      AND completed_at < coalesce(CAST(:until AS timestamptz), 'infinity')
      AND (CAST(:users AS uuid[]) IS NULL OR user_id = ANY(CAST(:users AS uuid[])))
    {_NEWEST_FIRST}, generation
    {_UNLESS_NEWER}
"""

_NARROW = """
    DELETE FROM replay_selected AS picked
    WHERE user_id BETWEEN :first AND :last AND NOT EXISTS (
        SELECT FROM (
            SELECT status, error_code, model, prompt_version FROM full_pass_runs AS run
            WHERE run.user_id = picked.user_id AND run.idempotency_key = picked.idempotency_key
              AND generation IS DISTINCT FROM CAST(:generation AS bigint) AND finished_at <= :as_of
              AND (coalesce(error_code, '') NOT IN ('cancelled', 'superseded') OR error_code = ANY(CAST(:codes AS text[])))
            ORDER BY generation DESC LIMIT 1
        ) AS latest
        WHERE (NOT :only_failed OR status = 'failed')
          AND (CAST(:codes AS text[]) IS NULL OR error_code = ANY(CAST(:codes AS text[])))
          AND (CAST(:model AS text) IS NULL OR model IS DISTINCT FROM :model)
          AND (CAST(:prompt AS integer) IS NULL OR coalesce(prompt_version, 0) < :prompt)
    )
"""

_NEXT_USERS = "SELECT user_id FROM [table] [behind] ORDER BY user_id LIMIT :rows"

_KEYS = """
    SELECT user_id, idempotency_key FROM replay_selected
    WHERE user_id BETWEEN :first AND :last ORDER BY user_id, idempotency_key
"""

_LARGEST = 2**63 - 1

_STANDING = f"""
    CASE WHEN {forgotten("picked")} THEN 'forgotten'
         WHEN EXISTS (
             SELECT FROM full_pass_runs AS own
             WHERE own.user_id = picked.user_id AND own.idempotency_key = picked.idempotency_key
               AND own.generation = CAST(:generation AS bigint)) THEN 'filled'
         WHEN EXISTS (
             SELECT FROM full_pass_runs AS open
             WHERE open.user_id = picked.user_id AND open.idempotency_key = picked.idempotency_key
               AND open.status IN ('pending', 'running')) THEN 'passed_over'
         WHEN EXISTS (
             SELECT FROM full_pass_runs AS newer
             WHERE newer.user_id = picked.user_id AND newer.memory_saved_at IS NOT NULL
               AND (newer.completed_at, newer.generation)
                   > (picked.completed_at, coalesce(CAST(:generation AS bigint), {_LARGEST}))) THEN 'superseded'
         ELSE 'new' END
"""

_LOOK_AT = f"""
    SELECT picked.user_id, {_STANDING} AS standing, CAST(picked.event ->> 'message_count' AS bigint) AS message_count,
           earlier.model, earlier.model_calls, earlier.input_tokens, earlier.output_tokens, earlier.cost_usd,
           found.chunks, found.tokens, answers.usd
    FROM replay_selected AS picked
    LEFT JOIN LATERAL (
        SELECT model, model_calls, input_tokens, output_tokens, cost_usd FROM full_pass_runs AS run
        WHERE run.user_id = picked.user_id AND status = 'completed' AND model_calls > 0
        ORDER BY run.idempotency_key = picked.idempotency_key DESC, model_calls DESC LIMIT 1
    ) AS earlier ON true
    CROSS JOIN LATERAL (
        SELECT count(*) AS chunks, coalesce(sum(token_count), 0)::bigint AS tokens FROM conversation_chunks AS chunk
        WHERE chunk.user_id = picked.user_id AND earlier.model_calls IS NULL
    ) AS found
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(answer.cost_usd), 0) AS usd FROM full_pass_model_calls AS answer
        WHERE answer.user_id = picked.user_id AND verdict IS NULL AND answer.model = :model
          AND answer.created_at > clock_timestamp() - make_interval(secs => CAST(:retention AS float8) * 86400)
    ) AS answers
    WHERE picked.user_id BETWEEN :first AND :last
    ORDER BY picked.user_id
"""
