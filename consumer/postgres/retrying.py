"""An operator tries runs again: a failed one as a new run of the next generation, a waiting one now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from consumer.errors import CommandError
from consumer.postgres.database import Database
from consumer.postgres.replay_budget import is_stopped
from consumer.postgres.runs import NOTIFY_RUNS
from schemas.events import ErrorCode, run_id_of


class NotRetried(CommandError):
    """A run was passed over. `reason` names the kind in a few words, the message tells of this one."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Retried:
    """The run that will go, and whether it is a new one."""

    run_id: UUID
    new: bool


async def retry_run(database: Database, run_id: UUID, *, of_many: bool = False) -> Retried:
    """Try a run again. The new run is one like a live one: it waits behind no replay, and no budget of a replay holds it.

    Args:
        of_many: whether the run was not chosen by name: then one that has been tried again since, or that a newer event of its
            user has superseded, is passed over.

    Raises:
        NotRetried: when it is under way or completed, its replay is stopped, another run of its key is open, or there is none.
    """
    async with database.transaction() as transaction:
        run = (await transaction.execute(_RETRIED, {"run_id": run_id})).one_or_none()
        if run is None:
            raise NotRetried("no such run", f"there is no run {run_id}; 'full-pass runs list' shows those that there are")
        if run.status in {"running", "completed"}:
            kind = "under way" if run.status == "running" else "completed"
            raise NotRetried(kind, f"run {run_id} is {run.status}; only a failed or a waiting run can be tried again")
        if run.status == "pending":
            retried = await _make_due(transaction, run_id, run)
        else:
            if of_many:
                _require_last(run_id, run)
            retried = await _begin_again(transaction, run_id, run)
        await transaction.execute(NOTIFY_RUNS)
    return retried


async def _make_due(transaction: AsyncConnection, run_id: UUID, run: Row[Any]) -> Retried:
    if run.stopped:
        raise NotRetried(
            "its replay is stopped",
            f"run {run_id} waits for replay {run.generation}; 'full-pass replay resume {run.generation}' goes on with it",
        )
    await transaction.execute(_DUE_NOW, {"run_id": run_id})
    return Retried(run_id, new=False)


def _require_last(run_id: UUID, run: Row[Any]) -> None:
    if run.error_code == ErrorCode.SUPERSEDED:
        raise NotRetried("superseded", f"run {run_id} was superseded by a newer run of its user")
    if run.since is not None:
        raise NotRetried(
            "another run of its key is open" if run.since in {"pending", "running"} else "tried again since",
            f"run {run_id} has been tried again since; that run is {run.since}",
        )


async def _begin_again(transaction: AsyncConnection, run_id: UUID, run: Row[Any]) -> Retried:
    generation = (await transaction.execute(_NEXT_GENERATION)).scalar_one()
    again = run_id_of(run.user_id, run.idempotency_key, generation)
    values = {"run_id": run_id, "again": again, "generation": generation}
    if (await transaction.execute(_RETRY, values)).rowcount == 0:
        raise NotRetried(
            "another run of its key is open",
            "another run of the same user and idempotency key is open; see 'full-pass runs list'",
        )
    return Retried(again, new=True)


_RETRIED = text(f"""
    SELECT status, user_id, idempotency_key, generation, error_code, {is_stopped("run")} AS stopped,
           (SELECT later.status FROM full_pass_runs AS later
            WHERE later.user_id = run.user_id AND later.idempotency_key = run.idempotency_key
              AND later.generation > run.generation
            ORDER BY later.generation DESC LIMIT 1) AS since
    FROM full_pass_runs AS run WHERE run_id = :run_id FOR NO KEY UPDATE OF run
""")

_DUE_NOW = text("UPDATE full_pass_runs SET due_at = clock_timestamp() WHERE run_id = :run_id AND status = 'pending'")

_NEXT_GENERATION = text("SELECT nextval('full_pass_generation_seq')")

_RETRY = text("""
    INSERT INTO full_pass_runs (run_id, user_id, idempotency_key, generation, completed_at, event, traceparent)
    SELECT CAST(:again AS uuid), user_id, idempotency_key, CAST(:generation AS bigint), completed_at, event, traceparent
    FROM full_pass_runs WHERE run_id = :run_id
    ON CONFLICT DO NOTHING
""")
