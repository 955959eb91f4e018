"""The composition root: readiness, HTTP, and the order in which a worker stops."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from consumer.app import PARTS, run_worker
from consumer.commands.worker import chosen_parts
from consumer.errors import ConfigurationError
from consumer.postgres.database import Database
from consumer.postgres.migrating import upgrade
from consumer.settings import Settings
from sandbox.postgres import PostgresServer
from sandbox.server import free_port
from tests.integration.test_database_url import a_pooler

NOWHERE = "postgresql://u:s3cr3t@127.0.0.1:1/x"


# As it comes, structlog would draw every traceback with its variables, which takes seconds.
pytestmark = pytest.mark.usefixtures("logged")


def settings_for(**named: Any) -> Settings:
    """Settings of a worker with an executor, but for the database."""
    variables = {"ANTHROPIC_API_KEY": "sk-ant-test", "EXPORT_STORE_URL": "file:///tmp", "DATABASE_URL": NOWHERE}
    return Settings(**{"http_port": free_port(), "lease_seconds": 2, "shutdown_seconds": 5, **variables, **named})


class Running:
    """A worker in this process, and what its HTTP says."""

    def __init__(self, settings: Settings, task: asyncio.Task[None], http: aiohttp.ClientSession) -> None:
        self.task = task
        self._http = http
        self._url = f"http://127.0.0.1:{settings.http_port}"

    async def get(self, path: str) -> tuple[int, str]:
        """Status and body."""
        async with self._http.get(self._url + path) as answer:
            return answer.status, await answer.text()

    async def ready(self) -> tuple[bool, dict[str, str]]:
        """What `/health/ready` says, which says it twice."""
        async with self._http.get(f"{self._url}/health/ready") as answer:
            said = await answer.json()
            assert said["ready"] == (answer.status == 200) == (not said["reasons"])
            return said["ready"], said["reasons"]

    async def until(self, condition: Callable[[], Awaitable[bool]], seconds: float = 10) -> float:
        """Wait with a deadline; the seconds that it took."""
        began = asyncio.get_running_loop().time()
        async with asyncio.timeout(seconds):
            while not await condition():
                assert not self.task.done()
                await asyncio.sleep(0.02)
        return asyncio.get_running_loop().time() - began

    async def until_ready(self, seconds: float = 10) -> float:
        """Wait until it is ready; the seconds that it took."""

        async def is_ready() -> bool:
            return (await self.ready())[0]

        return await self.until(is_ready, seconds)

    async def until_it_says(self, words: str, seconds: float = 10) -> float:
        """Wait until a reason says these words; the seconds that it took."""

        async def says() -> bool:
            return words in str((await self.ready())[1])

        return await self.until(says, seconds)

    async def listens(self) -> bool:
        """Whether HTTP answers yet."""
        try:
            await self.get("/health/live")
        except aiohttp.ClientConnectionError:
            return False
        return True

    async def stop(self) -> None:
        """SIGTERM, and the worker's end."""
        os.kill(os.getpid(), signal.SIGTERM)
        await self.task


@asynccontextmanager
async def running(settings: Settings, *parts: str) -> AsyncIterator[Running]:
    """A worker for the length of the block."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as http:
        task = asyncio.ensure_future(run_worker(settings, frozenset(parts or ("executor",))))
        worker = Running(settings, task, http)
        try:
            await worker.until(worker.listens)
            yield worker
            if not task.done():
                await worker.stop()
        finally:
            task.cancel()
            await asyncio.wait({task})


async def migrated(url: str) -> None:
    database = Database(url)
    await upgrade(database)
    await database.close()


# -- readiness and HTTP -------------------------------------------------------------------------------------------------


def test_readiness_follows_postgresql_within_two_seconds(own_postgres: PostgresServer) -> None:
    async def main() -> None:
        await migrated(own_postgres.url())
        async with running(settings_for(DATABASE_URL=own_postgres.url())) as worker:
            await worker.until_ready()
            await asyncio.to_thread(own_postgres.kill)
            assert await worker.until_it_says("DATABASE_URL") < 2
            assert (await worker.get("/health/live"))[0] == 200
            assert (await worker.get("/metrics"))[0] == 200
            await asyncio.to_thread(own_postgres.start)
            assert await worker.until_ready() < 2.5

    asyncio.run(main())


def test_a_postgresql_that_hangs_makes_the_worker_not_ready_and_does_not_hold_up_http(own_postgres: PostgresServer) -> None:
    """A failover leaves connections open on which nobody answers."""

    async def main() -> None:
        await migrated(own_postgres.url())
        async with running(settings_for(DATABASE_URL=own_postgres.url())) as worker:
            await worker.until_ready()
            await asyncio.to_thread(freeze_all, own_postgres, signal.SIGSTOP)
            try:
                assert await worker.until_it_says("PostgreSQL at DATABASE_URL does not answer") < 4
                assert (await worker.get("/metrics"))[0] == 200
            finally:
                await asyncio.to_thread(freeze_all, own_postgres, signal.SIGCONT)
            await worker.until_ready(15)

    asyncio.run(main())


def freeze_all(server: PostgresServer, number: signal.Signals) -> None:
    """Signal the server and each process that serves one of its connections."""
    first = psutil.Process(server.pid)
    for process in [first, *first.children(recursive=True)]:
        process.send_signal(number)


def test_a_database_without_tables_is_named_with_the_command_that_makes_them(database_url: str) -> None:
    async def main() -> None:
        async with running(settings_for(DATABASE_URL=database_url)) as worker:
            await worker.until_it_says("run 'full-pass db upgrade'")
            await migrated(database_url)
            await worker.until_ready()

    asyncio.run(main())


def test_the_endpoints_say_what_they_are_for(database_url: str) -> None:
    async def main() -> None:
        await migrated(database_url)
        async with running(settings_for(DATABASE_URL=database_url)) as worker:
            await worker.until_ready()
            assert await worker.get("/health/live") == (200, '{"live": true}')
            assert await worker.get("/health/ready") == (200, '{"ready": true, "reasons": {}}')
            status, metrics = await worker.get("/metrics")
            assert status == 200
            samples = [line for line in metrics.splitlines() if not line.startswith("#")]
            assert all(line.startswith("full_pass_") for line in samples)
            assert "full_pass_runs_due 0.0" in samples
            assert (await worker.get("/"))[0] == 404

    asyncio.run(main())


def test_the_gauges_are_those_of_the_ledger_now(database_url: str) -> None:
    async def main() -> None:
        await migrated(database_url)
        database = Database(database_url)
        async with running(settings_for(DATABASE_URL=database_url, KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1"), "relay") as worker:
            async with database.transaction() as transaction:
                await transaction.exec_driver_sql(
                    "INSERT INTO full_pass_runs"
                    " (run_id, user_id, idempotency_key, completed_at, event, traceparent, priority, due_at)"
                    " SELECT gen_random_uuid(), gen_random_uuid(), 'k', now(), '{}', '', priority, due_at FROM (VALUES"
                    "  (0, now() - interval '20 s'), (0, 'infinity'), (10, now() - interval '90 s'), (10, now())"
                    " ) AS due (priority, due_at)"
                )
            _, metrics = await worker.get("/metrics")
            assert "full_pass_runs_due 3.0" in metrics
            ages = dict(re.findall(r"^full_pass_runs_(\S*oldest_due)_age_seconds (\S+)$", metrics, re.MULTILINE))
            assert 90 <= float(ages["oldest_due"]) < 120
            assert 20 <= float(ages["live_oldest_due"]) < 50
        await database.close()

    asyncio.run(main())


# -- start and stop -----------------------------------------------------------------------------------------------------


def test_sigterm_ends_an_idle_worker_at_once_and_leaves_no_session(database_url: str) -> None:
    async def main() -> None:
        await migrated(database_url)
        async with running(settings_for(DATABASE_URL=database_url, shutdown_seconds=60)) as worker:
            await worker.until_ready()
            async with asyncio.timeout(3):
                await worker.stop()
        database = Database(database_url)
        async with database.transaction() as transaction, asyncio.timeout(5):
            question = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            while (await transaction.exec_driver_sql(question)).scalar_one():
                await transaction.exec_driver_sql("SELECT pg_stat_clear_snapshot()")
                await asyncio.sleep(0.02)
        await database.close()

    asyncio.run(main())


def test_sigterm_ends_a_worker_whose_postgresql_is_away() -> None:
    async def main() -> None:
        async with running(settings_for(shutdown_seconds=60)) as worker:
            await worker.until_it_says("PostgreSQL at DATABASE_URL is not available")
            async with asyncio.timeout(3):
                await worker.stop()

    asyncio.run(main())


def test_a_port_that_is_taken_is_told_by_its_variable_and_exits_with_2(tmp_path: Path) -> None:
    async def main() -> tuple[int, str, str]:
        server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
        port = str(server.sockets[0].getsockname()[1])
        variables = {"DATABASE_URL": NOWHERE, "ANTHROPIC_API_KEY": "sk-ant-test", "EXPORT_STORE_URL": "file:///tmp"}
        async with server:
            done = await asyncio.to_thread(
                subprocess.run,
                [sys.executable, "-m", "consumer", "worker", "--only", "executor"],
                env={**os.environ, **variables, "FULL_PASS_HTTP_PORT": port},
                capture_output=True,
                text=True,
                timeout=60,
            )
        return done.returncode, done.stdout, done.stderr

    status, out, err = asyncio.run(main())
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert "FULL_PASS_HTTP_PORT: can't listen on 127.0.0.1:" in err
    assert "0 takes a free port" in err


def test_a_worker_behind_a_transaction_pooler_refuses_to_start(database_url: str) -> None:
    async def main() -> None:
        await migrated(database_url)
        async with a_pooler(database_url) as url:
            with pytest.raises(ConfigurationError, match="pooler in transaction mode"):
                await run_worker(settings_for(DATABASE_URL=url), frozenset({"executor"}))

    asyncio.run(main())


def test_a_mistake_that_shows_only_in_a_part_is_told_in_its_own_words(database_url: str) -> None:
    async def main() -> None:
        await migrated(database_url)
        kafka = {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_CAFILE": "/nowhere.pem"}
        with pytest.raises(ConfigurationError, match="KAFKA_SSL_CAFILE"):
            await run_worker(settings_for(DATABASE_URL=database_url, **kafka), frozenset({"intake", "relay"}))

    asyncio.run(main())


@pytest.mark.parametrize(
    ("parts", "missing", "variable"),
    [
        ("executor", "DATABASE_URL", "DATABASE_URL"),
        ("executor", "ANTHROPIC_API_KEY", "ANTHROPIC_API_KEY"),
        ("executor", "EXPORT_STORE_URL", "EXPORT_STORE_URL"),
        ("intake", "KAFKA_BOOTSTRAP_SERVERS", "KAFKA_BOOTSTRAP_SERVERS"),
        ("relay", "KAFKA_BOOTSTRAP_SERVERS", "KAFKA_BOOTSTRAP_SERVERS"),
        ("alerts", "alert_webhook_url", "FULL_PASS_ALERT_WEBHOOK_URL"),
    ],
)
def test_what_a_part_needs_is_asked_for_before_anything_starts(parts: str, missing: str, variable: str) -> None:
    settings = settings_for(**{"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", missing: None})
    with pytest.raises(ConfigurationError, match=f"^{variable} is not set"):
        asyncio.run(run_worker(settings, frozenset({parts})))


@pytest.mark.parametrize(
    ("only", "without", "webhook", "parts"),
    [
        (None, None, None, {"intake", "executor", "relay"}),
        (None, None, "https://hooks.example", set(PARTS)),
        ("relay", None, None, {"relay"}),
        ("alerts", None, None, {"alerts"}),
        (" intake , executor ", None, None, {"intake", "executor"}),
        (None, "executor,alerts", "https://hooks.example", {"intake", "relay"}),
    ],
)
def test_the_options_choose_the_parts(only: str | None, without: str | None, webhook: str | None, parts: set[str]) -> None:
    assert chosen_parts(settings_for(alert_webhook_url=webhook), only, without) == parts


@pytest.mark.parametrize(
    ("only", "without"),
    [
        ("relay", "intake"),
        ("nobody", None),
        (",", None),
        ("", None),
        (None, ""),
        (None, "nobody"),
        (None, "intake,executor,relay"),
    ],
)
def test_options_that_leave_nothing_or_name_nobody_are_refused(only: str | None, without: str | None) -> None:
    with pytest.raises(ConfigurationError, match="--"):
        chosen_parts(settings_for(), only, without)
