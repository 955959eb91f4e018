"""A proxy on the wire: it sees what a client sends, and can cut it off at a moment that a test names."""

from __future__ import annotations

import asyncio
import re
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

Forward = Callable[[bytes], bool]


class Proxy:
    """Passes bytes between clients and one server, until `forward` says no: then everybody is cut off for good.

    Kafka tells its clients where it listens; here they are told the proxy's port instead.
    """

    def __init__(self, host: str, port: int, forward: Forward) -> None:
        self._host, self._port, self._forward = host, port, forward
        self._connections: set[asyncio.StreamWriter] = set()
        self.cut = asyncio.Event()
        self.port = 0

    @classmethod
    @asynccontextmanager
    async def between(cls, host: str, port: int, forward: Forward) -> AsyncIterator[Proxy]:
        """A proxy to `host:port`; `forward` gets each piece that a client sends, before the server does."""
        proxy = cls(host, port, forward)
        server = await asyncio.start_server(proxy._serve, "127.0.0.1", 0)
        proxy.port = server.sockets[0].getsockname()[1]
        try:
            yield proxy
        finally:
            server.close()
            proxy.cut_off()
            await server.wait_closed()

    def cut_off(self) -> None:
        """End all connections, and take no more."""
        self.cut.set()
        for writer in self._connections:
            writer.transport.abort()

    def _address(self, port: int) -> bytes:
        """An address as Kafka's protocol writes it."""
        return self._host.encode() + struct.pack(">i", port)

    async def _serve(self, client_reader: asyncio.StreamReader, client_writer: asyncio.StreamWriter) -> None:
        if self.cut.is_set():
            client_writer.transport.abort()
            return
        server_reader, server_writer = await asyncio.open_connection(self._host, self._port)
        pair = {client_writer, server_writer}
        self._connections |= pair
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pass_on(client_reader, server_writer, self._forward))
                both.create_task(self._pass_on(server_reader, client_writer, lambda _piece: True))
        finally:
            self._connections -= pair
            for writer in pair:
                writer.transport.abort()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, forward: Forward) -> None:
        with suppress(ConnectionError):
            while not self.cut.is_set() and (piece := await reader.read(65_536)):
                if not forward(piece):
                    self.cut_off()
                    return
                writer.write(piece.replace(self._address(self._port), self._address(self.port)))
                await writer.drain()
        writer.transport.abort()


def is_kafka_request(api_key: int, piece: bytes) -> bool:
    """Whether a piece of a client's stream begins a request of this kind; the client calls itself `full-pass`."""
    return re.search(struct.pack(">h", api_key) + rb".{6}\x00\x09full-pass", piece, re.DOTALL) is not None
