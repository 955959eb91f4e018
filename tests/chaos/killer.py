"""Stands between a worker and its servers, counts the steps that it sees, and kills the worker at one of them."""

from __future__ import annotations

import asyncio
import struct
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum

from tests.chaos.kafka_wire import Frames, correlation_of, request_of
from tests.chaos.postgres_wire import PostgresSession

HOST = "127.0.0.1"


class Moment(StrEnum):
    """When a worker dies: its message never reaches the server, or the server's answer never reaches it."""

    BEFORE = "before"
    AFTER = "after"


@dataclass(frozen=True)
class Point:
    """A moment in a worker's life: at its nth message of a step."""

    step: str
    moment: Moment
    nth: int = 1

    def __str__(self) -> str:
        return f"{self.moment} {self.step} {self.nth}"


@dataclass
class Killer:
    """Decides, for all connections of one worker. `kill` ends the worker at once; from then on no byte goes either way.

    `seen`: how often each step was met. `poll` counts twice over: a request when it is sent, and for `after` only the answer that
    holds `marker`, since most polls bring nothing.
    """

    point: Point | None
    kill: Callable[[], None]
    marker: bytes = b""
    seen: Counter[str] = field(default_factory=Counter)
    order: list[str] = field(default_factory=list)
    struck: asyncio.Event = field(default_factory=asyncio.Event)

    def meet(self, step: str) -> Moment | None:
        """Count a message of a step that is about to be forwarded; at the point itself, what is to happen."""
        self.seen[step] += 1
        self.order.append(step)
        if self.point is None or self.point.step != step or self.seen[step] != self.point.nth:
            return None
        if step == "poll" and self.point.moment is Moment.AFTER:
            return None  # `answered` decides
        if self.point.moment is Moment.BEFORE:
            self.strike()
        return self.point.moment

    def answered(self, step: str | None, answer: bytes) -> None:
        """Look at the answer to a poll: the point may be the one that brings the event."""
        if step == "poll" and self.point == Point("poll", Moment.AFTER) and self.marker in answer:
            self.strike()

    def strike(self) -> None:
        """The moment has come."""
        self.struck.set()
        self.kill()


class _Cut(Exception):
    """The worker is dead; nothing is passed on any more."""


@asynccontextmanager
async def before_postgres(port: int, killer: Killer) -> AsyncIterator[int]:
    """A way to a PostgreSQL, by the port that is given back."""

    async def pair(client: _Side, server: _Side) -> None:
        session, holding = PostgresSession(), asyncio.Event()

        async def out(piece: bytes) -> None:
            for message, step in session.sent(piece):
                if step is not None and killer.meet(step) is Moment.AFTER:
                    holding.set()
                await _pass_on(message, server, killer)

        async def back(piece: bytes) -> None:
            if holding.is_set():
                killer.strike()  # the server has answered the COMMIT: it has happened
            session.received(piece)
            await _pass_on(piece, client, killer)

        await _both(client.each(out), server.each(back))

    async with _listening(port, pair, killer) as own_port:
        yield own_port


@asynccontextmanager
async def before_kafka(port: int, killer: Killer) -> AsyncIterator[int]:
    """A way to a Kafka of one broker, by the port that is given back. Clients are told that port as the broker's."""
    own: list[int] = []

    async def pair(client: _Side, server: _Side) -> None:
        requests, answers = Frames(), Frames()
        asked: dict[int, str | None] = {}
        held: set[int] = set()

        async def out(piece: bytes) -> None:
            for frame in requests.feed(piece):
                correlation, asked_for = request_of(frame)
                asked[correlation] = asked_for
                if asked_for is not None and killer.meet(asked_for) is Moment.AFTER:
                    held.add(correlation)
                await _pass_on(frame, server, killer)

        async def back(piece: bytes) -> None:
            for frame in answers.feed(piece):
                correlation = correlation_of(frame)
                killer.answered(asked.pop(correlation, None), frame)
                if correlation in held:
                    killer.strike()
                await _pass_on(frame.replace(_address(port), _address(own[0])), client, killer)

        await _both(client.each(out), server.each(back))

    async with _listening(port, pair, killer) as own_port:
        own.append(own_port)
        yield own_port


def _address(port: int) -> bytes:
    """An address as Kafka's protocol writes it."""
    return HOST.encode() + struct.pack(">i", port)


@dataclass(frozen=True)
class _Side:
    """One end of a connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def each(self, take: Callable[[bytes], Awaitable[None]]) -> None:
        """Hand on what comes, until this end is closed; then the other is closed, too."""
        while piece := await self.reader.read(65_536):
            await take(piece)
        raise _Cut


async def _pass_on(message: bytes, side: _Side, killer: Killer) -> None:
    if killer.struck.is_set():
        raise _Cut
    side.writer.write(message)
    await side.writer.drain()


async def _both(first: Awaitable[None], second: Awaitable[None]) -> None:
    """Both directions, until one ends."""
    tasks = [asyncio.ensure_future(each) for each in (first, second)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if not isinstance(outcome, (_Cut, ConnectionError, asyncio.CancelledError, type(None))):
                raise outcome


@asynccontextmanager
async def _listening(port: int, pair: Callable[[_Side, _Side], Awaitable[None]], killer: Killer) -> AsyncIterator[int]:
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with AsyncExitStack() as sides:
            sides.callback(writer.transport.abort)
            with suppress(ConnectionError):
                server_reader, server_writer = await asyncio.open_connection(HOST, port)
                sides.callback(server_writer.transport.abort)
                if not killer.struck.is_set():
                    await pair(_Side(reader, writer), _Side(server_reader, server_writer))

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(serve(reader, writer))
        serving.add(task)
        task.add_done_callback(serving.discard)

    server = await asyncio.start_server(accept, HOST, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(serving):
            task.cancel()
        failures = [each for each in await asyncio.gather(*serving, return_exceptions=True) if isinstance(each, Exception)]
        if failures:
            raise failures[0]
