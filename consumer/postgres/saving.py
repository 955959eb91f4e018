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
from consumer.postgres.claiming import NEWER_SAVED
from consumer.postgres.database import Database
from consumer.postgres.forgotten import forgotten
from consumer.postgres.runs import Claim


@asynccontextmanager
async def saving(database: Database, claim: Claim, *, though_superseded: bool = False) -> AsyncIterator[AsyncConnection]:
    """One transaction in which `claim` may write. Its last statement renews the lease.

    PostgreSQL ends it a lease after it began, whatever its client is doing: one that takes longer says `still_saving`.

    Args:
        database: where.
        claim: the run, and the fencing token with which it was claimed.
        though_superseded: let the run write its own end even where a newer run has saved.

    Raises:
        LostLease: before anything is written, when the run has another holder or has ended, or its user was forgotten.
        Superseded: before anything is written, when a newer run of the user has saved its MEMORY.
        DatabaseUnavailable: when PostgreSQL is away; after a commit whose answer was lost the run's row tells the truth.
    """
    ours = {"run_id": claim.run_id, "attempt": claim.attempt}
    async with database.transaction() as transaction:
        row = (await transaction.execute(_LOCK, ours | _lease_of(database))).one_or_none()
        if row is None or row.forgotten:
            raise LostLease
        if row.superseded and not though_superseded:
            raise Superseded
        yield transaction
        await transaction.execute(_RENEW, ours | {"lease": database.lease_seconds})


async def still_saving(database: Database, transaction: AsyncConnection) -> None:
    """Let a save go on for another lease from now."""
    await transaction.execute(_ANOTHER_LEASE, _lease_of(database))


def _lease_of(database: Database) -> dict[str, str]:
    return {"lease_ms": str(int(database.lease_seconds * 1000))}


# Between a statement's preparation and its values asyncpg leaves the server in a state where it counts no idle time: a client
# that is frozen there would keep its locks. PostgreSQL 17 and newer can count the transaction's.
_COUNTS_TRANSACTIONS = "CAST(current_setting('server_version_num') AS int) >= 170000"

_ANOTHER_LEASE = text(f"""
    SELECT CASE WHEN {_COUNTS_TRANSACTIONS}
           THEN set_config('transaction_timeout', '0', true) || set_config('transaction_timeout', :lease_ms, true) END
""")

_LOCK = text(f"""
    SELECT {NEWER_SAVED} AS superseded, {forgotten("run")} AS forgotten,
           CASE WHEN {_COUNTS_TRANSACTIONS} THEN set_config('transaction_timeout', :lease_ms, true) END
    FROM full_pass_runs AS run
    WHERE run_id = :run_id AND attempt = :attempt AND status = 'running'
    FOR NO KEY UPDATE OF run
""")

_RENEW = text("""
    UPDATE full_pass_runs SET lease_until = clock_timestamp() + make_interval(secs => :lease)
    WHERE run_id = :run_id AND attempt = :attempt AND status = 'running'
""")
