"""Connections to PostgreSQL: `DATABASE_URL` in each of its forms, session settings, and what its errors mean to us."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import asyncpg
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, InterfaceError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from consumer.errors import ConfigurationError, FullPassError, Outage
from schemas.events import ErrorCode

CONNECT_TIMEOUT_SECONDS = 10.0

# libpq's own parameters that asyncpg does not know: it would send them to the server, which refuses the connection.
_CLIENT_ONLY = frozenset(
    "channel_binding client_encoding fallback_application_name gssencmode gssdelegation hostaddr keepalives "
    "keepalives_count keepalives_idle keepalives_interval load_balance_hosts replication requirepeer require_auth sslcertmode "
    "sslcompression sslsni tcp_user_timeout pgbouncer".split()
)


class DataRefused(FullPassError):
    """PostgreSQL refused a value as data (SQLSTATE 22…): the same statement will never succeed."""


class DatabaseUnavailable(Outage):
    """PostgreSQL can't be reached, closed the connection, or would not take a statement now."""

    def __init__(self, detail: str) -> None:
        super().__init__(ErrorCode.INTERNAL, detail)

    def __str__(self) -> str:
        return self.detail


def parse_url(url: str) -> tuple[str, float]:
    """A DSN that asyncpg takes, and libpq's `connect_timeout` in seconds.

    Raises:
        ConfigurationError: naming DATABASE_URL, when it is no PostgreSQL address.
    """
    try:
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
        timeout = float(query.pop("connect_timeout", CONNECT_TIMEOUT_SECONDS)) or CONNECT_TIMEOUT_SECONDS
    except ValueError:
        raise ConfigurationError("DATABASE_URL: expected postgresql://user:password@host:port/name") from None
    if parts.scheme not in {"postgresql", "postgres", "postgresql+asyncpg"}:
        raise ConfigurationError("DATABASE_URL: expected an address that begins with postgresql:// or postgres://")
    if "ssl" in query:  # how SQLAlchemy's users of asyncpg spell it
        query.setdefault("sslmode", query.pop("ssl"))
    kept = {name: value for name, value in query.items() if name not in _CLIENT_ONLY}
    return urlunsplit(("postgresql", parts.netloc, parts.path, urlencode(kept), "")), timeout


async def connect(url: str, server_settings: dict[str, str], command_timeout_seconds: float) -> asyncpg.Connection:
    """One asyncpg connection.

    Raises:
        ConfigurationError: for an address that can't be read.
        DatabaseUnavailable: when nobody answers there or the server refuses us.
    """
    dsn, timeout = parse_url(url)
    try:
        return await asyncpg.connect(
            dsn, timeout=timeout, command_timeout=command_timeout_seconds, server_settings=server_settings
        )
    except (asyncpg.ClientConfigurationError, ValueError, OverflowError) as error:  # the last: a port that there can't be
        raise ConfigurationError(f"DATABASE_URL: {type(error).__name__}; see libpq's connection strings") from None


class Database:
    """The pool of one worker. Every session gives its locks back when its client is silent for a lease."""

    def __init__(self, url: str, lease_seconds: float = 30, connections: int = 4) -> None:
        parse_url(url)
        self.url = url
        self.lease_seconds = lease_seconds
        self.engine: AsyncEngine = create_async_engine(
            "postgresql+asyncpg://",
            async_creator=self._connect,
            pool_size=connections,
            max_overflow=4,
            pool_pre_ping=True,
            pool_timeout=max(lease_seconds, CONNECT_TIMEOUT_SECONDS),
        )

    async def _connect(self) -> asyncpg.Connection:
        return await connect(self.url, session_settings(self.lease_seconds), max(self.lease_seconds, 30))

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """One transaction, committed at the end of the block.

        Raises:
            DatabaseUnavailable: when the server is away; whether a commit under way went through is then unknown.
            DataRefused: when it refused a value.
        """
        with speaking_plainly():
            async with self.engine.begin() as connection:
                yield connection

    async def close(self) -> None:
        """Close every connection."""
        await self.engine.dispose()


def session_settings(lease_seconds: float) -> dict[str, str]:
    """What every session of ours sets: a frozen client keeps locks for a lease at most, and waits as long for others'."""
    lease_ms = str(int(lease_seconds * 1000))
    return {
        "application_name": "full-pass",
        "idle_in_transaction_session_timeout": lease_ms,
        "lock_timeout": lease_ms,
        "jit": "off",
    }


class speaking_plainly:  # noqa: N801 - a context manager reads as a verb
    """Turns what SQLAlchemy, asyncpg and sockets raise into our two words; everything else passes."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if error is None or isinstance(error, FullPassError):
            return
        state = sqlstate(error)
        if state.startswith("22"):
            raise DataRefused(f"PostgreSQL refused a value (SQLSTATE {state})") from None
        if is_unavailable(error, state):
            raise DatabaseUnavailable(_reason(error, state)) from error


def sqlstate(error: BaseException) -> str:
    """The SQLSTATE behind an error, or an empty text."""
    origin = getattr(error, "orig", None) or error
    state = getattr(origin, "sqlstate", None) or getattr(origin, "pgcode", None)
    return str(state or "")


# SQLSTATEs in which waiting helps: connection, resources, an operator's hand, disk, read-only, locks and deadlocks, and what
# an operator still has to grant, create or migrate.
_PASSING = ("08", "53", "57", "58", "25006", "40", "55P03", "25P03", "25P04", "28", "3D000", "42501", "42P01", "42703")


def is_unavailable(error: BaseException, state: str) -> bool:
    """Whether waiting may help: nobody answered, or the server says that it can't take this now."""
    if state:
        return state.startswith(_PASSING)
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    return isinstance(error, InterfaceError | OSError | TimeoutError | asyncpg.InterfaceError | asyncio.TimeoutError) or (
        "TimeoutError" in type(error).__name__
    )


def _reason(error: BaseException, state: str) -> str:
    kind = type(getattr(error, "orig", None) or error).__name__
    known = f"SQLSTATE {state}" if state else kind
    return f"PostgreSQL at DATABASE_URL is not available ({known})"


async def refuse_transaction_pooler(url: str) -> None:
    """Make sure that sessions are real: timeouts, LISTEN and the relay's lock are lost behind a transaction pooler.

    A pooler that hands a server connection to whoever has a transaction open gives two of our connections the same
    one, or one of ours two different ones.

    Raises:
        ConfigurationError: behind a transaction pooler.
        DatabaseUnavailable: when nobody answers there.
    """
    with speaking_plainly():
        await _refuse_transaction_pooler(url)


async def _refuse_transaction_pooler(url: str) -> None:
    advice = (
        "DATABASE_URL leads through a pooler in transaction mode, where sessions are not kept. "
        "Use a direct connection, or the pooler's session mode (hosted databases offer another port or host for it)."
    )
    try:
        first = await connect(url, {"application_name": "full-pass"}, CONNECT_TIMEOUT_SECONDS)
        second = await connect(url, {"application_name": "full-pass"}, CONNECT_TIMEOUT_SECONDS)
        settled = await connect(url, session_settings(30), CONNECT_TIMEOUT_SECONDS)
    except asyncpg.ProtocolViolationError:
        raise ConfigurationError(advice) from None
    try:
        before = await first.fetchval("SELECT pg_backend_pid()")
        async with second.transaction():
            other = await second.fetchval("SELECT pg_backend_pid()")
            after = await first.fetchval("SELECT pg_backend_pid()")
    except (asyncpg.InvalidSQLStatementNameError, asyncpg.DuplicatePreparedStatementError):
        raise ConfigurationError(advice) from None
    finally:
        await asyncio.gather(first.close(timeout=5), second.close(timeout=5), settled.close(timeout=5), return_exceptions=True)
    if other == before or before != after:
        raise ConfigurationError(advice)


async def check(database: Database) -> None:
    """One round trip.

    Raises:
        DatabaseUnavailable: when it fails.
    """
    async with database.transaction() as connection:
        await connection.execute(text("SELECT 1"))
