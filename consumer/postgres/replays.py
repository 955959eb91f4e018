"""`full_pass_replays`: a replay's selection, budget and state; its runs carry its generation.

Stored are `running`, `budget_spent` (the executors write it) and `cancelled`; a replay is completed when it is filled and no run
of it is open. What was asked for and where its ends lay then is frozen with the row, so a fill that was interrupted goes on to
the same end: a run that is there stays as it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import text

from consumer.errors import CommandError
from consumer.postgres.claiming import REPLAY_PRIORITY
from consumer.postgres.database import Database
from consumer.postgres.forgotten import forgotten
from consumer.postgres.runs import NOTIFY_RUNS
from consumer.postgres.selection import Selection
from consumer.postgres.wakeups import RUNS_CHANNEL
from schemas.events import run_id_of


@dataclass(frozen=True, slots=True)
class Replay:
    """A row, and how its runs stand.

    `held` are those of `pending` that wait for a budget with room; `superseded` and `cancelled` are some of `failed`.
    """

    generation: int
    source: str
    selection: Mapping[str, Any]
    state: str
    max_cost_usd: Decimal | None
    cost_usd: Decimal
    passed_over: int
    created_at: datetime
    filled_at: datetime | None
    cancelled_at: datetime | None
    pending: int
    held: int
    running: int
    completed: int
    failed: int
    superseded: int
    cancelled: int

    @property
    def runs(self) -> int:
        """All runs of it that are in the ledger."""
        return self.open + self.completed + self.failed

    @property
    def open(self) -> int:
        """Runs that have not ended."""
        return self.pending + self.running

    @property
    def standing(self) -> str:
        """Its state as people see it: the stored one, or `completed`, or `filling` while not all runs are made."""
        if self.state == "cancelled":
            return self.state
        if self.filled_at is None:
            return "filling" if self.state == "running" else self.state
        return self.state if self.open else "completed"


class Replays:
    """The rows of all replays."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(
        self, source: str, asked: Mapping[str, Any], frozen: Mapping[str, Any], max_cost_usd: Decimal | None
    ) -> tuple[int, bool]:
        """Take a generation for a new replay, unless the same was asked for before and is not filled yet: then that one's.

        Returns:
            The generation, and whether it is new.
        """
        document = json.dumps({"asked": asked, **frozen})
        async with self._database.transaction() as transaction:
            await transaction.execute(_ONE_AT_A_TIME)
            known = (await transaction.execute(_UNFILLED, {"asked": json.dumps(asked)})).scalar_one_or_none()
            if known is not None:
                return int(known), False
            values = {"source": source, "selection": document, "max_cost_usd": max_cost_usd}
            return int((await transaction.execute(_BEGIN, values)).scalar_one()), True

    async def unfilled(self, asked: Mapping[str, Any]) -> Replay | None:
        """The newest replay that was asked for in the same words, whose fill has not come to its end."""
        async with self._database.transaction() as transaction:
            generation = (await transaction.execute(_UNFILLED, {"asked": json.dumps(asked)})).scalar_one_or_none()
        return None if generation is None else await self.show(int(generation))

    async def show(self, generation: int) -> Replay:
        """One replay.

        Raises:
            CommandError: when there is none of that generation.
        """
        found = await self._read(f"{_SHOW} WHERE replay.generation = :generation", generation=generation)
        if not found:
            raise CommandError(f"there is no replay {generation}; 'full-pass replay list' shows those that there are")
        return found[0]

    async def newest(self, limit: int) -> list[Replay]:
        """So many, the newest first."""
        return await self._read(f"{_SHOW} ORDER BY replay.generation DESC LIMIT :limit", limit=limit)

    async def _read(self, question: str, **values: Any) -> list[Replay]:
        async with self._database.transaction() as transaction:
            return [Replay(**row) for row in (await transaction.execute(text(question), values)).mappings()]

    async def resume(self, generation: int, max_cost_usd: Decimal | None) -> Replay:
        """Give a replay another limit, if one is given, and wake the runs that its spent budget held.

        Raises:
            CommandError: when it was cancelled, or its spend is not below its limit.
        """
        async with self._database.transaction() as transaction:
            row = (await transaction.execute(_LOCKED, {"generation": generation})).one_or_none()
            if row is None:
                raise CommandError(f"there is no replay {generation}; 'full-pass replay list' shows those that there are")
            if row.state == "cancelled":
                raise CommandError(f"replay {generation} was cancelled; start another one with 'full-pass replay'")
            limit = row.max_cost_usd if max_cost_usd is None else max_cost_usd
            if limit is not None and row.cost_usd >= limit:
                raise CommandError(
                    f"replay {generation} has spent ${row.cost_usd:.4f} of ${limit:.4f}; expected --max-cost-usd above its spend"
                )
            await transaction.execute(_GO_ON, {"generation": generation, "limit": limit})
        per_minute = row.asked.get("per_minute")
        async with self._database.transaction() as transaction:  # another: who has locked a replay waits for none of its runs
            await transaction.execute(_WAKE, {"generation": generation, "gap": 60 / per_minute if per_minute else 0.0})
            await transaction.execute(NOTIFY_RUNS)
        return await self.show(generation)

    async def cancel(self, generation: int) -> None:
        """Let no more of its runs be made or claimed; what is open still has to be ended.

        Raises:
            CommandError: when there is none of that generation.
        """
        async with self._database.transaction() as transaction:
            if (await transaction.execute(_CANCEL, {"generation": generation})).rowcount == 0:
                raise CommandError(f"there is no replay {generation}; 'full-pass replay list' shows those that there are")

    async def open_runs(self, generation: int, limit: int) -> list[UUID]:
        """Some of its runs that have not ended."""
        async with self._database.transaction() as transaction:
            rows = await transaction.execute(_OPEN_RUNS, {"generation": generation, "limit": limit})
            return [row.run_id for row in rows]


async def fill(selection: Selection, generation: int, per_minute: float | None, told: Callable[[int, int], None]) -> None:
    """Make the runs of a replay: one for each key that was picked, but for keys with a run open and forgotten users.

    A page of keys is one transaction that wakes the executors; run again, it makes what is missing. `told` is given the number of
    keys looked at and of runs made by this call so far.

    Raises:
        CommandError: when the replay was cancelled meanwhile.
        DatabaseUnavailable: when PostgreSQL is away; the runs made so far stay.
    """
    gap_seconds = 60 / per_minute if per_minute else 0.0
    due_from = (await selection.execute(_DUE_FROM, generation=generation, gap=gap_seconds))[0].due_from
    looked_at = made = passed_over = 0
    async for keys in selection.key_pages():
        new = {
            "run_ids": [run_id_of(user_id, key, generation) for user_id, key in keys],
            "user_ids": [user_id for user_id, _ in keys],
            "keys": [key for _, key in keys],
            "generation": generation,
        }
        due = {"due_from": due_from, "gap": gap_seconds, "behind": made}
        async with selection.transaction() as transaction:
            await _require_alive(transaction, generation)
            made += (await transaction.execute(_FILL, {**new, **due, "priority": REPLAY_PRIORITY})).scalar_one()
            passed_over += (await transaction.execute(_PASSED_OVER, new)).scalar_one()
        looked_at += len(keys)
        told(looked_at, made)
    async with selection.transaction() as transaction:
        await _require_alive(transaction, generation)
        await transaction.execute(_FILLED, {"generation": generation, "passed_over": passed_over})


async def _require_alive(transaction: Any, generation: int) -> None:
    """Keep the replay from being cancelled until this transaction's runs are there, for the cancelling to end them."""
    if (await transaction.execute(_ALIVE, {"generation": generation})).one_or_none() is None:
        raise CommandError(f"replay {generation} was cancelled while its runs were made; no more are made")


_ONE_AT_A_TIME = text("SELECT pg_advisory_xact_lock(7208)")  # two of the same command begin one replay

_UNFILLED = text("""
    SELECT generation FROM full_pass_replays
    WHERE selection -> 'asked' = CAST(:asked AS jsonb) AND filled_at IS NULL AND state <> 'cancelled'
    ORDER BY generation DESC LIMIT 1
""")

_BEGIN = text("""
    INSERT INTO full_pass_replays (generation, source, selection, max_cost_usd)
    SELECT nextval('full_pass_generation_seq'), :source, CAST(:selection AS jsonb), CAST(:max_cost_usd AS numeric)
    RETURNING generation
""")

_SHOW = """
    SELECT replay.*, runs.* FROM full_pass_replays AS replay
    CROSS JOIN LATERAL (
        SELECT count(*) FILTER (WHERE status = 'pending') AS pending,
               count(*) FILTER (WHERE status = 'pending' AND due_at = 'infinity') AS held,
               count(*) FILTER (WHERE status = 'running') AS running,
               count(*) FILTER (WHERE status = 'completed') AS completed,
               count(*) FILTER (WHERE status = 'failed') AS failed,
               count(*) FILTER (WHERE status = 'failed' AND error_code = 'superseded') AS superseded,
               count(*) FILTER (WHERE status = 'failed' AND error_code = 'cancelled') AS cancelled
        FROM full_pass_runs AS run WHERE run.generation = replay.generation AND run.generation > 0
    ) AS runs
"""

_LOCKED = text("""
    SELECT state, max_cost_usd, cost_usd, selection -> 'asked' AS asked FROM full_pass_replays
    WHERE generation = :generation FOR NO KEY UPDATE
""")

_GO_ON = text("""
    UPDATE full_pass_replays SET state = 'running', max_cost_usd = CAST(:limit AS numeric) WHERE generation = :generation
""")

_WAKE = text("""
    WITH held AS (
        SELECT run_id, row_number() OVER (ORDER BY created_at, run_id) - 1 AS behind FROM full_pass_runs
        WHERE generation = :generation AND generation > 0 AND status = 'pending' AND due_at = 'infinity'
    )
    UPDATE full_pass_runs AS run SET due_at = clock_timestamp() + make_interval(secs => CAST(:gap AS float8) * behind)
    FROM held WHERE run.run_id = held.run_id AND run.status = 'pending'
""")

_CANCEL = text("""
    UPDATE full_pass_replays SET state = 'cancelled', cancelled_at = coalesce(cancelled_at, clock_timestamp())
    WHERE generation = :generation
""")

_OPEN_RUNS = text("""
    SELECT run_id FROM full_pass_runs
    WHERE generation = :generation AND generation > 0 AND status IN ('pending', 'running') ORDER BY run_id LIMIT :limit
""")

_ALIVE = text("SELECT state FROM full_pass_replays WHERE generation = :generation AND state <> 'cancelled' FOR SHARE")

# Behind those that an interrupted fill has made and nobody has claimed yet.
_DUE_FROM = """
    SELECT greatest(clock_timestamp(), max(due_at) + make_interval(secs => CAST(:gap AS float8))) AS due_from FROM full_pass_runs
    WHERE generation = :generation AND generation > 0 AND status = 'pending' AND attempt = 0 AND due_at < 'infinity'
"""

_FILL = text(f"""
    WITH filled AS (
        INSERT INTO full_pass_runs
            (run_id, user_id, idempotency_key, generation, priority, due_at, completed_at, event, traceparent)
        SELECT new.run_id, user_id, idempotency_key, CAST(:generation AS bigint), CAST(:priority AS smallint),
               CAST(:due_from AS timestamptz) + make_interval(
                   secs => CAST(:gap AS float8) * (CAST(:behind AS bigint) + row_number() OVER (ORDER BY user_id) - 1)),
               picked.completed_at, picked.event, picked.traceparent
        FROM unnest(CAST(:run_ids AS uuid[]), CAST(:user_ids AS uuid[]), CAST(:keys AS text[]))
            AS new (run_id, user_id, idempotency_key)
        JOIN replay_selected AS picked USING (user_id, idempotency_key)
        WHERE NOT {forgotten("picked")} AND NOT EXISTS (
            SELECT FROM full_pass_runs AS run
            WHERE run.user_id = picked.user_id AND run.idempotency_key = picked.idempotency_key
              AND (run.status IN ('pending', 'running') OR run.run_id = new.run_id))
        ORDER BY user_id, idempotency_key
        ON CONFLICT DO NOTHING
        RETURNING 1
    )
    SELECT count(*), CASE WHEN count(*) > 0 THEN pg_notify('{RUNS_CHANNEL}', '') END FROM filled
""")

_PASSED_OVER = text(f"""
    SELECT count(*) FROM unnest(CAST(:run_ids AS uuid[]), CAST(:user_ids AS uuid[]), CAST(:keys AS text[]))
        AS new (run_id, user_id, idempotency_key)
    JOIN replay_selected AS picked USING (user_id, idempotency_key)
    WHERE NOT {forgotten("picked")} AND NOT EXISTS (SELECT FROM full_pass_runs AS run WHERE run.run_id = new.run_id)
""")

_FILLED = text("""
    UPDATE full_pass_replays SET filled_at = coalesce(filled_at, clock_timestamp()), passed_over = :passed_over
    WHERE generation = :generation
""")
