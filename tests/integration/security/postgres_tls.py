"""A PostgreSQL that demands TLS: the one of the wheel is built without, so TLS ends in a proxy that speaks its first words."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from sandbox.server import HOST
from tests.integration.security.conftest import Trust

_SSL_REQUEST = 80877103


@dataclass(frozen=True)
class Address:
    """Where the proxy listens, and for which database."""

    url: str

    def with_parameters(self, **parameters: object) -> str:
        """The URL with libpq's parameters, by their names; `host` is another name for 127.0.0.1."""
        host = str(parameters.pop("host", HOST))
        query = "&".join(f"{name}={quote(str(value))}" for name, value in parameters.items())
        return f"{self.url.replace(HOST, host)}?{query}"


class Server:
    """Serves one client after the other as `hostssl` lines of pg_hba.conf would have it, with `clientcert` or without."""

    def __init__(self, database_url: str, trust: Trust, client_certificate: bool) -> None:
        self._parts = urlsplit(database_url)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(trust.server.certificate, trust.server.key)
        self._context.load_verify_locations(trust.ours.certificate)
        self._context.verify_mode = ssl.CERT_OPTIONAL
        self._client_certificate = client_certificate

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client, to its end."""
        with suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readexactly(8)
            if int.from_bytes(head[4:], "big") != _SSL_REQUEST:
                writer.write(_fatal("no pg_hba.conf entry for this host, no encryption"))
            else:
                writer.write(b"S")
                await writer.start_tls(self._context)
                if self._client_certificate and not writer.get_extra_info("peercert"):
                    await reader.readexactly(8)
                    writer.write(_fatal("connection requires a valid client certificate"))
                else:
                    await self._pass_on(reader, writer)
            await writer.drain()
        writer.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, here = await asyncio.open_connection(self._parts.hostname, self._parts.port)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(_copy(reader, here))
                both.create_task(_copy(there, writer))
        except* OSError:
            pass
        finally:
            here.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(65_536):
        writer.write(piece)
        await writer.drain()
    writer.close()


def _fatal(message: str) -> bytes:
    text = f"SFATAL\0VFATAL\0C28000\0M{message}\0\0".encode()
    return b"E" + (len(text) + 4).to_bytes(4, "big") + text


@asynccontextmanager
async def demanding_tls(database_url: str, trust: Trust, *, client_certificate: bool = False) -> AsyncIterator[Address]:
    """The database of that URL behind TLS, for the length of the block."""
    server = await asyncio.start_server(Server(database_url, trust, client_certificate).serve, HOST, 0)
    parts = urlsplit(database_url)
    port = server.sockets[0].getsockname()[1]
    async with server:
        yield Address(f"postgresql://{parts.username}:{parts.password}@{HOST}:{port}{parts.path}")
