"""A server that answers whatever bytes a test gives it, for what no well-behaved stand-in would say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


@asynccontextmanager
async def raw_server(reply: bytes, seconds_a_byte: float = 0.0) -> AsyncIterator[str]:
    """Says the same bytes to everybody and hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        lines = dict(line.split(": ", 1) for line in head.decode().lower().splitlines()[1:] if ": " in line)
        await reader.readexactly(int(lines["content-length"]))
        try:
            for at in range(0, len(reply), 1 if seconds_a_byte else len(reply)):
                writer.write(reply[at : at + 1] if seconds_a_byte else reply)
                await writer.drain()
                await asyncio.sleep(seconds_a_byte)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
