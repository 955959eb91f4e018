"""What expires by itself: recorded answers and published outbox rows (guarantees G10, G11). Ledger rows never do."""

from __future__ import annotations

from sqlalchemy import TextClause, text

from consumer.postgres.database import Database

BATCH_ROWS = 2_000
LONGEST_PERIOD_SECONDS = 3_600.0


class Retention:
    """Removes what is older than `RETENTION_DAYS`, by PostgreSQL's clock."""

    def __init__(self, database: Database, days: float) -> None:
        self._database = database
        self._days = days

    @property
    def period_seconds(self) -> float:
        """How often `expire` has to be called."""
        return self.period_of(self._days)

    @staticmethod
    def period_of(days: float) -> float:
        """Hourly; more often where things are kept for hours or minutes alone."""
        return max(1.0, min(LONGEST_PERIOD_SECONDS, days * 86_400 / 4))

    async def expire(self) -> tuple[int, int]:
        """Remove recorded answers and published outbox rows in short transactions; returns how many of each."""
        return await self._remove(_OLD_ANSWERS), await self._remove(_OLD_OUTBOX)

    async def _remove(self, statement: TextClause) -> int:
        removed = 0
        while True:
            async with self._database.transaction() as transaction:
                count = (await transaction.execute(statement, {"days": self._days})).rowcount
            removed += count
            if count < BATCH_ROWS:
                return removed


_OLD_ANSWERS = text(f"""
    DELETE FROM full_pass_model_calls WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM full_pass_model_calls
        WHERE created_at < statement_timestamp() - make_interval(secs => CAST(:days AS float8) * 86400) LIMIT {BATCH_ROWS}))
""")

_OLD_OUTBOX = text(f"""
    DELETE FROM full_pass_outbox WHERE id = ANY(ARRAY(
        SELECT id FROM full_pass_outbox
        WHERE published_at < statement_timestamp() - make_interval(secs => CAST(:days AS float8) * 86400) LIMIT {BATCH_ROWS}))
""")
