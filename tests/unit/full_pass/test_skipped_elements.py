"""What is said of the elements of an export that are no conversations."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from structlog.testing import capture_logs

from consumer.errors import FinalError
from consumer.exports.file import ExportFile
from consumer.exports.stopping import Stop
from consumer.exports.store import ExportStore
from consumer.full_pass.reading import read_export
from consumer.full_pass.spool import Spool
from consumer.metrics import Metrics
from schemas.events import ErrorCode
from tests.unit.exports.examples import LIMITS, MemoryFile, simple


class _OneObject(ExportStore):
    def __init__(self, content: bytes) -> None:
        self._content = content

    def open(self, storage_path: str, stop: Stop | None = None) -> ExportFile:
        return MemoryFile(self._content)


def _read(content: bytes, metrics: Metrics | None = None) -> int:
    """How many elements were skipped."""
    with Spool() as spool:
        at = datetime(2026, 11, 24, tzinfo=UTC)
        read = asyncio.run(read_export("b/k", at, _OneObject(content), spool, LIMITS, metrics or Metrics()))
    return read.skipped


def _logged(lines: list[Any], event: str, field: str) -> list[Any]:
    return [line[field] for line in lines if line["event"] == event]


def test_a_broken_conversation_among_good_ones_is_counted_and_logged_by_its_index_without_its_content() -> None:
    broken = b'{"mapping": {"SECRET": tru}, "title": "SECRET"}'
    content = b", ".join([json.dumps(simple("a")).encode(), broken, json.dumps(simple("b")).encode()])
    metrics = Metrics()
    with capture_logs() as lines:
        assert _read(b"[" + content + b"]", metrics) == 1
    assert metrics.registry.get_sample_value("full_pass_conversations_skipped_total") == 1
    assert _logged(lines, "element_skipped", "index") == [1]
    assert "SECRET" not in str(lines)


def test_thousands_of_skipped_elements_dont_flood_the_log() -> None:
    with capture_logs() as lines:
        assert _read(json.dumps([*range(5_000), simple("a")]).encode()) == 5_000
    assert _logged(lines, "element_skipped", "index") == list(range(20))
    assert _logged(lines, "more_elements_skipped", "skipped") == [5_000]
    assert _logged(lines, "more_elements_skipped", "last_index") == [4_999]


def test_up_to_twenty_skipped_elements_are_logged_one_by_one_and_nothing_more_is_said() -> None:
    with capture_logs() as lines:
        assert _read(json.dumps([*range(20), simple("a")]).encode()) == 20
    assert len(lines) == 20


def test_how_many_were_skipped_is_said_of_an_export_that_then_turns_out_to_be_cut_off() -> None:
    with capture_logs() as lines, pytest.raises(FinalError) as caught:
        _read(json.dumps([*range(100), simple("a")]).encode()[:-1])
    assert caught.value.code is ErrorCode.EXPORT_UNREADABLE
    assert _logged(lines, "more_elements_skipped", "skipped") == [100]
