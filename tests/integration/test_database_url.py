"""`DATABASE_URL`: its forms, what is said about a wrong one, and what lies on the way to the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from consumer.errors import ConfigurationError, FullPassError
from consumer.postgres.database import Database, DatabaseUnavailable, check, parse_url, refuse_transaction_pooler
from sandbox.postgres import PostgresServer
from sandbox.server import free_port

_READY_FOR_QUERY, _TERMINATE, _PARSE, _BIND, _PARSE_COMPLETE = b"Z", b"X", b"P", b"B", b"1"
_IDLE = b"I"
SECRET = "s3cr3t-pass"


@dataclass
class _Connection:
    """One to the server, the statements that it knows, and how many of them no client has asked for yet."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    knows: set[bytes] = field(default_factory=set)
    unasked: int = 0


class Pooler:
    """A pooler in transaction mode: a server connection belongs to a client until its transaction is over.

    Each client logs in to a connection of its own, of which the first `size` join the pool. `next_free` says which free one is
    given out: the last that came back (-1, as PgBouncer does) or the one that waits longest (0). `prepares`: it makes a client's
    prepared statements anew wherever they are missing, so that nothing but the session itself gives it away.
    """

    def __init__(self, host: str, port: int, next_free: int, *, prepares: bool, size: int) -> None:
        self._host, self._port, self._next_free, self._prepares = host, port, next_free, prepares
        self._room = size
        self._free: list[_Connection] = []
        self._statements: dict[bytes, bytes] = {}  # their names are unique among the clients of a process
        self._all: list[asyncio.StreamWriter] = []
        self._returned = asyncio.Condition()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client, from its first byte to its last."""
        self._all.append(writer)
        sent: asyncio.Queue[bytes] = asyncio.Queue()
        try:
            await self._log_in(reader, writer)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._transact(sent, writer))
                while (message := await _message(reader))[0:1] != _TERMINATE:
                    sent.put_nowait(message)
                raise ConnectionResetError  # it has left
        except* (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _log_in(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server = _Connection(*await asyncio.open_connection(self._host, self._port))
        self._all.append(server.writer)
        startup = await _startup(reader)
        if startup[4:8] == (80877103).to_bytes(4, "big"):  # SSLRequest
            writer.write(b"N")
            startup = await _startup(reader)
        server.writer.write(startup)
        while (answer := await _message(server.reader))[0:1] != _READY_FOR_QUERY:
            writer.write(answer)
            if answer[0:1] == b"R" and int.from_bytes(answer[5:9], "big") in {10, 11}:  # SASL, to be answered
                server.writer.write(await _message(reader))
        writer.write(answer)
        self._room -= 1
        if self._room >= 0:
            await self._give_back(server)

    async def _transact(self, sent: asyncio.Queue[bytes], writer: asyncio.StreamWriter) -> None:
        while True:
            message = await sent.get()
            async with self._returned:
                await self._returned.wait_for(lambda: self._free)
                server = self._free.pop(self._next_free)
            self._forward(message, server)
            passing_on = asyncio.ensure_future(self._pass_on(sent, server))
            try:
                while (answer := await _message(server.reader)) and (answer[0:1] != _READY_FOR_QUERY or answer[-1:] != _IDLE):
                    if answer[0:1] == _PARSE_COMPLETE and server.unasked:
                        server.unasked -= 1
                    else:
                        writer.write(answer)
            finally:
                passing_on.cancel()
            writer.write(answer)
            await self._give_back(server)

    async def _pass_on(self, sent: asyncio.Queue[bytes], server: _Connection) -> None:
        while True:
            self._forward(await sent.get(), server)

    def _forward(self, message: bytes, server: _Connection) -> None:
        if message[0:1] == _PARSE:
            name = message[5:].split(b"\0")[0]
            self._statements[name] = message
            server.knows.add(name)
        if message[0:1] == _BIND and self._prepares and (name := message[5:].split(b"\0")[1]) not in server.knows:
            server.writer.write(self._statements[name])
            server.knows.add(name)
            server.unasked += 1
        server.writer.write(message)

    async def _give_back(self, server: _Connection) -> None:
        async with self._returned:
            self._free.append(server)
            self._returned.notify()

    def close(self) -> None:
        """End every connection."""
        for writer in self._all:
            writer.transport.abort()


async def _startup(reader: asyncio.StreamReader) -> bytes:
    length = await reader.readexactly(4)
    return length + await reader.readexactly(int.from_bytes(length, "big") - 4)


async def _message(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readexactly(5)
    return head + await reader.readexactly(int.from_bytes(head[1:], "big") - 4)


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(serve: Serve) -> AsyncIterator[int]:
    """A server for the length of the block; its port."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


@asynccontextmanager
async def a_pooler(url: str, next_free: int = -1, *, prepares: bool = False, size: int = 9) -> AsyncIterator[str]:
    """The URL of a pooler in transaction mode before the database at `url`."""
    parts = urlsplit(url)
    pooler = Pooler(parts.hostname or "", parts.port or 0, next_free, prepares=prepares, size=size)
    async with listening(pooler.serve) as port:
        try:
            yield parts._replace(netloc=f"{parts.username}:{parts.password}@127.0.0.1:{port}").geturl()
        finally:
            pooler.close()


@pytest.mark.parametrize("prepares", [False, True], ids=["without prepared statements", "with prepared statements"])
@pytest.mark.parametrize("next_free", [-1, 0], ids=["the last one again", "each in turn"])
@pytest.mark.parametrize("size", [2, 3])
def test_behind_a_transaction_pooler_the_worker_refuses_to_start_and_says_so(
    database_url: str, next_free: int, prepares: bool, size: int
) -> None:
    async def main() -> None:
        async with a_pooler(database_url, next_free, prepares=prepares, size=size) as url:
            with pytest.raises(
                ConfigurationError, match=r"DATABASE_URL leads through a pooler in transaction mode.*session mode"
            ):
                await refuse_transaction_pooler(url)

    asyncio.run(main())


def test_a_transaction_pooler_with_one_connection_is_refused_too(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """There a session waits for the other's transaction, which looks like a server that doesn't answer."""
    monkeypatch.setattr("consumer.postgres.database.CONNECT_TIMEOUT_SECONDS", 0.5)

    async def main() -> None:
        async with a_pooler(database_url, prepares=True, size=1) as url:
            with pytest.raises(ConfigurationError, match="pooler in transaction mode"):
                await refuse_transaction_pooler(url)

    asyncio.run(main())


def test_a_pooler_that_takes_no_startup_parameters_is_refused_with_the_same_words() -> None:
    """PgBouncer does so for the timeouts that every session of ours must have."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (await _startup(reader))[4:8] == (80877103).to_bytes(4, "big"):
            writer.write(b"N")
            await _startup(reader)
        text = b"SFATAL\0VFATAL\0C08P01\0Munsupported startup parameter: lock_timeout\0\0"
        writer.write(b"E" + (len(text) + 4).to_bytes(4, "big") + text)
        await writer.drain()
        writer.close()

    async def main() -> None:
        async with listening(refuse) as port:
            with pytest.raises(ConfigurationError, match="pooler in transaction mode"):
                await refuse_transaction_pooler(f"postgresql://u:{SECRET}@127.0.0.1:{port}/x")

    asyncio.run(main())


def test_a_direct_connection_is_a_real_session(database_url: str) -> None:
    asyncio.run(refuse_transaction_pooler(database_url))


def test_a_server_that_is_away_is_no_reason_to_give_up() -> None:
    """The worker may be started before its database: it waits, and says for what."""
    with pytest.raises(DatabaseUnavailable, match="PostgreSQL at DATABASE_URL is not available"):
        asyncio.run(refuse_transaction_pooler(f"postgresql://u:{SECRET}@127.0.0.1:{free_port()}/x"))


def ask(url: str, question: str = "SELECT current_setting('lock_timeout')") -> Any:
    async def main() -> Any:
        database = Database(url, lease_seconds=7)
        try:
            async with database.transaction() as transaction:
                return (await transaction.exec_driver_sql(question)).scalar_one()
        finally:
            await database.close()

    return asyncio.run(main())


@pytest.mark.parametrize(
    "parameters",
    [
        "",
        "?sslmode=disable",
        "?sslmode=prefer&target_session_attrs=read-write",
        "?ssl=prefer",
        "?connect_timeout=3&application_name=theirs",
        "?connect_timeout=0",
        "?channel_binding=prefer&gssencmode=disable&keepalives=1&keepalives_idle=30&tcp_user_timeout=1000",
        "?options=-c%20statement_timeout%3D60000",
    ],
)
@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+asyncpg"])
def test_each_form_and_each_parameter_of_libpq_leads_to_the_database(database_url: str, scheme: str, parameters: str) -> None:
    assert ask(database_url.replace("postgresql", scheme, 1) + parameters) == "7s"


def test_a_socket_directory_leads_to_the_database(postgres: PostgresServer, database: str) -> None:
    assert ask(postgres.socket_url(database)) == "7s"
    assert ask(postgres.socket_url(database), "SELECT inet_client_addr() IS NULL") is True


def test_a_password_with_characters_of_an_address_in_it_is_taken_as_it_is(postgres: PostgresServer, database: str) -> None:
    password = "p@ss/w:ö%rd?#"
    postgres.run_sql(f"CREATE ROLE odd LOGIN PASSWORD '{password}'")
    try:
        url = f"postgresql://odd:{quote(password, safe='')}@127.0.0.1:{postgres.port}/{database}"
        assert ask(url, "SELECT current_user::text") == "odd"
    finally:
        postgres.run_sql("DROP ROLE odd")


@pytest.mark.parametrize("parameters", ["?nonsense=1", "?prepared_statement_cache_size=0", "?lc_messages=nowhere"])
def test_a_parameter_that_the_server_does_not_know_is_a_mistake_in_the_setting(database_url: str, parameters: str) -> None:
    with pytest.raises(ConfigurationError, match="DATABASE_URL: the server does not know a parameter"):
        ask(database_url + parameters)


def test_a_server_without_tls_is_told_where_the_address_asks_for_it(database_url: str) -> None:
    with pytest.raises(DatabaseUnavailable, match="does not speak TLS, which its sslmode asks for"):
        ask(database_url + "?sslmode=require")


@pytest.mark.guarantee("G6")
def test_every_session_gives_its_locks_back_within_the_lease(database_url: str) -> None:
    assert ask(database_url, "SELECT current_setting('idle_in_transaction_session_timeout')") == "7s"


@pytest.mark.guarantee("G9")
@pytest.mark.parametrize(
    "url",
    [
        f"mysql://u:{SECRET}@127.0.0.1/x",
        f"u:{SECRET}@127.0.0.1/x",
        f"postgresql://u:{SECRET}@127.0.0.1:port/x",
        f"postgresql://u:{SECRET}@[::1/x",
        f"postgresql://u:{SECRET}@127.0.0.1:1/x?sslmode=sometimes",
        f"postgresql://u:{SECRET}@127.0.0.1:1/x?sslmode=verify-full&sslrootcert=/nowhere/{SECRET}.pem",
        f"postgresql://u:{SECRET}@127.0.0.1:1/x?connect_timeout={SECRET}",
        f"postgresql://u:{SECRET}@127.0.0.1:1/x?{SECRET}",
        f"postgresql://u:{SECRET}@127.0.0.1:99999/x",
        f"postgresql://u:{SECRET}@127.0.0.1:1/x?options={SECRET}",
        f"postgresql://u:{SECRET}@127.0.0.1:1,127.0.0.1/x",
    ],
)
def test_a_wrong_address_is_told_by_its_variable_and_never_by_its_password(url: str) -> None:
    with pytest.raises(FullPassError) as caught:
        ask(url)
    assert "DATABASE_URL" in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.guarantee("G9")
def test_a_wrong_password_and_a_missing_database_are_told_without_the_password(postgres: PostgresServer, database: str) -> None:
    for place in (f"postgres:{SECRET}@127.0.0.1:{postgres.port}/{database}", f"nobody:{SECRET}@127.0.0.1:{postgres.port}/none"):
        with pytest.raises(DatabaseUnavailable, match="SQLSTATE 28P01") as caught:
            ask(f"postgresql://{place}")
        assert SECRET not in str(caught.value)
    with pytest.raises(DatabaseUnavailable, match="SQLSTATE 3D000"):
        ask(postgres.url("nowhere"))


def test_a_session_that_the_server_ends_is_an_outage_and_the_next_one_is_new(database_url: str) -> None:
    async def main() -> None:
        database = Database(database_url, connections=1)
        try:
            with pytest.raises(DatabaseUnavailable):
                async with database.transaction() as transaction:
                    await transaction.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")
            await check(database)
        finally:
            await database.close()

    asyncio.run(main())


def test_what_only_libpq_knows_is_not_sent_to_the_server() -> None:
    dsn, timeout = parse_url("postgres://u@h/x?keepalives=1&application_name=a&connect_timeout=3")
    assert (dsn, timeout) == ("postgresql://u@h/x?application_name=a", 3.0)
