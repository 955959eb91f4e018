"""A network between workers and one server, in a thread of its own: it can go silent, lose what is on its way, and be watched."""

from __future__ import annotations

import asyncio
import struct
import sys
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit, urlunsplit

Result = TypeVar("Result")

HOST = "127.0.0.1"
_PIECE_BYTES = 65_536


class Link:
    """One connection of a client's. Its methods are for `watch`, which runs where the bytes pass."""

    def __init__(self, open_now: bool) -> None:
        self.notes: set[str] = set()
        self._gate = asyncio.Event()
        self._loses_answer = False
        self.dead = False
        if open_now:
            self._gate.set()

    def hold(self) -> None:
        """Pass nothing on from here, this piece included; the sockets stay open."""
        self._gate.clear()

    def release(self) -> None:
        """Pass on what was held, and everything after it."""
        self._gate.set()

    def lose_the_answer(self) -> None:
        """Pass this piece on, but not what the server says to it: then the connection is gone for the client."""
        self._loses_answer = True


Watch = Callable[[Link, bytes], bytes | None]
"""Sees each piece that a client sends before the server does; returns what passes at once if not all of it."""


class Network:
    """Passes bytes between clients and a server on 127.0.0.1. Kafka's clients are told its port instead of the broker's."""

    def __init__(self, server_port: int, watch: Watch | None = None) -> None:
        self._server_port = server_port
        self.watch = watch
        self.port = 0
        self._links: dict[Link, tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = {}
        self._open = True
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = self._do(asyncio.start_server(self._serve, HOST, 0))
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def leading_to(self, url: str) -> str:
        """The address of the server by way of this network."""
        parts = urlsplit(url)
        return urlunsplit(parts._replace(netloc=f"{parts.netloc.rpartition(':')[0]}:{self.port}"))

    def hold(self) -> None:
        """Go silent: what is sent is neither passed on nor refused, on old connections and new ones."""
        self._do(self._set_open(False))

    def release(self) -> None:
        """Pass on what was held, and everything after it."""
        self._do(self._set_open(True))

    def forget(self) -> None:
        """Pass new connections' bytes, while those that there are stay open and silent for ever."""
        self._do(self._forget())

    def _do(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(20)

    async def _set_open(self, is_open: bool) -> None:
        self._open = is_open
        for link in self._links:
            link.release() if is_open and not link.dead else link.hold()

    async def _forget(self) -> None:
        for link in self._links:
            link.dead = True
            link.hold()
        self._open = True

    async def _end(self) -> None:
        for link, writers in self._links.items():
            link.release()
            for writer in writers:
                writer.transport.abort()
        serving = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*serving, return_exceptions=True)

    async def _serve(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        try:
            from_server, to_server = await asyncio.open_connection(HOST, self._server_port)
        except OSError:
            to_client.transport.abort()
            return
        link = Link(self._open)
        self._links[link] = to_client, to_server
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._requests(link, from_client, to_server, to_client))
                both.create_task(self._answers(link, from_server, to_client, to_server))
        finally:
            del self._links[link]
            to_client.transport.abort()
            to_server.transport.abort()

    async def _requests(
        self, link: Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, back: asyncio.StreamWriter
    ) -> None:
        with suppress(ConnectionError):
            while piece := await reader.read(_PIECE_BYTES):
                at_once = self.watch(link, piece) if self.watch is not None else None
                if at_once:
                    writer.write(at_once)
                    piece = piece[len(at_once) :]
                await link._gate.wait()
                writer.write(piece)
                await writer.drain()
        await link._gate.wait()
        writer.transport.abort()
        back.transport.abort()

    async def _answers(
        self, link: Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, back: asyncio.StreamWriter
    ) -> None:
        with suppress(ConnectionError):
            while piece := await reader.read(_PIECE_BYTES):
                await link._gate.wait()
                if link._loses_answer:
                    break
                writer.write(piece.replace(_kafka_address(self._server_port), _kafka_address(self.port)))
                await writer.drain()
        await link._gate.wait()
        writer.transport.abort()
        back.transport.abort()


def _kafka_address(port: int) -> bytes:
    """An address as Kafka's protocol writes it."""
    return HOST.encode() + struct.pack(">i", port)


def port_of(url: str) -> int:
    """The port of an address that names one."""
    port = urlsplit(url).port
    assert port is not None
    return port


def measured(words: str) -> None:
    """Tell a time that was measured; pytest shows it with `-rP` or `-s`."""
    sys.stdout.write(words + "\n")
