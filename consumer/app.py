"""The composition root: builds the parts of a worker, serves HTTP, supervises, and shuts down in order."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

from aiohttp import web

from consumer.claude.gate import Claude
from consumer.errors import ConfigurationError, FullPassError
from consumer.executor import Executor
from consumer.exports.store import ExportStore
from consumer.full_pass.run import Parts, limits_of, traced_full_pass
from consumer.health import Health
from consumer.kafka.alerts import Alerts
from consumer.kafka.broker import BrokerProbe
from consumer.kafka.intake import Intake
from consumer.kafka.relay import Relay
from consumer.logs import describe, get_log
from consumer.metrics import Metrics
from consumer.postgres.answers import Answers
from consumer.postgres.chunks import Chunks
from consumer.postgres.database import Database, DatabaseUnavailable, refuse_transaction_pooler
from consumer.postgres.migrating import missing_migration
from consumer.postgres.outbox import Outbox
from consumer.postgres.overview import Overview
from consumer.postgres.profiles import Profiles
from consumer.postgres.retention import Retention
from consumer.postgres.runs import Ledger
from consumer.postgres.spend import Spend
from consumer.settings import Settings, required
from consumer.traces import Traces

PARTS = ("intake", "executor", "relay", "alerts")
FIRST_RESTART_SECONDS = 0.2
LONGEST_RESTART_SECONDS = 1.0
WATCH_SECONDS = 0.5
RETENTION_SECONDS = 3600.0
ANSWER_SECONDS = 1.5
_log = get_log("app")

Run = Callable[[asyncio.Event], Awaitable[None]]


@dataclass
class Worker:
    """What the parts of one worker share. `stopping` ends intake and executor, `leaving` what still serves them."""

    settings: Settings
    database: Database
    health: Health = field(default_factory=Health)
    metrics: Metrics = field(default_factory=Metrics)
    traces: Traces = field(default_factory=Traces.from_environment)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    leaving: asyncio.Event = field(default_factory=asyncio.Event)
    claude: Claude | None = None

    def reasons(self) -> dict[str, str]:
        """Why the worker is not ready, part by part; empty when it is."""
        reasons = self.health.reasons()
        if self.claude is not None and self.claude.pace.reason is not None:
            reasons["model"] = self.claude.pace.reason
        return reasons


def spare_the_collector() -> None:
    """Let the collector of cycles run seldom, and never through what is imported: a topic that is drained makes few cycles, but
    so many objects that a fifth of intake's time went into looking for them."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


async def run_worker(settings: Settings, parts: frozenset[str]) -> None:
    """Run the named parts until SIGTERM or SIGINT, then finish or hand back within `SHUTDOWN_SECONDS`.

    Raises:
        ConfigurationError: when a setting that the parts need is missing or wrong.
    """
    database = Database(required(settings.database_url, "DATABASE_URL"), settings.lease_seconds, settings.run_concurrency + 8)
    worker = Worker(settings, database)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(database.close)
        build = _builders(worker, parts)
        spare_the_collector()
        await stack.enter_async_context(_serving_http(worker))
        try:
            async with _stopped_by_signals(worker), asyncio.TaskGroup() as tasks:
                await _run_parts(worker, tasks, {name: make(tasks) for name, make in build.items()})
        except BaseExceptionGroup as group:  # `except*` wraps what is raised before Python 3.11.4
            mistakes, _ = group.split(ConfigurationError)
            if mistakes is None:
                raise
            raise _first_of(mistakes) from None
        finally:
            if worker.claude is not None:
                await worker.claude.close()
            await asyncio.to_thread(worker.traces.close)
    _log.info("worker_stopped")


def _first_of(group: BaseExceptionGroup[ConfigurationError]) -> ConfigurationError:
    """The mistake itself, however deep it lies in groups of tasks."""
    error = group.exceptions[0]
    return _first_of(error) if isinstance(error, BaseExceptionGroup) else error


def _builders(worker: Worker, parts: frozenset[str]) -> dict[str, Callable[[asyncio.TaskGroup], Run]]:
    """How each part is made; settings that are missing show here, before anything is started."""
    settings, database, health, metrics = worker.settings, worker.database, worker.health, worker.metrics
    if parts - {"executor"}:
        required(settings.kafka_bootstrap_servers, "KAFKA_BOOTSTRAP_SERVERS")
    ledger = Ledger(database)
    builders: dict[str, Callable[[asyncio.TaskGroup], Run]] = {}
    if "intake" in parts:
        intake = Intake(settings, ledger, health, metrics)
        builders["intake"] = lambda _tasks: intake.run
    if "relay" in parts:
        relay = Relay(settings, Outbox(database), health, metrics)
        builders["relay"] = lambda _tasks: relay.run
    if "alerts" in parts:
        required(settings.alert_webhook_url, "FULL_PASS_ALERT_WEBHOOK_URL")
        alerts = Alerts(settings, health, metrics)
        builders["alerts"] = lambda _tasks: alerts.run
    if "executor" in parts:
        pass_parts = _pass_parts(worker, ledger)
        builders["executor"] = lambda tasks: (
            Executor(
                settings,
                ledger,
                pass_parts.profiles,
                pass_parts.claude,
                partial(traced_full_pass, parts=pass_parts),
                health=health,
                metrics=metrics,
                tasks=tasks,
            ).run
        )
    return builders


def _pass_parts(worker: Worker, ledger: Ledger) -> Parts:
    settings, database = worker.settings, worker.database
    worker.claude = Claude(settings, Answers(database), Spend(database), worker.metrics, worker.traces)
    return Parts(
        ledger=ledger,
        profiles=Profiles(database),
        chunks=Chunks(database),
        exports=ExportStore.from_url(required(settings.export_store_url, "EXPORT_STORE_URL")),
        claude=worker.claude,
        metrics=worker.metrics,
        traces=worker.traces,
        health=worker.health,
        limits=limits_of(settings),
        facts_tokens_per_call=settings.facts_tokens_per_call,
        coverage_floor=settings.coverage_floor,
        lease_seconds=settings.lease_seconds,
    )


async def _run_parts(worker: Worker, tasks: asyncio.TaskGroup, parts: dict[str, Run]) -> None:
    """Start the parts once sessions are known to be real; stop intake and executor first, then relay and alerts."""
    for part in ("database", *parts):
        worker.health.expect(part)
    tasks.create_task(_watch_database(worker))
    if parts.keys() - {"executor"}:
        worker.health.expect("kafka")
        tasks.create_task(_watch_kafka(worker))
    await supervise("database", partial(_require_real_sessions, worker), worker, worker.stopping)
    _log.info("worker_started", parts=sorted(parts))
    if "executor" in parts:
        tasks.create_task(supervise("retention", partial(_keep_retention, worker), worker, worker.leaving))
    async with asyncio.TaskGroup() as first:
        for name in parts.keys() & {"intake", "executor"}:
            first.create_task(supervise(name, parts[name], worker, worker.stopping, holding=name == "executor"))
        for name in parts.keys() & {"relay", "alerts"}:
            tasks.create_task(supervise(name, parts[name], worker, worker.leaving))
        first.create_task(worker.stopping.wait())
    worker.leaving.set()


async def supervise(part: str, run: Run, worker: Worker, stopping: asyncio.Event, *, holding: bool = False) -> None:
    """Run a part, and start it again from its durable position whenever it fails; readiness names the reason.

    A part that fails and is `holding` something is started once more when `stopping` is set meanwhile, to hand that back.

    Raises:
        ConfigurationError: waiting does not mend that.
    """
    delay = FIRST_RESTART_SECONDS
    last = False
    while not (last or (stopping.is_set() and not holding)):
        began = asyncio.get_running_loop().time()
        last = stopping.is_set()
        try:
            await run(stopping)
        except ConfigurationError:
            raise
        except Exception as error:  # noqa: BLE001 - the other place where a surprise is turned into something
            _settle_cancellations()
            if asyncio.get_running_loop().time() - began > LONGEST_RESTART_SECONDS * 10:
                delay = FIRST_RESTART_SECONDS
            reason = str(error) if isinstance(error, FullPassError) else describe(error)
            worker.health.unwell(part, reason)
            worker.metrics.part_restarts.labels(part).inc()
            _log.warning("part_failed", part=part, reason=reason, again_in_seconds=delay, exc_info=error)
            await _wait(stopping, delay)
            delay = min(delay * 2, LONGEST_RESTART_SECONDS)
        else:
            return


def _settle_cancellations() -> None:
    """An error has come out, so nobody cancels this task; yet it may count as cancelled, and then a timeout here would end it.

    On early versions of Python 3.11 a task group whose child fails while it waits for the others leaves that count behind.
    """
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        task.uncancel()


async def _require_real_sessions(worker: Worker, stopping: asyncio.Event) -> None:
    del stopping
    await refuse_transaction_pooler(worker.database.url)


async def _keep_retention(worker: Worker, stopping: asyncio.Event) -> None:
    """Remove what has expired, now and every hour; several workers at once do no harm."""
    retention = Retention(worker.database, worker.settings.retention_days)
    while not stopping.is_set():
        answers, events = await retention.expire()
        worker.health.well("retention")
        if answers or events:
            _log.info("expired", recorded_answers=answers, outbox_rows=events)
        await _wait(stopping, RETENTION_SECONDS)


async def _watch_database(worker: Worker) -> None:
    """Ask PostgreSQL for the schema's revision, over a connection of its own: a full pool is no outage."""
    watching = Database(worker.database.url, lease_seconds=10, connections=1)
    try:
        while not worker.leaving.is_set():
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    reason = await missing_migration(watching)
            except DatabaseUnavailable as error:
                reason = str(error)
            except TimeoutError:
                reason = "PostgreSQL at DATABASE_URL does not answer"
            _tell(worker.health, "database", reason)
            await _wait(worker.leaving, WATCH_SECONDS)
    finally:
        await watching.close()


async def _watch_kafka(worker: Worker) -> None:
    async with BrokerProbe(worker.settings) as probe:
        while not worker.leaving.is_set():
            _tell(worker.health, "kafka", await probe.check())
            await _wait(worker.leaving, WATCH_SECONDS)


def _tell(health: Health, part: str, reason: str | None) -> None:
    if reason is None:
        health.well(part)
    else:
        health.unwell(part, reason)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return


@asynccontextmanager
async def _stopped_by_signals(worker: Worker) -> AsyncIterator[None]:
    """The first signal stops in order, within `SHUTDOWN_SECONDS`; the second at once, which no run minds: leases expire."""
    loop = asyncio.get_running_loop()
    deadline = asyncio.timeout(None)

    def stop() -> None:
        if worker.stopping.is_set():
            _log.warning("stopped_at_once")
            os._exit(1)
        _log.info("stopping", within_seconds=worker.settings.shutdown_seconds)
        worker.stopping.set()
        deadline.reschedule(loop.time() + worker.settings.shutdown_seconds)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        async with deadline:
            yield
    except TimeoutError:
        _log.warning("stopped_late", hint="runs that were not handed back are taken over when their leases expire")
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


@asynccontextmanager
async def _serving_http(worker: Worker) -> AsyncIterator[None]:
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
        worker.metrics.outbox_unpublished.set(waiting)
        worker.metrics.outbox_oldest_seconds.set(oldest_seconds)
    return web.Response(body=worker.metrics.exposition(), content_type="text/plain", charset="utf-8")
