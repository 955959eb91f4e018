"""What people ask the ledger: `runs list`, `runs show`, `status`, and the gauges. Reads only.

A run that waits for its stopped replay is due at infinity: it is held, and neither due nor waiting for a time.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import MAXYEAR, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, RowMapping, select, text

from consumer.errors import CommandError
from consumer.postgres import tables
from consumer.postgres.claiming import LIVE_PRIORITY
from consumer.postgres.database import Database

STATUSES = ("pending", "running", "completed", "failed")
_LIST_COLUMNS = (
    "run_id",
    "user_id",
    "idempotency_key",
    "completed_at",
    "generation",
    "priority",
    "status",
    "stage",
    "attempt",
    "failures",
    "due_at",
    "held_up_since",
    "lease_until",
    "memory_saved_at",
    "profile_version",
    "coverage",
    "input_tokens",
    "output_tokens",
    "cost_usd",
    "model",
    "error_code",
    "error_detail",
    "created_at",
    "started_at",
    "finished_at",
)


@dataclass(frozen=True, slots=True)
class Backlog:
    """What is due and running, and how long the oldest due run has waited, in seconds: of all, and of those of no replay."""

    due: int
    running: int
    oldest_due_seconds: float
    live_oldest_due_seconds: float


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs: those that fit all that is given. `since` and `until`, which is exclusive, are of its creation."""

    statuses: Collection[str] = ()
    user_id: UUID | None = None
    error_codes: Collection[str] = ()
    generation: int | None = None
    stage: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """The same for a question to the ledger."""
        run = tables.runs.c
        equal = {run.user_id: self.user_id, run.generation: self.generation, run.stage: self.stage}
        conditions = [column == value for column, value in equal.items() if value is not None]
        if self.statuses:
            conditions.append(run.status.in_(self.statuses))
        if self.error_codes:
            conditions.append(run.error_code.in_(self.error_codes))
        if self.since is not None:
            conditions.append(run.created_at >= self.since)
        if self.until is not None:
            conditions.append(run.created_at < self.until)
        return conditions


EVERY_RUN = RunFilter()


class Overview:
    """The ledger, as people and dashboards see it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def backlog(self) -> Backlog:
        """The scaling signal: runs due or running."""
        async with self._database.transaction() as transaction:
            row = (await transaction.execute(_BACKLOG)).one()
        return Backlog(row.due, row.running, float(row.oldest_due_seconds), float(row.live_oldest_due_seconds))

    async def status(self) -> dict[str, Any]:
        """Counts by status and code, backlog, replays under way, coverage, spend of the last 24 hours (USD) and the outbox."""
        async with self._database.transaction() as transaction:
            counts = (await transaction.execute(_COUNTS)).all()
            summary = (await transaction.execute(_SUMMARY)).mappings().one()
            waiting = (await transaction.execute(_WAITING)).mappings().one()
            replays = (await transaction.execute(_REPLAYS)).mappings().all()
        failed = [row for row in counts if row.status == "failed"]
        runs = {status: sum(row.runs for row in counts if row.status == status) for status in STATUSES}
        return {
            "runs": runs,
            "failures": {row.error_code: row.runs for row in failed},
            "failures_last_24_hours": {row.error_code: row.of_today for row in failed if row.of_today},
            "backlog": {**waiting, "running": runs["running"]},
            "replays": [dict(replay) for replay in replays],
            **summary,
        }

    async def list_runs(self, which: RunFilter = EVERY_RUN, limit: int = 50) -> list[dict[str, Any]]:
        """The newest runs first."""
        columns = (tables.runs.c[name] for name in _LIST_COLUMNS)
        newest = (tables.runs.c.created_at.desc(), tables.runs.c.run_id)
        question = select(*columns).where(*which.conditions()).order_by(*newest).limit(limit)
        async with self._database.transaction() as transaction:
            return [_with_held(row) for row in (await transaction.execute(question)).mappings()]

    async def run_ids(self, which: RunFilter, limit: int | None = None) -> list[UUID]:
        """The oldest first, all of them if there is no limit."""
        oldest = (tables.runs.c.created_at, tables.runs.c.run_id)
        question = select(tables.runs.c.run_id).where(*which.conditions()).order_by(*oldest).limit(limit)
        async with self._database.transaction() as transaction:
            return list((await transaction.execute(question)).scalars())

    async def status_of(self, run_id: UUID) -> str | None:
        """How a run stands; None when there is none."""
        question = select(tables.runs.c.status).where(tables.runs.c.run_id == run_id)
        async with self._database.transaction() as transaction:
            return (await transaction.execute(question)).scalar_one_or_none()

    async def show_run(self, run_id: UUID) -> dict[str, Any]:
        """The whole row of a run, its model calls by kind and its events.

        Raises:
            CommandError: when there is no such run.
        """
        async with self._database.transaction() as transaction:
            run = (await transaction.execute(select(tables.runs).where(tables.runs.c.run_id == run_id))).mappings().one_or_none()
            if run is None:
                raise CommandError(f"there is no run {run_id}; 'full-pass runs list' shows those that there are")
            calls = (await transaction.execute(_CALLS, {"run_id": run_id})).mappings().all()
            events = (await transaction.execute(_EVENTS, {"run_id": run_id})).mappings().all()
        return {**_with_held(run), "calls": [dict(call) for call in calls], "events": [dict(event) for event in events]}


def _with_held(run: RowMapping) -> dict[str, Any]:
    """The row with `held`, and then without a time that never comes."""
    held = run["status"] == "pending" and run["due_at"].year == MAXYEAR  # as the driver reads infinity
    return {**run, "due_at": None if held else run["due_at"], "held": held}


_BACKLOG = text(f"""
    WITH open AS (
        SELECT due_at, status, status = 'pending' AND due_at <= statement_timestamp() AS due, priority = {LIVE_PRIORITY} AS live
        FROM full_pass_runs WHERE status IN ('pending', 'running')
    )
    SELECT count(*) FILTER (WHERE due) AS due, count(*) FILTER (WHERE status = 'running') AS running,
           coalesce(extract(epoch FROM statement_timestamp() - min(due_at) FILTER (WHERE due)), 0) AS oldest_due_seconds,
           coalesce(extract(epoch FROM statement_timestamp() - min(due_at) FILTER (WHERE due AND live)), 0)
               AS live_oldest_due_seconds
    FROM open
""")

_COUNTS = text("""
    SELECT status, error_code, count(*) AS runs,
           count(*) FILTER (WHERE finished_at > statement_timestamp() - interval '24 hours') AS of_today
    FROM full_pass_runs GROUP BY status, error_code
""")

# What was handed back for an outage waits for the end of it, also where an operator has to end it and no time is counted.
_WAITING = text("""
    SELECT count(*) FILTER (WHERE due_at <= statement_timestamp()) AS due,
           count(*) FILTER (WHERE due_at > statement_timestamp() AND outage) AS waiting_for_outage,
           count(*) FILTER (WHERE due_at > statement_timestamp() AND NOT outage AND due_at < 'infinity') AS due_later,
           count(*) FILTER (WHERE due_at = 'infinity') AS held
    FROM (
        SELECT due_at, due_at < 'infinity'
               AND (held_up_since IS NOT NULL OR coalesce(story -> -1 ->> 'reason' = 'outage', false)) AS outage
        FROM full_pass_runs WHERE status = 'pending'
    ) AS pending
""")

_REPLAYS = text("""
    SELECT generation, CASE WHEN state = 'running' AND filled_at IS NULL THEN 'filling' ELSE state END AS state,
           runs.*, cost_usd, max_cost_usd, created_at
    FROM full_pass_replays AS replay CROSS JOIN LATERAL (
        SELECT count(*) AS runs, count(*) FILTER (WHERE status IN ('completed', 'failed')) AS ended,
               count(*) FILTER (WHERE status = 'failed') AS failed,
               count(*) FILTER (WHERE status = 'running') AS running
        FROM full_pass_runs AS run WHERE run.generation = replay.generation AND run.generation > 0
    ) AS runs
    WHERE state <> 'cancelled' AND (filled_at IS NULL OR EXISTS (
        SELECT FROM full_pass_runs AS run
        WHERE run.generation = replay.generation AND run.generation > 0 AND run.status IN ('pending', 'running')))
    ORDER BY generation DESC
""")

# The spend is counted as the day's limit counts it: by whole hours that reach into the last 24.
_SUMMARY = text("""
    SELECT (SELECT count(*) FROM full_pass_runs WHERE status = 'pending' AND due_at <= statement_timestamp()) AS due,
           (SELECT min(due_at) FROM full_pass_runs WHERE status = 'pending' AND due_at <= statement_timestamp()) AS oldest_due_at,
           (SELECT avg(coverage) FROM full_pass_runs
            WHERE finished_at > statement_timestamp() - interval '24 hours') AS coverage_last_24_hours,
           (SELECT coalesce(sum(cost_usd), 0) FROM full_pass_spend
            WHERE hour > statement_timestamp() - interval '25 hours') AS spend_last_24_hours_usd,
           (SELECT count(*) FROM full_pass_outbox WHERE published_at IS NULL) AS outbox_unpublished,
           (SELECT min(occurred_at) FROM full_pass_outbox WHERE published_at IS NULL) AS outbox_oldest_at
""")

_CALLS = text("""
    SELECT kind, coalesce(verdict, 'usable') AS verdict, count(*) AS answers, sum(input_tokens)::bigint AS input_tokens,
           sum(output_tokens)::bigint AS output_tokens, sum(cost_usd) AS cost_usd
    FROM full_pass_model_calls WHERE run_id = :run_id GROUP BY 1, 2 ORDER BY min(created_at)
""")

_EVENTS = text("""
    SELECT event_id, event_type, occurred_at, published_at, kafka_partition, kafka_offset
    FROM full_pass_outbox WHERE run_id = :run_id ORDER BY id
""")
