"""`full_pass_spend`: what all workers have spent, by the hour."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from sqlalchemy import text

from consumer.postgres.database import Database


@dataclass(frozen=True, slots=True)
class DaySpend:
    """What the last 24 hours cost, and the seconds until enough of it is older than that; None while there is room."""

    spent_usd: Decimal
    room_in_seconds: float | None


class Spend:
    """The spend of the last 24 hours, of all workers, counted by whole hours that reach into them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def last_day(self, most_usd: Decimal) -> DaySpend:
        """The spend, and when it will be below `most_usd` if nothing is added."""
        async with self._database.transaction() as transaction:
            row = (await transaction.execute(_LAST_DAY, {"most": most_usd})).one()
        return DaySpend(row.spent_usd, None if row.room_in_seconds is None else float(row.room_in_seconds))


# An hour leaves the window 25 hours after it began. There is room again when those that came after it are below the limit.
_LAST_DAY = text("""
    WITH hours AS (
        SELECT hour, cost_usd, sum(cost_usd) OVER (ORDER BY hour DESC) AS since
        FROM full_pass_spend WHERE hour > statement_timestamp() - interval '25 hours'
    )
    SELECT coalesce(sum(cost_usd), 0) AS spent_usd,
           extract(epoch FROM max(hour) FILTER (WHERE since >= CAST(:most AS numeric))
                              + interval '25 hours' - statement_timestamp()) AS room_in_seconds
    FROM hours
""")
