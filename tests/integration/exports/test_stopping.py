"""Reads that wait for a store when nobody wants them any more: a lost lease, a shutdown."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from consumer.exports.file import ExportFile
from consumer.exports.limits import ExportLimits
from consumer.exports.stopping import ReadStopped, Stop
from consumer.exports.store import ExportStore
from consumer.full_pass import reading
from consumer.full_pass.reading import read_export
from consumer.full_pass.spool import Spool
from consumer.metrics import Metrics
from consumer.postgres.runs import Claim
from tests.integration.executor_work import Work, accepted, until, with_executor
from tests.integration.exports.bucket_server import Bucket, served_bucket, variables_of
from tests.integration.postgres_world import World, in_world
from tests.unit.exports.examples import LIMITS

FULL_PASS = str(Path(sys.executable).with_name("full-pass"))
NOW = datetime(2026, 11, 24, tzinfo=UTC)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    with served_bucket("exports", "s3") as served:
        for name, value in variables_of(served).items():
            monkeypatch.setenv(name, value)
        served.objects["a.json"] = b"[" + b" " * 100_000 + b"]"
        yield served


def _stop_once_it_hangs(bucket: Bucket, stop: Stop) -> None:
    bucket.hanging.wait(10)
    stop.set()


def _reading_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "reading"]


def _require_no_thread() -> None:
    for thread in _reading_threads():
        thread.join(2)
    assert not _reading_threads()


@pytest.mark.parametrize("fault", ["silence", "hang"])
def test_a_cancelled_stage_does_not_wait_for_a_store_that_hangs(bucket: Bucket, fault: str) -> None:
    """It would take the store's timeouts, which are longer than a shutdown may be."""
    bucket.faults = [fault] * 10

    async def seconds_until_cancelled() -> float:
        with Spool() as spool:
            stage = asyncio.ensure_future(
                read_export("exports/a.json", NOW, ExportStore.from_url("s3://"), spool, LIMITS, Metrics())
            )
            await until(bucket.hanging.is_set)
            began = time.monotonic()
            stage.cancel()
            with pytest.raises(asyncio.CancelledError):
                await stage
            return time.monotonic() - began

    assert asyncio.run(seconds_until_cancelled()) < reading.LEAVE_BEHIND_SECONDS / 2
    _require_no_thread()


@pytest.mark.parametrize("fault", ["silence", "hang"])
def test_a_stop_from_another_thread_interrupts_every_wait_for_a_store(bucket: Bucket, fault: str) -> None:
    store, stop = ExportStore.from_url("s3://"), Stop()
    bucket.faults = [fault] * 10
    stopper = threading.Thread(target=_stop_once_it_hangs, args=(bucket, stop))
    stopper.start()
    with pytest.raises(ReadStopped):
        store.open("exports/a.json", stop)
    stopper.join()
    asked = len(bucket.requests)
    with pytest.raises(ReadStopped):
        store.open("exports/a.json", stop)
    assert len(bucket.requests) == asked, "what is stopped asks for nothing more"


def test_a_read_of_a_file_stops_at_its_next_block(tmp_path: Path) -> None:
    """Gigabytes without a conversation must not be read on by a thread that nobody waits for."""
    (tmp_path / "exports").mkdir()
    (tmp_path / "exports" / "a.json").write_bytes(b"0123456789")
    stop = Stop()
    with ExportStore.from_url(tmp_path.as_uri()).open("exports/a.json", stop) as file:
        assert file.read(3) == b"012"
        stop.set()
        with pytest.raises(ReadStopped):
            file.read(3)


class _HangingFile(ExportFile):
    """A file of a file system that doesn't answer, which nothing can interrupt."""

    def __init__(self) -> None:
        super().__init__(100, "etag")
        self.begun, self.released = threading.Event(), threading.Event()

    def read_range(self, start: int, size: int) -> bytes:
        self.begun.set()
        self.released.wait(30)
        return b'[{"messages": [{"role": "user", "content": "a"}]}]'.ljust(size)[:size]


class _HangingStore(ExportStore):
    def __init__(self, file: ExportFile) -> None:
        self.file = file

    def open(self, storage_path: str, stop: Stop | None = None) -> ExportFile:
        return self.file


def test_a_thread_that_hangs_in_a_file_system_is_left_behind_and_keeps_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "LEAVE_BEHIND_SECONDS", 0.1)
    file = _HangingFile()

    async def cancelled() -> None:
        with Spool() as spool:
            stage = asyncio.ensure_future(read_export("b/k", NOW, _HangingStore(file), spool, LIMITS, Metrics()))
            await until(file.begun.is_set)
            stage.cancel()
            with pytest.raises(asyncio.CancelledError):
                await stage

    began = time.monotonic()
    asyncio.run(cancelled())
    assert time.monotonic() - began < 5
    [thread] = _reading_threads()
    assert thread.daemon, "the end of the process would wait for any other"
    file.released.set()  # what it does now, without loop and spool, must be no surprise to anybody
    thread.join(10)
    assert not thread.is_alive()
    assert file.closed


def test_a_lost_lease_ends_a_run_that_waits_for_a_store(database_url: str, bucket: Bucket) -> None:
    bucket.faults = ["hang"] * 10
    limits = ExportLimits(1 << 40, 1 << 40, 1_000, 1_000)

    async def carry(work: Work, _claim: Claim) -> None:
        with Spool() as spool:
            await read_export("exports/a.json", NOW, ExportStore.from_url("s3://"), spool, limits, work.worker.metrics)

    async def test(work: Work) -> None:
        run_id = await accepted(work)
        await until(bucket.hanging.is_set)
        await work.world.sql(
            "UPDATE full_pass_runs SET attempt = attempt + 1, lease_until = now() + interval '1 h' WHERE run_id = :id", id=run_id
        )
        await until(lambda: work.sample("leases_lost_total") == 1, seconds=5)
        _require_no_thread()

    with_executor(database_url, carry, test)


def test_a_worker_that_waits_for_a_store_hands_its_run_back_in_time(database_url: str, bucket: Bucket, tmp_path: Path) -> None:
    bucket.faults = ["hang"] * 10
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "DATABASE_URL": database_url,
        "EXPORT_STORE_URL": "s3://",
        "ANTHROPIC_API_KEY": "sk-ant-test",
        "FULL_PASS_HTTP_PORT": "0",
        "FULL_PASS_SHUTDOWN_SECONDS": "2",
        "FULL_PASS_LOG_FORMAT": "json",
        **variables_of(bucket),
    }

    log = tmp_path / "log"

    async def test(world: World) -> None:
        run_id = (await world.accept(await world.user())).run_id
        with log.open("wb") as said:
            process = await asyncio.create_subprocess_exec(
                FULL_PASS, "worker", "--only", "executor", env=environment, stdout=said, stderr=said
            )
        try:
            await until(bucket.hanging.is_set, seconds=40)
            began = time.monotonic()
            process.terminate()
            async with asyncio.timeout(40):
                await process.wait()
            seconds = time.monotonic() - began
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode == 0, log.read_text()
        assert seconds < 5
        row = await world.run(run_id)
        assert (row["status"], row["stage"], row["failures"]) == ("pending", "reading", 0)
        assert "stopped_late" not in log.read_text()
        assert "Traceback" not in log.read_text()

    in_world(database_url, test)
