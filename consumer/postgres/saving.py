"""The one door for every save (design, way of the data, 3).

Whoever writes for a run goes through `saving`: it locks the run's row, so a holder that lost the run writes nothing (guarantee
G6), and it looks for a newer run that saved, so an old event overwrites nothing (G7). Locks are taken run first, profile
second, everywhere.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from consumer.errors import LostLease, Superseded
from consumer.postgres.database import Database
from consumer.postgres.runs import NEWER_SAVED, Claim


@asynccontextmanager
async def saving(database: Database, claim: Claim, *, though_superseded: bool = False) -> AsyncIterator[AsyncConnection]:
    """One transaction in which `claim` may write. Its last statement renews the lease.

    Args:
        database: where.
        claim: the run, and the fencing token with which it was claimed.
        though_superseded: let the run write its own end even where a newer run has saved.

    Raises:
        LostLease: before anything is written, when the run has another holder or has ended.
        Superseded: before anything is written, when a newer run of the user has saved its MEMORY.
        DatabaseUnavailable: when PostgreSQL is away; after a commit whose answer was lost the run's row tells the truth.
    """
    ours = {"run_id": claim.run_id, "attempt": claim.attempt}
    async with database.transaction() as transaction:
        row = (await transaction.execute(_LOCK, ours)).one_or_none()
        if row is None:
            raise LostLease
        if row.superseded and not though_superseded:
            raise Superseded
        yield transaction
        await transaction.execute(_RENEW, ours | {"lease": database.lease_seconds})


_LOCK = text(f"""
    SELECT {NEWER_SAVED} AS superseded FROM full_pass_runs AS run
    WHERE run_id = :run_id AND attempt = :attempt AND status = 'running'
    FOR NO KEY UPDATE OF run
""")

_RENEW = text("""
    UPDATE full_pass_runs SET lease_until = clock_timestamp() + make_interval(secs => :lease)
    WHERE run_id = :run_id AND attempt = :attempt AND status = 'running'
""")
