"""Connections to PostgreSQL: `DATABASE_URL` in each of its forms, session settings, and what its errors mean to us."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import asyncpg
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError, InterfaceError, InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from consumer.errors import ConfigurationError, FullPassError, Outage
from consumer.postgres.tls import refusal, system_trust, unusable_file
from schemas.events import ErrorCode

CONNECT_TIMEOUT_SECONDS = 5.0
GOODBYE_SECONDS = 0.5

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


class _Connection(asyncpg.Connection):
    """A connection whose end is not waited for where nobody answers any more."""

    async def close(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109 - asyncpg's signature
        await super().close(timeout=GOODBYE_SECONDS if timeout is None else min(timeout, GOODBYE_SECONDS))


async def connect(url: str, server_settings: dict[str, str], command_timeout_seconds: float) -> asyncpg.Connection:
    """One asyncpg connection.

    Raises:
        ConfigurationError: for an address that can't be read, or asks for what there is not.
        DatabaseUnavailable: when nobody answers there or the server refuses us.
    """
    dsn, timeout = parse_url(url)
    try:
        return await asyncpg.connect(
            dsn,
            ssl=system_trust(dsn),
            timeout=timeout,
            command_timeout=command_timeout_seconds,
            server_settings=server_settings,
            connection_class=_Connection,
        )
    except (asyncpg.UndefinedObjectError, asyncpg.InvalidParameterValueError):
        raise ConfigurationError(
            "DATABASE_URL: the server does not know a parameter behind '?' or not its value; PostgreSQL 14 or newer is needed"
        ) from None
    except (OSError, asyncpg.PostgresConnectionError) as error:  # before ValueError, which a refused certificate is as well
        if (unusable := unusable_file(dsn)) is not None:
            raise ConfigurationError(f"DATABASE_URL: {unusable}") from None
        if (words := refusal(error)) is not None:
            raise DatabaseUnavailable(f"PostgreSQL at DATABASE_URL {words}") from None
        raise
    except asyncpg.ClientConfigurationError as error:
        hint = "; sslrootcert has to name who signed its certificate, or 'system'" if "root certificate" in str(error) else ""
        raise ConfigurationError(f"DATABASE_URL: {type(error).__name__}; see libpq's connection strings{hint}") from None
    except (ValueError, OverflowError) as error:  # the last: a port that there can't be
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
            pool_timeout=max(lease_seconds, CONNECT_TIMEOUT_SECONDS),
            hide_parameters=True,  # an error would quote them, and MEMORY is one
        )
        event.listen(self.engine.sync_engine, "connect", _note_new)
        event.listen(self.engine.sync_engine, "checkout", self._ask)

    async def _connect(self) -> asyncpg.Connection:
        return await connect(self.url, session_settings(self.lease_seconds), max(self.lease_seconds, 30))

    def _ask(self, connection: Any, entry: ConnectionPoolEntry, _proxy: Any) -> None:
        """Make sure that a pooled connection answers; where one is silent, as after a failover, all others are made anew, too."""
        if entry.info.pop(_NEW, False):
            return
        try:
            connection.run_async(lambda driver: driver.execute("SELECT 1", timeout=answer_seconds(self.lease_seconds)))
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
            raise InvalidatePoolError from None

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


_NEW = "new"


def _note_new(_connection: Any, entry: ConnectionPoolEntry) -> None:
    entry.info[_NEW] = True


def answer_seconds(lease_seconds: float) -> float:
    """How long an answer that takes no work is waited for: short enough to renew a lease elsewhere."""
    return max(2.0, min(lease_seconds / 4, 5.0))


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


# SQLSTATEs in which waiting helps: connection, resources, an operator's hand, disk, read-only, locks, deadlocks and maintenance,
# what an operator still has to grant, create or migrate, a plan from before a migration, the server's own faults, and what a
# prepared statement meets behind a transaction pooler until `refuse_transaction_pooler` has named it.
_PASSING = tuple("08 53 57 58 25006 40 55 25P03 25P04 26 28 3D000 42501 42P01 42P05 42703 0A000 XX".split())


def is_unavailable(error: BaseException, state: str) -> bool:
    """Whether waiting may help: nobody answered, or the server says that it can't take this now."""
    if state:
        return state.startswith(_PASSING)
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    lost = InterfaceError | OSError | TimeoutError | asyncpg.InterfaceError | asyncpg.InternalClientError
    return isinstance(error, lost) or "TimeoutError" in type(error).__name__


def _reason(error: BaseException, state: str) -> str:
    origin = getattr(error, "orig", None) or error
    kind = type(origin).__name__
    if state == "42501" and (ours := _OUR_TABLES.search(str(origin))):
        return f"PostgreSQL at DATABASE_URL does not let this role do what is needed with {ours[0]} (SQLSTATE {state})"
    words = next((words for states, words in _WORDS.items() if state.startswith(states)), "is not available")
    return f"PostgreSQL at DATABASE_URL {words} ({f'SQLSTATE {state}' if state else kind})"


_OUR_TABLES = re.compile(r"full_pass_\w+|user_profiles|conversation_chunks")  # a denial names the table, in any language
_WORDS = {
    "28000": "does not let us in: it may demand another user, TLS (sslmode) or a client's certificate (sslcert, sslkey)",
    "28": "refuses the user or the password",
    "3D000": "has no database of that name",
    "42501": "does not let this role do what is needed",
    "42P01": "lacks a table: run 'full-pass db upgrade'",
    "42703": "lacks a column: run 'full-pass db upgrade'",
    "53300": "has no connection left",
    "53100": "has no disk space left",
    "25006": "is read-only",
}


async def refuse_transaction_pooler(url: str) -> None:
    """Make sure that sessions are real: timeouts, LISTEN and the relay's lock are lost behind a transaction pooler.

    Raises:
        ConfigurationError: behind a transaction pooler.
        DatabaseUnavailable: when nobody answers there.
    """
    named = {"application_name": "full-pass"}
    with speaking_plainly():
        try:
            async with _session(url, named) as first, _session(url, named) as second, _session(url, session_settings(30)):
                pooled = await _share_connections(first, second)
        except (
            asyncpg.ProtocolViolationError,
            asyncpg.InvalidSQLStatementNameError,
            asyncpg.DuplicatePreparedStatementError,
        ):
            pooled = True
    if pooled:
        raise ConfigurationError(
            "DATABASE_URL leads through a pooler in transaction mode, where sessions are not kept. "
            "Use a direct connection, or the pooler's session mode (hosted databases offer another port or host for it)."
        )


@asynccontextmanager
async def _session(url: str, settings: dict[str, str]) -> AsyncIterator[asyncpg.Connection]:
    connection = await connect(url, settings, CONNECT_TIMEOUT_SECONDS)
    try:
        yield connection
    finally:
        await asyncio.gather(connection.close(timeout=5), return_exceptions=True)


async def _share_connections(first: asyncpg.Connection, second: asyncpg.Connection) -> bool:
    """Whether two sessions are given one server connection, or one session different ones, as a transaction pooler does.

    Poolers hand out the connection that came back last, or each in turn, or any: hence the questions before the transaction,
    and the rounds. A pooler with one connection lets the first session wait for the end of the second's transaction.
    """
    for _ in range(_POOLER_ROUNDS):
        mine = {await first.fetchval(_BACKEND), await first.fetchval(_BACKEND)}
        async with second.transaction():
            other = await second.fetchval(_BACKEND)
            try:
                mine.add(await first.fetchval(_BACKEND))
            except TimeoutError:
                await second.fetchval(_BACKEND)  # the server answers
                return True
        if len(mine) > 1 or other in mine:
            return True
    return False


_BACKEND = "SELECT pg_backend_pid()"
_POOLER_ROUNDS = 3


async def check(database: Database) -> None:
    """One round trip.

    Raises:
        DatabaseUnavailable: when it fails.
    """
    async with database.transaction() as connection:
        await connection.execute(text("SELECT 1"))


async def why_read_only(database: Database) -> str | None:
    """What to tell an operator when nothing can be written, as on a standby after a failover; None when all is well.

    Raises:
        DatabaseUnavailable: when the server is away.
    """
    async with database.transaction() as connection:
        read_only = (await connection.execute(text("SELECT current_setting('transaction_read_only')::bool"))).scalar_one()
    return f"PostgreSQL at DATABASE_URL {_WORDS['25006']}" if read_only else None
