"""A pooler in transaction mode, as hosted databases put it in front: a server connection is a client's for a transaction."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_ANSWERED_BY_CLIENT = {3, 5, 10, 11}  # kinds of authentication requests
_SSL_REQUEST = 80877103
Server = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class TransactionPooler:
    """Speaks just enough of PostgreSQL's protocol: it looks at the type of a message, and at the state after a query.

    Who logs in does it on a new server connection, of which the first `size` are kept. The one that was used last is handed out
    next (as pgbouncer does), or, if `fair`, the one that has rested longest. If `strict`, startup parameters that it can't keep
    for a client are refused (as pgbouncer does unless told otherwise).
    """

    def __init__(self, port: int, size: int, *, fair: bool, strict: bool) -> None:
        self._server_port = port
        self._size = size
        self._strict = strict
        self._free: asyncio.Queue[Server] = asyncio.Queue() if fair else asyncio.LifoQueue()
        self._open: list[Server] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    @asynccontextmanager
    async def before(cls, port: int, size: int, *, fair: bool = False, strict: bool = False) -> AsyncIterator[int]:
        """The port of a pooler before the PostgreSQL at that port of 127.0.0.1."""
        pooler = cls(port, size, fair=fair, strict=strict)
        listening = await asyncio.start_server(pooler._serve, "127.0.0.1", 0)
        try:
            yield listening.sockets[0].getsockname()[1]
        finally:
            listening.close()
            for task in pooler._tasks:
                task.cancel()
            await asyncio.gather(*pooler._tasks, return_exceptions=True)
            for _, writer in pooler._open:
                writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if await self._log_in(reader, writer):
                await self._pass_on(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def _log_in(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        startup = await _packet(reader)
        while struct.unpack(">i", startup[4:8])[0] == _SSL_REQUEST:
            writer.write(b"N")
            startup = await _packet(reader)
        if self._strict and b"idle_in_transaction_session_timeout" in startup:
            fields = b"SFATAL\0VFATAL\0C08P01\0Munsupported startup parameter\0\0"
            writer.write(b"E" + struct.pack(">i", len(fields) + 4) + fields)
            await writer.drain()
            return False
        server = await asyncio.open_connection("127.0.0.1", self._server_port)
        self._open.append(server)
        server[1].write(startup)
        while True:
            message = await _message(server[0])
            writer.write(message)
            if message[:1] == b"R" and struct.unpack(">i", message[5:9])[0] in _ANSWERED_BY_CLIENT:
                server[1].write(await _message(reader))
            if message[:1] == b"Z":
                break
        if len(self._open) <= self._size:
            self._free.put_nowait(server)
        return True

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Each message goes to the server connection that the client has, or gets for this transaction."""
        held: list[Server] = []

        async def answer(server: Server) -> None:
            while True:
                message = await _message(server[0])
                idle = message[:1] == b"Z" and message[5:6] == b"I"
                if idle:
                    held.clear()
                    self._free.put_nowait(server)
                writer.write(message)
                if idle:
                    return

        async with asyncio.TaskGroup() as answers:
            while (message := await _message(reader))[:1] != b"X":
                if not held:
                    held.append(await self._free.get())
                    answers.create_task(answer(held[0]))
                held[0][1].write(message)


async def _packet(reader: asyncio.StreamReader) -> bytes:
    length = await reader.readexactly(4)
    return length + await reader.readexactly(struct.unpack(">i", length)[0] - 4)


async def _message(reader: asyncio.StreamReader) -> bytes:
    return await reader.readexactly(1) + await _packet(reader)
