"""What people ask the ledger: `runs list`, `runs show`, `status`, and the gauges. Reads only, but for `runs retry`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import select, text

from consumer.errors import CommandError
from consumer.postgres import tables
from consumer.postgres.database import Database
from consumer.postgres.runs import NOTIFY_RUNS
from schemas.events import run_id_of

STATUSES = ("pending", "running", "completed", "failed")
_LIST_COLUMNS = (
    "run_id",
    "user_id",
    "generation",
    "status",
    "stage",
    "attempt",
    "failures",
    "due_at",
    "held_up_since",
    "coverage",
    "cost_usd",
    "error_code",
    "created_at",
    "finished_at",
)


@dataclass(frozen=True, slots=True)
class Backlog:
    """What is due and running, and how long the oldest due run has waited, in seconds."""

    due: int
    running: int
    oldest_due_seconds: float


class Overview:
    """The ledger, as people and dashboards see it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def backlog(self) -> Backlog:
        """The scaling signal: runs due or running."""
        async with self._database.transaction() as transaction:
            row = (await transaction.execute(_BACKLOG)).one()
        return Backlog(row.due, row.running, float(row.oldest_due_seconds))

    async def status(self) -> dict[str, Any]:
        """Counts by status and code, the backlog, coverage, spend of the last 24 hours (USD) and the outbox."""
        async with self._database.transaction() as transaction:
            counts = (await transaction.execute(_COUNTS)).all()
            summary = (await transaction.execute(_SUMMARY)).mappings().one()
        return {
            "runs": {status: sum(row.runs for row in counts if row.status == status) for status in STATUSES},
            "failures": {row.error_code: row.runs for row in counts if row.status == "failed"},
            **summary,
        }

    async def list_runs(self, *, status: str | None = None, user_id: UUID | None = None, limit: int = 50) -> list[dict[str, Any]]:
        """The newest runs first."""
        question = select(*(tables.runs.c[name] for name in _LIST_COLUMNS)).order_by(tables.runs.c.created_at.desc()).limit(limit)
        if status is not None:
            question = question.where(tables.runs.c.status == status)
        if user_id is not None:
            question = question.where(tables.runs.c.user_id == user_id)
        async with self._database.transaction() as transaction:
            return [dict(row) for row in (await transaction.execute(question)).mappings()]

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
        return {**run, "calls": [dict(call) for call in calls], "events": [dict(event) for event in events]}

    async def retry(self, run_id: UUID) -> tuple[UUID, bool]:
        """Try a run again: a failed one as a new run of the next generation, a waiting one now.

        Returns:
            The run that will go, and whether it is a new one.

        Raises:
            CommandError: when the run is under way or completed, or another run of its key is open.
        """
        async with self._database.transaction() as transaction:
            run = (await transaction.execute(_RETRIED, {"run_id": run_id})).one_or_none()
            if run is None:
                raise CommandError(f"there is no run {run_id}; 'full-pass runs list' shows those that there are")
            if run.status in {"running", "completed"}:
                raise CommandError(f"run {run_id} is {run.status}; only a failed or a waiting run can be tried again")
            if run.status == "pending":
                await transaction.execute(_DUE_NOW, {"run_id": run_id})
                await transaction.execute(NOTIFY_RUNS)
                return run_id, False
            generation = (await transaction.execute(_NEXT_GENERATION)).scalar_one()
            again = run_id_of(run.user_id, run.idempotency_key, generation)
            values = {"run_id": run_id, "again": again, "generation": generation}
            if (await transaction.execute(_RETRY, values)).rowcount == 0:
                raise CommandError("another run of the same user and idempotency key is open; see 'full-pass runs list'")
            await transaction.execute(NOTIFY_RUNS)
        return again, True


_BACKLOG = text("""
    SELECT count(*) FILTER (WHERE status = 'pending' AND due_at <= statement_timestamp()) AS due,
           count(*) FILTER (WHERE status = 'running') AS running,
           coalesce(extract(epoch FROM statement_timestamp()
               - min(due_at) FILTER (WHERE status = 'pending' AND due_at <= statement_timestamp())), 0) AS oldest_due_seconds
    FROM full_pass_runs WHERE status IN ('pending', 'running')
""")

_COUNTS = text("SELECT status, error_code, count(*) AS runs FROM full_pass_runs GROUP BY status, error_code")

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
    SELECT event_id, event_type, occurred_at, published_at FROM full_pass_outbox WHERE run_id = :run_id ORDER BY id
""")

_RETRIED = text("SELECT status, user_id, idempotency_key FROM full_pass_runs WHERE run_id = :run_id FOR NO KEY UPDATE")

_DUE_NOW = text("UPDATE full_pass_runs SET due_at = clock_timestamp() WHERE run_id = :run_id AND status = 'pending'")

_NEXT_GENERATION = text("SELECT nextval('full_pass_generation_seq')")

_RETRY = text("""
    INSERT INTO full_pass_runs (run_id, user_id, idempotency_key, generation, completed_at, event, traceparent)
    SELECT CAST(:again AS uuid), user_id, idempotency_key, CAST(:generation AS bigint), completed_at, event, traceparent
    FROM full_pass_runs WHERE run_id = :run_id
    ON CONFLICT DO NOTHING
""")
