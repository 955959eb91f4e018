"""HTTP of a worker: `/health/live`, `/health/ready` and `/metrics`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from aiohttp import web

from consumer.errors import ConfigurationError
from consumer.logs import get_log
from consumer.postgres.database import DatabaseUnavailable
from consumer.postgres.outbox import Outbox
from consumer.postgres.overview import Overview
from consumer.supervision import Worker

ANSWER_SECONDS = 1.5
_log = get_log("app")


@asynccontextmanager
async def serving_http(worker: Worker) -> AsyncIterator[None]:
    """`/health/live`, `/health/ready` and `/metrics`."""
    application = web.Application()
    application.add_routes(
        [
            web.get("/health/live", _live),
            web.get("/health/ready", partial(_ready, worker)),
            web.get("/metrics", partial(_metrics, worker, Overview(worker.database))),
        ]
    )
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    host, port = worker.settings.http_host, worker.settings.http_port
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        await runner.cleanup()
        raise ConfigurationError(
            f"FULL_PASS_HTTP_HOST, FULL_PASS_HTTP_PORT: can't listen on {host}:{port} ({error.strerror}); 0 takes a free port"
        ) from None
    _log.info("http_listening", host=host, port=runner.addresses[0][1])
    try:
        yield
    finally:
        await runner.cleanup()


async def _live(_request: web.Request) -> web.Response:
    return web.json_response({"live": True})


async def _ready(worker: Worker, _request: web.Request) -> web.Response:
    reasons = worker.reasons()
    return web.json_response({"ready": not reasons, "reasons": reasons}, status=200 if not reasons else 503)


async def _metrics(worker: Worker, overview: Overview, _request: web.Request) -> web.Response:
    """The gauges of the ledger are asked for when somebody looks; without PostgreSQL they keep their last value."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            backlog = await overview.backlog()
            waiting, oldest_seconds = await Outbox(worker.database).backlog()
    except (DatabaseUnavailable, TimeoutError):
        _log.warning("gauges_not_refreshed")
    else:
        worker.metrics.runs_due.set(backlog.due)
        worker.metrics.runs_running.set(backlog.running)
        worker.metrics.runs_oldest_due_seconds.set(backlog.oldest_due_seconds)
        worker.metrics.runs_live_oldest_due_seconds.set(backlog.live_oldest_due_seconds)
        worker.metrics.outbox_unpublished.set(waiting)
        worker.metrics.outbox_oldest_seconds.set(oldest_seconds)
    return web.Response(body=worker.metrics.exposition(), content_type="text/plain", charset="utf-8")
