"""The stand-in itself: serves the API and the control interface under `/_stand_in` from one port."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from sandbox.anthropic import wire
from sandbox.anthropic.answers import Kind
from sandbox.anthropic.batches import Batches
from sandbox.anthropic.calls import Call, Reply, json_reply
from sandbox.anthropic.endpoints import Endpoint, endpoints
from sandbox.anthropic.failures import ApiError
from sandbox.anthropic.intake import check_credentials, read_json
from sandbox.anthropic.journal import Entry, Journal
from sandbox.anthropic.messages import raise_scripted
from sandbox.anthropic.script import OF_A_REQUEST, Fault, Script

ORGANIZATION = "00000000-0000-4000-8000-00005a4db0c5"

_SLOW_KINDS = frozenset({Kind.FACTS, Kind.REDUCTION, Kind.MEMORY, Kind.SECTIONS, Kind.OTHER})
_SHUTDOWN_SECONDS = 0.2


class StandIn:
    """An Anthropic API on this machine, as an async context manager.

    `latency_seconds` is how long a message takes to its first byte; `batch_seconds` how long a batch takes to its end;
    `keep_requests` bounds the record (None: every request stays, with its body).
    """

    def __init__(
        self,
        *,
        latency_seconds: float = 0.0,
        batch_seconds: float = 0.2,
        keep_requests: int | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self._latency_seconds = latency_seconds
        self._address = (host, port)
        self._script = Script()
        self._journal = Journal(keep_requests)
        self._allowance = wire.Allowance(wire.Limits())
        self._batches = Batches(self._script, self._journal, batch_seconds)
        self._runner = web.AppRunner(
            self._application(), access_log=None, handler_cancellation=True, shutdown_timeout=_SHUTDOWN_SECONDS
        )
        self.url = ""

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        site = web.TCPSite(self._runner, *self._address, backlog=1024)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    async def script(self, rules: list[dict[str, Any]]) -> None:
        """Append rules (see `sandbox.anthropic.script`).

        Raises:
            ValueError: naming what is wrong with a rule; then none was added.
        """
        self._script.add(rules)

    async def clear(self) -> None:
        """Forget script and record."""
        self._script.clear()
        self._journal.clear()

    async def clear_script(self) -> None:
        """Forget the rules alone."""
        self._script.clear()

    def requests(self, kind: str | None = None) -> list[dict[str, Any]]:
        """The requests so far, in order, as `GET /_stand_in/requests` gives them."""
        return self._journal.to_json(kind)

    def summary(self) -> dict[str, Any]:
        """Counts by kind and outcome, and tokens."""
        return self._journal.summary()

    def _application(self) -> web.Application:
        application = web.Application()
        for endpoint in endpoints(self._batches):
            application.router.add_route(endpoint.method, endpoint.path, self._handler(endpoint))
        application.router.add_post("/_stand_in/script", self._post_script)
        application.router.add_delete("/_stand_in/script", self._delete_script)
        application.router.add_get("/_stand_in/requests", self._get_requests)
        application.router.add_delete("/_stand_in/requests", self._delete_requests)
        application.router.add_get("/_stand_in/summary", self._get_summary)
        application.router.add_route("*", "/{anything:.*}", self._handler(_NOWHERE))
        return application

    def _handler(self, endpoint: Endpoint) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            entry = self._journal.begin(request.method, request.path, request.headers)
            entry.request_id = f"req_01{secrets.token_hex(11)}"
            fault: Fault | None = None
            try:
                entry.body = await read_json(request, endpoint.most_bytes)
                call = Call(
                    entry.body,
                    dict(request.query),
                    dict(request.match_info),
                    f"{request.scheme}://{request.host}",
                    entry.request_id,
                )
                entry.kind = endpoint.kind(call)
                check_credentials(request)
                endpoint.check(call)
                fault = self._fault(endpoint, call, entry)
                await self._wait(entry.kind, fault)
                raise_scripted(fault)
                reply = await endpoint.answer(call, fault)
            except ApiError as error:
                refused = json_reply(error.body(entry.request_id))
                reply = Reply(refused.body, status=error.status)
            return await self._send(request, entry, reply, fault)

        return handle

    def _fault(self, endpoint: Endpoint, call: Call, entry: Entry) -> Fault | None:
        model = str(call.body.get("model", "")) if isinstance(call.body, dict) else ""
        fault = self._script.take(entry.kind, endpoint.text(call), model, OF_A_REQUEST) if self._script else None
        entry.fault = fault.kind if fault else None
        return fault

    async def _wait(self, kind: str, fault: Fault | None) -> None:
        seconds = (self._latency_seconds if kind in _SLOW_KINDS else 0.0) + (fault.seconds if fault else 0.0)
        if seconds > 0:
            await asyncio.sleep(seconds)

    async def _send(self, request: web.Request, entry: Entry, reply: Reply, fault: Fault | None) -> web.StreamResponse:
        kind = fault.kind if fault else None
        if kind == "reset":
            return await wire.reset(request)
        if kind == "hang":
            return await wire.hang()
        if fault is not None and kind == "truncated_body" and fault.cut == "json":
            reply = wire.cut_json(reply)
        elif kind in {"html", "garbage"}:
            reply = wire.html() if kind == "html" else wire.garbage()
        entry.status, entry.input_tokens, entry.output_tokens = reply.status, reply.input_tokens, reply.output_tokens
        entry.answered_at = datetime.now(UTC).isoformat()
        headers = {
            "request-id": entry.request_id,
            "anthropic-organization-id": ORGANIZATION,
            **self._allowance.headers_after(reply),
            **({name: str(value) for name, value in fault.headers.items()} if fault else {}),
        }
        if fault is not None and kind == "truncated_body" and fault.cut == "body":
            return await wire.send_truncated(request, reply, headers)
        response, arrived = await wire.send(request, reply, headers)
        entry.completed = arrived and kind not in {"truncated_body", "stream_error"}
        return response

    async def _post_script(self, request: web.Request) -> web.Response:
        try:
            added = self._script.add(await request.json())
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response({"added": added})

    async def _delete_script(self, _request: web.Request) -> web.Response:
        self._script.clear()
        return web.json_response({})

    async def _get_requests(self, request: web.Request) -> web.Response:
        after = request.query.get("after", "0")
        if not after.isdecimal():
            return web.json_response({"error": "after is the number of a request"}, status=400)
        with_body = request.query.get("body", "1") != "0"
        return web.json_response(self._journal.to_json(request.query.get("kind"), int(after), with_body))

    async def _delete_requests(self, _request: web.Request) -> web.Response:
        self._journal.clear()
        return web.json_response({})

    async def _get_summary(self, _request: web.Request) -> web.Response:
        return web.json_response(self._journal.summary())


def _refuse(call: Call) -> None:
    raise ApiError(404, f"Not Found: {call.path['anything']}")


async def _never(_call: Call, _fault: Fault | None) -> Reply:
    raise AssertionError("a path that doesn't exist is refused before it is answered")


_NOWHERE = Endpoint("*", "/", lambda _call: Kind.OTHER, _refuse, _never)
