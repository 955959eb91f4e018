"""What a worker's parts share, and who starts them again; what readiness knows of PostgreSQL and Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from consumer.claude.gate import Claude
from consumer.errors import ConfigurationError, FullPassError
from consumer.health import Health
from consumer.kafka.broker import BrokerProbe
from consumer.logs import describe, get_log
from consumer.metrics import Metrics
from consumer.postgres.database import Database, DatabaseUnavailable, why_read_only
from consumer.postgres.migrating import missing_migration
from consumer.settings import Settings
from consumer.traces import Traces

FIRST_RESTART_SECONDS = 0.2
LONGEST_RESTART_SECONDS = 1.0
# Together less than the two seconds within which readiness turns.
WATCH_SECONDS = 0.4
ANSWER_SECONDS = 1.2
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
            await pause(delay, stopping)
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


async def pause(seconds: float, event: asyncio.Event) -> None:
    """Wait so long, or until the event."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return


async def watch_database(worker: Worker) -> None:
    """Tell readiness whether PostgreSQL answers, can be written to, and has the tables.

    It is asked over a connection of its own: a full pool is no outage.
    """
    watching = Database(worker.database.url, lease_seconds=10, connections=1)
    try:
        while not worker.leaving.is_set():
            async with asyncio.TaskGroup() as asking:
                question = asking.create_task(_why_not(watching))
                await asyncio.wait({question}, timeout=ANSWER_SECONDS)
                # Before the connection that says nothing is closed, which takes a while.
                _tell(worker.health, "database", question.result() if question.done() else _NO_ANSWER)
                question.cancel()
            await pause(WATCH_SECONDS, worker.leaving)
    finally:
        await watching.close()


async def _why_not(database: Database) -> str | None:
    try:
        return await why_read_only(database) or await missing_migration(database)
    except DatabaseUnavailable as error:
        return str(error)


async def watch_kafka(worker: Worker) -> None:
    """Tell readiness whether a broker answers and has the topics."""
    async with BrokerProbe(worker.settings) as probe:
        while not worker.leaving.is_set():
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    reason = await probe.check()
            except TimeoutError:
                reason = "no Kafka broker answers at KAFKA_BOOTSTRAP_SERVERS"
            _tell(worker.health, "kafka", reason)
            await pause(WATCH_SECONDS, worker.leaving)


def _tell(health: Health, part: str, reason: str | None) -> None:
    if reason is None:
        health.well(part)
    else:
        health.unwell(part, reason)


_NO_ANSWER = "PostgreSQL at DATABASE_URL does not answer"
