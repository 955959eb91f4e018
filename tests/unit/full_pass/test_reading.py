"""The stage that reads the export: counts, the thread, and its end."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog
from structlog.contextvars import bound_contextvars
from structlog.testing import capture_logs

from consumer.errors import FinalError
from consumer.exports.file import ExportFile
from consumer.exports.limits import ExportLimits
from consumer.exports.stopping import Stop
from consumer.exports.store import ExportStore
from consumer.full_pass.reading import ReadExport, read_export
from consumer.full_pass.spool import Spool
from consumer.metrics import Metrics
from consumer.postgres.chunks import Chunk
from schemas.events import ErrorCode
from tests.unit.exports.examples import LIMITS, MemoryFile, simple

COMPLETED_AT = datetime(2026, 11, 24, tzinfo=UTC)
ENDLESS = ExportLimits(1 << 41, 1 << 41, 10, 1 << 40)


class _MemoryStore(ExportStore):
    """A store with one object, in memory."""

    def __init__(self, file: ExportFile) -> None:
        self.file = file

    def open(self, storage_path: str, stop: Stop | None = None) -> ExportFile:
        return self.file


def _read(content: Any, metrics: Metrics | None = None) -> tuple[ReadExport, list[Chunk]]:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    store = _MemoryStore(MemoryFile(data))
    with Spool() as spool:
        read = asyncio.run(read_export("b/k", COMPLETED_AT, store, spool, LIMITS, metrics or Metrics()))
        assert store.file.closed
        return read, [chunk for batch in spool.batches(3) for chunk in batch]


def test_one_read_feeds_spool_and_block() -> None:
    long = simple(*["Sentence. " * 400] * 5)
    read, chunks = _read([simple("a", "b", "c", "d"), simple(), simple(" "), long])
    assert (read.conversations, read.messages, read.chunks, read.skipped) == (2, 9, len(chunks), 0)
    assert [chunk.conversation_id for chunk in chunks] == ["conv_0", *["conv_3"] * (len(chunks) - 1)]
    assert chunks[0].content == "# Untitled\n\nUser: a\nAssistant: b\nUser: c\nAssistant: d"
    assert len(read.block().parts) == 2


@pytest.mark.parametrize("content", [[], {"conversations": []}, [simple(" ")], [{"mapping": {}}], [7], [{"a": 1}], simple(" ")])
def test_an_export_without_a_visible_message_is_empty(content: Any) -> None:
    with pytest.raises(FinalError) as caught:
        _read(content)
    assert caught.value.code is ErrorCode.EXPORT_EMPTY


def test_skipped_elements_are_counted_and_logged_by_index_without_their_content() -> None:
    metrics = Metrics()
    with capture_logs() as logs:
        read, _ = _read([simple("a"), "SECRET", {"SECRET": 1}], metrics)
    assert read.skipped == 2
    assert metrics.registry.get_sample_value("full_pass_conversations_skipped_total") == 2
    assert [line["index"] for line in logs if line["event"] == "element_skipped"] == [1, 2]
    assert "SECRET" not in str(logs)


def test_log_lines_of_the_thread_name_the_run() -> None:
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as logs, bound_contextvars(run_id="r"):
        _read([simple("a"), 7])
    assert [line["run_id"] for line in logs] == ["r"]


def test_an_unreadable_export_closes_its_file() -> None:
    store = _MemoryStore(MemoryFile(b"[{"))
    with Spool() as spool, pytest.raises(FinalError):
        asyncio.run(read_export("b/k", COMPLETED_AT, store, spool, LIMITS, Metrics()))
    assert store.file.closed


class _EndlessFile(ExportFile):
    """An export that has begun and never ends."""

    def __init__(self) -> None:
        super().__init__(1 << 40, "etag")
        self.begun = threading.Event()

    def read_range(self, start: int, size: int) -> bytes:
        if start == 0:
            return b"[" + b" " * (size - 1)
        self.begun.set()
        return (json.dumps(simple("a", "b")).encode() + b",").ljust(100)[:100] * (size // 100 or 1)


def test_cancelling_the_stage_stops_the_thread_and_closes_the_file() -> None:
    """A lost lease or a shutdown must not leave a thread that reads gigabytes."""

    async def cancelled() -> ExportFile:
        file = _EndlessFile()
        with Spool() as spool:
            stage = asyncio.ensure_future(read_export("b/k", COMPLETED_AT, _MemoryStore(file), spool, ENDLESS, Metrics()))
            async with asyncio.timeout(20):
                while not file.begun.is_set():
                    await asyncio.sleep(0.01)
                stage.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await stage
        return file

    started = time.monotonic()
    assert asyncio.run(cancelled()).closed
    assert time.monotonic() - started < 20


def test_the_event_loop_is_never_blocked_for_100_milliseconds() -> None:
    """The other runs of the worker renew their leases on it."""
    content = json.dumps([simple(*["Some words of a sentence. " * 100] * 20) for _ in range(300)]).encode()

    async def longest_gap() -> float:
        gaps = [0.0]

        async def watch() -> None:
            last = time.perf_counter()
            while True:
                await asyncio.sleep(0.001)
                now = time.perf_counter()
                gaps.append(now - last)
                last = now

        with Spool() as spool:
            watcher = asyncio.ensure_future(watch())
            await read_export("b/k", COMPLETED_AT, _MemoryStore(MemoryFile(content)), spool, ENDLESS, Metrics())
            watcher.cancel()
        return max(gaps)

    assert min(asyncio.run(longest_gap()) for _ in range(3)) < 0.1
