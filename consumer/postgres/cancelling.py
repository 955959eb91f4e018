"""An operator ends runs: `v2-failed: cancelled`, whoever has them.

One transaction a run: its row is locked, so nobody saves meanwhile, and ended. Its holder, if there is one, loses it with that,
as to a worker that took it over: its next save finds the run ended, its next renewal stops it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import text

from consumer.postgres.claiming import NEWER_SAVED
from consumer.postgres.database import Database
from consumer.postgres.profiles import fail_in
from consumer.postgres.runs import Claim
from schemas.events import ErrorCode

_AT_ONCE = 4


async def cancel_runs(database: Database, run_ids: Sequence[UUID], detail: str) -> int:
    """End those that are open; an interruption leaves the rest as they were, for another time.

    Returns:
        How many were ended.

    Raises:
        DatabaseUnavailable: when PostgreSQL is away; what was ended stays ended.
    """
    waiting = iter(run_ids)
    ended = 0

    async def work_off() -> None:
        nonlocal ended
        for run_id in waiting:
            code = await cancel_run(database, run_id, detail)
            ended += code is not None  # in a line of its own: across an await the sum of another would be lost

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(_AT_ONCE, len(run_ids))):
                group.create_task(work_off())
    except ExceptionGroup as group_of:
        raise group_of.exceptions[0] from group_of.exceptions[0].__cause__
    return ended


async def cancel_run(database: Database, run_id: UUID, detail: str) -> ErrorCode | None:
    """End a pending or running run. What it saved stays, and the profile becomes what it does after any failure.

    Returns:
        The code that it ended with: `cancelled`, or `superseded` where a newer run has saved its MEMORY. None where the run has
        ended before, or there is none.

    Raises:
        DatabaseUnavailable: when PostgreSQL is away; nothing was written, or all of it.
    """
    async with database.transaction() as transaction:
        row = (await transaction.execute(_LOCK, {"run_id": run_id})).mappings().one_or_none()
        if row is None:
            return None
        values = dict(row)
        code = ErrorCode.SUPERSEDED if values.pop("superseded") else ErrorCode.CANCELLED
        leave_profile = values.pop("is_not_what_the_profile_tells_of")
        claim = Claim(storage_path=values.pop("event")["storage_path"], **values)
        await fail_in(transaction, claim, code, detail, leave_profile=leave_profile)
    return code


# A run that never began has not made the profile `processing`; one beside which another run of the user goes on is not why it is.
_LOCK = text(f"""
    SELECT run_id, user_id, idempotency_key, generation, attempt, failures, completed_at, event, traceparent, stage,
           memory_saved_at, error_code, error_detail, {NEWER_SAVED} AS superseded,
           attempt = 0 OR EXISTS (
               SELECT FROM full_pass_runs AS other
               WHERE other.user_id = run.user_id AND other.run_id <> run.run_id AND other.status = 'running'
           ) AS is_not_what_the_profile_tells_of
    FROM full_pass_runs AS run
    WHERE run_id = :run_id AND status IN ('pending', 'running')
    FOR NO KEY UPDATE OF run
""")
