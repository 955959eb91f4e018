"""`full_pass_model_calls`: the record of every answer that was paid for (design, way of the data, 4)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from decimal import Decimal
from uuid import UUID

from sqlalchemy import or_, select, text, update

from consumer.errors import LostLease
from consumer.postgres import tables
from consumer.postgres.database import Database


@dataclass(frozen=True, slots=True)
class RecordedAnswer:
    """An answer as it came. `content`: the JSON text of the message's content blocks; `verdict`: None while usable."""

    content: str
    stop_reason: str | None
    input_tokens: int
    output_tokens: int
    verdict: str | None


@dataclass(frozen=True, slots=True)
class BilledAnswer:
    """An answer to be recorded. `cost_usd` is None for a model without a known price; `spend_usd` is what the day's
    spend counts for it all the same (the dearest known price then)."""

    request_sha256: str
    kind: str
    model: str
    content: str
    stop_reason: str | None
    input_tokens: int
    output_tokens: int
    cost_usd: Decimal | None
    spend_usd: Decimal


@dataclass(frozen=True, slots=True)
class Bought:
    """What a run has bought in all its attempts; `cost_usd` is None where a price was not known."""

    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: Decimal | None = Decimal(0)


NOTHING = Bought()


class Answers:
    """Recorded answers of a user, found again by the hash of the whole request."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, user_id: UUID, run_id: UUID, request_sha256: str) -> RecordedAnswer | None:
        """The user's recorded answer to this very request.

        One that was judged unusable is found only by the run that bought it: a crash doesn't buy it again, and another
        run asks anew.
        """
        table = tables.model_calls.c
        question = select(table.content, table.stop_reason, table.input_tokens, table.output_tokens, table.verdict).where(
            table.user_id == user_id,
            table.request_sha256 == request_sha256,
            or_(table.verdict.is_(None), table.run_id == run_id),
        )
        async with self._database.transaction() as transaction:
            row = (await transaction.execute(question)).one_or_none()
        return None if row is None else RecordedAnswer(*row)

    async def recorded(self, user_id: UUID, run_id: UUID) -> set[bytes]:
        """The hashes of all requests whose answers `find` would find for this run."""
        table = tables.model_calls.c
        question = select(table.request_sha256).where(
            table.user_id == user_id, or_(table.verdict.is_(None), table.run_id == run_id)
        )
        async with self._database.transaction() as transaction:
            return {bytes.fromhex(sha256) for (sha256,) in await transaction.execute(question)}

    async def record(self, run_id: UUID, user_id: UUID, answer: BilledAnswer) -> None:
        """Keep an answer that was paid for, and add it to what run, replay and hour have cost. Lease or not: money was spent.

        A replay that has reached its limit with it is stopped (`replay_budget`).
        It is a step forward: failures and `held_up_since` of a run that is still open are cleared.

        Raises:
            LostLease: when the run is gone, since its user was forgotten; only the hour's spend was added to.
        """
        async with self._database.transaction() as transaction:
            recorded = (await transaction.execute(_RECORD, {"run_id": run_id, "user_id": user_id, **asdict(answer)})).scalar_one()
        if not recorded:
            raise LostLease

    async def judge(self, user_id: UUID, request_sha256: str, verdict: str) -> None:
        """Note that an answer can't be used, and why in one word."""
        statement = (
            update(tables.model_calls)
            .where(tables.model_calls.c.user_id == user_id, tables.model_calls.c.request_sha256 == request_sha256)
            .values(verdict=verdict)
        )
        async with self._database.transaction() as transaction:
            await transaction.execute(statement)


# Locked in this order: the run, which may be in a long save, its replay, and last the hour's row, which all workers share.
_RECORD = text("""
    WITH run AS (
        UPDATE full_pass_runs
        SET model_calls = model_calls + 1, input_tokens = input_tokens + :input_tokens,
            output_tokens = output_tokens + :output_tokens, cost_usd = cost_usd + CAST(:cost_usd AS numeric),
            failures = CASE WHEN finished_at IS NULL THEN 0 ELSE failures END,
            held_up_since = CASE WHEN finished_at IS NULL THEN NULL ELSE held_up_since END,
            error_code = CASE WHEN finished_at IS NULL THEN NULL ELSE error_code END,
            error_detail = CASE WHEN finished_at IS NULL THEN NULL ELSE error_detail END
        WHERE run_id = :run_id
        RETURNING run_id, generation
    ), replay AS (
        UPDATE full_pass_replays AS replay
        SET cost_usd = replay.cost_usd + CAST(:spend_usd AS numeric),
            state = CASE WHEN state = 'running' AND replay.cost_usd + CAST(:spend_usd AS numeric) >= max_cost_usd
                         THEN 'budget_spent' ELSE state END
        FROM run WHERE run.generation > 0 AND replay.generation = run.generation
        RETURNING 1
    ), answer AS (
        INSERT INTO full_pass_model_calls (user_id, request_sha256, run_id, kind, model, content, stop_reason,
                                           input_tokens, output_tokens, cost_usd)
        SELECT CAST(:user_id AS uuid), :request_sha256, run_id, :kind, :model, :content, :stop_reason,
               CAST(:input_tokens AS bigint), CAST(:output_tokens AS bigint), CAST(:cost_usd AS numeric)
        FROM run
        ON CONFLICT (user_id, request_sha256) DO UPDATE
        SET run_id = excluded.run_id, content = excluded.content, stop_reason = excluded.stop_reason, verdict = NULL,
            input_tokens = excluded.input_tokens, output_tokens = excluded.output_tokens,
            cost_usd = excluded.cost_usd, created_at = clock_timestamp()
    )
    INSERT INTO full_pass_spend AS spend (hour, cost_usd)
    SELECT date_trunc('hour', clock_timestamp(), 'UTC'), CAST(:spend_usd AS numeric)
    FROM (SELECT count(*) FROM run) AS first, (SELECT count(*) FROM replay) AS second
    ON CONFLICT (hour) DO UPDATE SET cost_usd = spend.cost_usd + excluded.cost_usd
    RETURNING (SELECT count(*) FROM run)
""")
