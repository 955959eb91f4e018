"""Notifications and the relay's lock, on one raw connection: a pool would give the session away.

Channels: `full_pass_runs` (a run may be due) and `full_pass_outbox` (a row waits for the relay).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import asyncpg

from consumer.postgres.database import answer_seconds, connect, session_settings, speaking_plainly

RUNS_CHANNEL = "full_pass_runs"
OUTBOX_CHANNEL = "full_pass_outbox"


class Wakeups:
    """A listening session. Its holder must `ping` or `wait` more often than the lease, or the server ends it.

    Polling is the backstop: a notification that is lost costs a poll, nothing else.
    """

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        self._woken = asyncio.Event()

    @classmethod
    @asynccontextmanager
    async def connect(cls, url: str, lease_seconds: float, channels: Sequence[str]) -> AsyncIterator[Wakeups]:
        """Connect and listen; the session, and with it the lock, is gone when the block ends.

        Raises:
            DatabaseUnavailable: when the server can't be reached.
        """
        settings = session_settings(lease_seconds)
        settings["idle_session_timeout"] = settings["idle_in_transaction_session_timeout"]
        with speaking_plainly():
            connection = await connect(url, settings, answer_seconds(lease_seconds))
        wakeups = cls(connection)
        try:
            with speaking_plainly():
                connection.add_termination_listener(wakeups._wake)
                for channel in channels:
                    await connection.add_listener(channel, wakeups._wake)
            yield wakeups
        finally:
            connection.remove_termination_listener(wakeups._wake)
            connection.terminate()

    def _wake(self, *_args: object) -> None:
        self._woken.set()

    async def wait(self, timeout_seconds: float) -> bool:
        """Sleep until a notification (True) or the timeout (False)."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._woken.wait()
        except TimeoutError:
            return False
        finally:
            self._woken.clear()
        return True

    async def ping(self) -> None:
        """Keep the session.

        Raises:
            DatabaseUnavailable: when it is gone, and with it the lock.
        """
        with speaking_plainly():
            await self._connection.execute("SELECT 1")

    async def try_lock(self, name: str) -> bool:
        """Take the session's lock of that name, if nobody has it. It is held until the session ends."""
        key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
        with speaking_plainly():
            taken: bool = await self._connection.fetchval("SELECT pg_try_advisory_lock($1)", key)
        return taken
