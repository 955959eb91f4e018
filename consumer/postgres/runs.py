"""The ledger: which runs there are, who works on them, and when they may be tried (design, "The life of a run").

PostgreSQL's clock decides everywhere. `attempt` rises with every claim and is the fencing token: a statement that names an
attempt that is over changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import msgspec
from sqlalchemy import Row, text
from sqlalchemy.exc import IntegrityError

from consumer.errors import LostLease
from consumer.postgres.answers import NOTHING, Bought
from consumer.postgres.claiming import CLAIM, LIVE_PRIORITY, RENEW, SECONDS_UNTIL_NEXT
from consumer.postgres.database import Database
from consumer.postgres.forgotten import REMOVE_RUN, forgotten
from consumer.postgres.handing_back import (
    OURS,
    PUT_BACK,
    PUT_BACK_FAILED,
    PUT_BACK_FOR_OUTAGE,
    PUT_BACK_FOR_REPLAY,
    PUT_BACK_IN_GRACE,
)
from consumer.postgres.pause import Pause
from consumer.postgres.replay_budget import HOLD_REPLAY
from consumer.postgres.story import story_with
from consumer.postgres.wakeups import RUNS_CHANNEL
from schemas.events import run_id_of

_CONTENDED_CLAIMS = 5


class NewRun(msgspec.Struct, frozen=True, gc=False):
    """A completion event that was accepted. `event` is the JSON text of its known fields.

    A struct, since intake makes one for every event: a frozen dataclass takes five times as long.
    """

    user_id: UUID
    idempotency_key: str
    completed_at: datetime
    event: str
    traceparent: str
    generation: int = 0
    priority: int = LIVE_PRIORITY

    @property
    def run_id(self) -> UUID:
        """UUIDv5 of user, key and generation."""
        return run_id_of(self.user_id, self.idempotency_key, self.generation)


@dataclass(frozen=True, slots=True)
class Claim:
    """A run in this worker's hands, as it was when it was claimed. `attempt` is the fencing token.

    `is_replay`: whether its generation is one of `full_pass_replays`, which may have a budget.
    """

    run_id: UUID
    user_id: UUID
    idempotency_key: str
    generation: int
    attempt: int
    failures: int
    completed_at: datetime
    storage_path: str
    traceparent: str
    stage: str
    memory_saved_at: datetime | None
    error_code: str | None
    error_detail: str | None
    bought: Bought = NOTHING
    is_replay: bool = False


class Ledger:
    """`full_pass_runs`, as intake and executor use it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.pause = Pause(database)

    async def accept(self, runs: Sequence[NewRun]) -> int:
        """Insert pending runs in bulk and wake the executors; runs that are there already stay as they are.

        Events of users who were forgotten after them are passed over.

        PostgreSQL sorts them by key, so that two intakes with the same events wait for each other instead of deadlocking.

        Returns:
            How many were new.

        Raises:
            DataRefused: when PostgreSQL takes one of the values for no value; insert one by one to find it.
            DatabaseUnavailable: when it can't be reached; nothing was inserted, or all of it.
        """
        if not runs:
            return 0
        async with self._database.transaction() as transaction:
            return int((await transaction.execute(_ACCEPT, _columns(runs))).scalar_one())

    async def claim(self, lease_seconds: float, held: Collection[UUID], *, expired_count: bool, suspects: bool) -> Claim | None:
        """Take one run: one whose holder went silent, else by priority the newest due run of a user without a running one.

        Args:
            lease_seconds: how long the run is ours unless we renew.
            held: runs in this worker's hands, which it never claims from itself.
            expired_count: whether silence means anything now; not so just after we lost PostgreSQL ourselves.
            suspects: whether a run with two or more failures may be taken.

        A run whose user was forgotten after its event is removed instead of taken, and one whose replay is stopped is held with
        all others of it; then the next one is looked for. While the executors are paused there is none.
        """
        values = {"lease": lease_seconds, "held": list(held), "expired_count": expired_count, "suspects": suspects}
        contended = 0
        while contended < _CONTENDED_CLAIMS:
            try:
                async with self._database.transaction() as transaction:
                    row = (await transaction.execute(CLAIM, values)).one_or_none()
                    if row is not None and row.forgotten:
                        await transaction.execute(REMOVE_RUN, {"run_id": row.run_id, "user_id": row.user_id})
                    elif row is not None and row.stopped:
                        await transaction.execute(HOLD_REPLAY, {"run_id": row.run_id})
            except IntegrityError:
                contended += 1  # another worker took another run of the same user in this moment: look again
                continue
            if row is None or not (row.forgotten or row.stopped):
                return None if row is None else _claim_of(row)
        return None

    async def seconds_until_next(self) -> float | None:
        """Seconds until the earliest due time or end of a lease that is still ahead; None when there is none."""
        async with self._database.transaction() as transaction:
            seconds = (await transaction.execute(SECONDS_UNTIL_NEXT)).scalar_one()
        return None if seconds is None else float(seconds)

    async def renew(self, claims: Collection[Claim], lease_seconds: float) -> set[UUID]:
        """Renew the leases of runs under way, and return those that are ours no longer.

        A row that is locked is being saved through the door, which renews it: it is passed over, so that a long save never
        costs the other runs their leases.
        """
        if not claims:
            return set()
        values = {
            "run_ids": [claim.run_id for claim in claims],
            "attempts": [claim.attempt for claim in claims],
            "lease": lease_seconds,
        }
        async with self._database.transaction() as transaction:
            rows = (await transaction.execute(RENEW, values)).all()
        return {row.run_id for row in rows if not row.held}

    async def enter_stage(
        self, claim: Claim, stage: str, lease_seconds: float, *, model: str | None = None, prompt_version: int | None = None
    ) -> None:
        """Note the stage that a run has come to, with which model and prompts it goes on (None: as before), and renew its lease.

        Raises:
            LostLease: when another worker has the run.
        """
        values: dict[str, Any] = {"run_id": claim.run_id, "attempt": claim.attempt, "stage": stage, "lease": lease_seconds}
        values |= {"model": model, "prompt_version": prompt_version}
        async with self._database.transaction() as transaction:
            if (await transaction.execute(_ENTER_STAGE, values)).rowcount == 0:
                raise LostLease

    async def note_coverage(self, claim: Claim, coverage: float) -> None:
        """Note the share of chunks that were answered, whether or not it is enough."""
        values = {"run_id": claim.run_id, "attempt": claim.attempt, "coverage": coverage}
        async with self._database.transaction() as transaction:
            await transaction.execute(_NOTE_COVERAGE, values)

    async def put_back(self, claim: Claim, reason: Literal["shutdown", "pause"] = "shutdown") -> bool:
        """Hand a run back untouched: due now, no failure counted."""
        return await self._hand_back(PUT_BACK, claim, reason=reason)

    async def put_back_for_outage(
        self,
        claim: Claim,
        base_seconds: float,
        most_seconds: float,
        give_up_seconds: float | None,
        code: str | None = None,
    ) -> bool:
        """Hand a run back because something that it needs is away; `code` says what, for its story.

        Due again after as long as it has been held up already (a backoff that doubles), at least `base_seconds` and at most
        `most_seconds`, a quarter of it left to chance.

        Returns:
            False when nothing was written: the outage lasts longer than `give_up_seconds` (None: it never does), or the
            run is no longer ours. Ending it through the door tells which.
        """
        times = {"base": base_seconds, "most": most_seconds, "give_up": give_up_seconds}
        return await self._hand_back(PUT_BACK_FOR_OUTAGE, claim, code=code, **times)

    async def put_back_for_replay(self, claim: Claim, code: str, again_seconds: float) -> bool:
        """Hand a run back because its replay is stopped: held until the budget is raised, no failure counted.

        If the replay goes on in this very moment, the run is due again after `again_seconds`.
        """
        return await self._hand_back(PUT_BACK_FOR_REPLAY, claim, code=code, base=again_seconds)

    async def put_back_in_grace(self, claim: Claim, base_seconds: float, grace_seconds: float, code: str | None = None) -> bool:
        """Hand a run back because its profile or export is not there yet; looked for again at least once a second at first.

        Returns:
            False when the grace since the run was accepted is over, or the run is no longer ours.
        """
        return await self._hand_back(PUT_BACK_IN_GRACE, claim, code=code, base=base_seconds, grace=grace_seconds)

    async def put_back_failed(self, claim: Claim, code: str, detail: str, delay_seconds: float) -> bool:
        """Hand a run back and count a failure; `code` is what it ends with if this was one too many."""
        return await self._hand_back(PUT_BACK_FAILED, claim, code=code, detail=detail, delay=delay_seconds)

    async def _hand_back(self, statement: Any, claim: Claim, **values: Any) -> bool:
        bound = {"run_id": claim.run_id, "attempt": claim.attempt, **values}
        async with self._database.transaction() as transaction:
            if (await transaction.execute(statement, bound)).rowcount == 0:
                return False
            await transaction.execute(NOTIFY_RUNS)
        return True


def _columns(runs: Sequence[NewRun]) -> dict[str, list[Any]]:
    return {
        "run_ids": [run.run_id for run in runs],
        "user_ids": [run.user_id for run in runs],
        "keys": [run.idempotency_key for run in runs],
        "generations": [run.generation for run in runs],
        "priorities": [run.priority for run in runs],
        "completed_at": [run.completed_at for run in runs],
        "events": [run.event for run in runs],
        "traceparents": [run.traceparent for run in runs],
    }


def _claim_of(row: Row[Any]) -> Claim:
    values = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's documented name for a row as a mapping
    del values["forgotten"], values["stopped"]
    bought = Bought(values.pop("input_tokens"), values.pop("output_tokens"), values.pop("cost_usd"))
    return Claim(storage_path=values.pop("event")["storage_path"], bought=bought, **values)


NOTIFY_RUNS = text(f"SELECT pg_notify('{RUNS_CHANNEL}', '')")

_ACCEPT = text(f"""
    WITH accepted AS (
        INSERT INTO full_pass_runs (run_id, user_id, idempotency_key, generation, priority, completed_at, event, traceparent)
        SELECT run_id, user_id, idempotency_key, generation, priority, completed_at, event::jsonb, traceparent
        FROM unnest(
            CAST(:run_ids AS uuid[]), CAST(:user_ids AS uuid[]), CAST(:keys AS text[]), CAST(:generations AS bigint[]),
            CAST(:priorities AS smallint[]), CAST(:completed_at AS timestamptz[]), CAST(:events AS text[]),
            CAST(:traceparents AS text[])
        ) AS new (run_id, user_id, idempotency_key, generation, priority, completed_at, event, traceparent)
        WHERE NOT {forgotten("new")}
        ORDER BY user_id, idempotency_key, generation
        ON CONFLICT DO NOTHING
        RETURNING 1
    )
    SELECT count(*), CASE WHEN count(*) > 0 THEN pg_notify('{RUNS_CHANNEL}', '') END FROM accepted
""")

_ENTER_STAGE = text(f"""
    UPDATE full_pass_runs
    SET stage = :stage, lease_until = clock_timestamp() + make_interval(secs => :lease),
        model = coalesce(CAST(:model AS text), model),
        prompt_version = coalesce(CAST(:prompt_version AS integer), prompt_version),
        story = {story_with("CAST(:stage AS text)")}
    WHERE {OURS}
""")

_NOTE_COVERAGE = text(f"UPDATE full_pass_runs SET coverage = :coverage WHERE {OURS}")
