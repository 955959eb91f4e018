"""`full_pass_spend`: what all workers have spent, by the hour; and what a replay has."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from sqlalchemy import text

from consumer.postgres.database import Database
from consumer.postgres.replay_budget import SPEND_OF_REPLAY, ReplaySpend
from consumer.postgres.runs import NOTIFY_RUNS


@dataclass(frozen=True, slots=True)
class DaySpend:
    """What the last 24 hours cost, and when enough of it is older than that, if nothing is added; None while there is room."""

    spent_usd: Decimal
    room_in_seconds: float | None
    room_at: datetime | None = None


class Spend:
    """The spend of the last 24 hours, of all workers, counted by whole hours that reach into them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def last_day(self, most_usd: Decimal) -> DaySpend:
        """The spend, and when it will be below `most_usd` if nothing is added."""
        async with self._database.transaction() as transaction:
            row = (await transaction.execute(_LAST_DAY, {"most": most_usd})).one()
        return DaySpend(row.spent_usd, None if row.room_in_seconds is None else float(row.room_in_seconds), row.room_at)

    async def of_replay(self, generation: int) -> ReplaySpend | None:
        """What a replay may spend and has spent; None when there is none of that generation."""
        async with self._database.transaction() as transaction:
            row = (await transaction.execute(SPEND_OF_REPLAY, {"generation": generation})).one_or_none()
        return None if row is None else ReplaySpend(*row)

    async def release(self) -> None:
        """Make due what may have been handed back until there is room: the limit was raised, or there is room early."""
        async with self._database.transaction() as transaction:
            if (await transaction.execute(_RELEASE)).rowcount:
                await transaction.execute(NOTIFY_RUNS)


# An hour leaves the window 25 hours after it began. There is room again when those that came after it are below the limit.
_LAST_DAY = text("""
    WITH hours AS (
        SELECT hour, cost_usd, sum(cost_usd) OVER (ORDER BY hour DESC) AS since
        FROM full_pass_spend WHERE hour > statement_timestamp() - interval '25 hours'
    ), day AS (
        SELECT coalesce(sum(cost_usd), 0) AS spent_usd,
               max(hour) FILTER (WHERE since >= CAST(:most AS numeric)) + interval '25 hours' AS room_at
        FROM hours
    )
    SELECT spent_usd, room_at, extract(epoch FROM room_at - statement_timestamp()) AS room_in_seconds FROM day
""")

# Nothing marks these runs, since they wait for nothing of their own: no outage holds them up and no failure was counted. Others
# that are like them (a store that waits for its operator) are tried once more.
_RELEASE = text("""
    WITH waiting AS (
        SELECT run_id FROM full_pass_runs
        WHERE status = 'pending' AND due_at > clock_timestamp() + interval '1 minute' AND due_at < 'infinity'
          AND attempt > 0 AND failures = 0 AND held_up_since IS NULL
        FOR NO KEY UPDATE SKIP LOCKED  -- what another worker holds here it is making due, or ending
    )
    UPDATE full_pass_runs AS run SET due_at = clock_timestamp() FROM waiting WHERE run.run_id = waiting.run_id
""")
