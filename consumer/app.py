"""The composition root: builds the parts of a worker, serves HTTP, supervises, and shuts down in order."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial

from consumer.claude.gate import Claude
from consumer.errors import ConfigurationError
from consumer.executor import Executor
from consumer.exports.store import ExportStore
from consumer.full_pass.run import Parts, limits_of, traced_full_pass
from consumer.http import serving_http
from consumer.kafka.alerts import Alerts
from consumer.kafka.intake import Intake
from consumer.kafka.relay import Relay
from consumer.logs import get_log
from consumer.postgres.answers import Answers
from consumer.postgres.chunks import Chunks
from consumer.postgres.database import GOODBYE_SECONDS, Database, refuse_transaction_pooler
from consumer.postgres.outbox import Outbox
from consumer.postgres.profiles import Profiles
from consumer.postgres.retention import Retention
from consumer.postgres.runs import Ledger
from consumer.postgres.spend import Spend
from consumer.settings import Settings, required
from consumer.supervision import Run, Worker, pause, supervise, watch_database, watch_kafka

__all__ = ["PARTS", "Worker", "run_worker", "spare_the_collector", "supervise"]

PARTS = ("intake", "executor", "relay", "alerts")
_log = get_log("app")


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
        stack.push_async_callback(_close_in_time, database)
        build = _builders(worker, parts)
        spare_the_collector()
        await stack.enter_async_context(serving_http(worker))
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


async def _close_in_time(database: Database) -> None:
    """Say goodbye to PostgreSQL, if it listens."""
    with suppress(TimeoutError):
        async with asyncio.timeout(GOODBYE_SECONDS * 2):
            await database.close()


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
    tasks.create_task(watch_database(worker))
    if parts.keys() - {"executor"}:
        worker.health.expect("kafka")
        tasks.create_task(watch_kafka(worker))
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


async def _require_real_sessions(worker: Worker, stopping: asyncio.Event) -> None:
    del stopping
    await refuse_transaction_pooler(worker.database.url)


async def _keep_retention(worker: Worker, stopping: asyncio.Event) -> None:
    """Remove what has expired, now and every hour or more often; several workers at once do no harm."""
    retention = Retention(worker.database, worker.settings.retention_days)
    while not stopping.is_set():
        answers, events = await retention.expire()
        worker.health.well("retention")
        if answers or events:
            _log.info("expired", recorded_answers=answers, outbox_rows=events)
        await pause(retention.period_seconds, stopping)


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
