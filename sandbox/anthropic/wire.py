"""Sends replies, and breaks them on the wire where a script says so."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from aiohttp import web

from sandbox.anthropic.calls import Reply

_HTML = b"<!DOCTYPE html><html><head><title>Please wait</title></head><body><h1>One moment, please</h1></body></html>"
_GARBAGE = b'{"status": "ok", "items": [1, 2, 3]}'
_WINDOW = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Limits:
    """What the rate-limit headers promise for a minute. They are told, not held: refusals are scripted."""

    requests: int = 4_000
    input_tokens: int = 4_000_000
    output_tokens: int = 800_000


@dataclass(slots=True)
class Allowance:
    """What is left of the limits in this minute."""

    limits: Limits
    now: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))
    window_ends: datetime | None = None
    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def headers_after(self, reply: Reply) -> dict[str, str]:
        """Count a reply and give the `anthropic-ratelimit-*` headers that go with it."""
        now = self.now()
        if self.window_ends is None or now >= self.window_ends:
            self.window_ends = now + _WINDOW
            self.requests = self.input_tokens = self.output_tokens = 0
        self.requests += 1
        self.input_tokens += reply.input_tokens
        self.output_tokens += reply.output_tokens
        reset = self.window_ends.replace(microsecond=0).isoformat().replace("+00:00", "Z")
        limits = self.limits
        rows = {
            "requests": (limits.requests, self.requests),
            "input-tokens": (limits.input_tokens, self.input_tokens),
            "output-tokens": (limits.output_tokens, self.output_tokens),
            "tokens": (limits.input_tokens + limits.output_tokens, self.input_tokens + self.output_tokens),
        }
        headers = {}
        for name, (limit, used) in rows.items():
            headers[f"anthropic-ratelimit-{name}-limit"] = str(limit)
            headers[f"anthropic-ratelimit-{name}-remaining"] = str(max(0, limit - used))
            headers[f"anthropic-ratelimit-{name}-reset"] = reset
        return headers


async def send(request: web.Request, reply: Reply, headers: dict[str, str]) -> tuple[web.StreamResponse, bool]:
    """Send a reply; the second value says whether all of it went out to a client that was still there."""
    response: web.StreamResponse
    if reply.pieces is None:
        response = web.Response(body=reply.body, status=reply.status, headers=headers, content_type=reply.content_type)
        await response.prepare(request)
    else:
        response = web.StreamResponse(status=reply.status, headers={**headers, "Content-Type": reply.content_type})
        await response.prepare(request)
        for piece in reply.pieces:
            await response.write(piece)
    await response.write_eof()
    return response, request.transport is not None and not request.transport.is_closing()


async def reset(request: web.Request) -> web.StreamResponse:
    """End the connection with a TCP reset, before any byte of an answer."""
    if (transport := request.transport) is not None:
        connection: socket.socket = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    return await hang()


async def hang() -> web.StreamResponse:
    """Never answer; ends by being cancelled, when the client goes or the server stops."""
    await asyncio.Event().wait()
    raise AssertionError("nobody sets this event")


async def send_truncated(request: web.Request, reply: Reply, headers: dict[str, str]) -> web.StreamResponse:
    """Promise the whole body, send half of it and close; of a stream, send half of its events and close."""
    body = reply.body if reply.pieces is None else b"".join(reply.pieces)
    response = web.StreamResponse(status=reply.status, headers={**headers, "Content-Type": reply.content_type})
    if reply.pieces is None:
        response.content_length = len(body)
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    if request.transport is not None:
        request.transport.close()
    return await hang()


def cut_json(reply: Reply) -> Reply:
    """Half of the JSON, as if it were all: Content-Length keeps its promise."""
    body = reply.body if reply.pieces is None else b"".join(reply.pieces)
    return Reply(body[: len(body) // 2], reply.content_type, input_tokens=reply.input_tokens, output_tokens=reply.output_tokens)


def html() -> Reply:
    """What a proxy in between says with status 200."""
    return Reply(_HTML, "text/html")


def garbage() -> Reply:
    """JSON with status 200 that is no message."""
    return Reply(_GARBAGE)
