"""`full_pass_pause`: an operator has the executors paused. They claim nothing and hand back what they hold.

Intake, relay and alerts go on. Every change wakes the executors.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text

from consumer.postgres.database import Database
from consumer.postgres.wakeups import RUNS_CHANNEL
from schemas.events import to_utc_text

REASON_MAX_CHARS = 200


@dataclass(frozen=True, slots=True)
class Paused:
    """Since when, and why, in the operator's words."""

    paused_at: datetime
    reason: str | None

    def __str__(self) -> str:
        """What readiness says."""
        why = f" ({self.reason})" if self.reason else ""
        return f"paused by an operator since {to_utc_text(self.paused_at)}{why}; 'full-pass resume' goes on"


class Pause:
    """The one row. Without it the executors work."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def pause(self, reason: str | None = None) -> tuple[Paused, bool]:
        """Pause; once more changes the reason alone, if one is given.

        Returns:
            The pause, and whether it is new.
        """
        async with self._database.transaction() as transaction:
            row = (await transaction.execute(_PAUSE, {"reason": reason})).one()
            await transaction.execute(_NOTIFY)
        return Paused(row.paused_at, row.reason), bool(row.new)

    async def resume(self) -> Paused | None:
        """Go on. Returns the pause that is over; None when there was none."""
        async with self._database.transaction() as transaction:
            row = (await transaction.execute(_RESUME)).one_or_none()
            await transaction.execute(_NOTIFY)
        return None if row is None else Paused(*row)

    async def state(self) -> Paused | None:
        """The pause; None while there is none."""
        async with self._database.transaction() as transaction:
            row = (await transaction.execute(_STATE)).one_or_none()
        return None if row is None else Paused(*row)


NOT_PAUSED = "NOT EXISTS (SELECT FROM full_pass_pause)"
"""SQL: whether anything may be claimed."""

_NOTIFY = text(f"SELECT pg_notify('{RUNS_CHANNEL}', '')")

_STATE = text("SELECT paused_at, reason FROM full_pass_pause")

_PAUSE = text("""
    INSERT INTO full_pass_pause AS pause (reason) VALUES (CAST(:reason AS text))
    ON CONFLICT (one) DO UPDATE SET reason = coalesce(excluded.reason, pause.reason)
    RETURNING paused_at, reason, xmax = 0 AS new
""")

_RESUME = text("DELETE FROM full_pass_pause RETURNING paused_at, reason")
