"""The stage that reads the export, once: chunks to the spool, the richest conversations kept (specification 1 to 3, 6)."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

from consumer.errors import FinalError
from consumer.exports.conversations import Conversation, Skipped, read_conversations
from consumer.exports.limits import ExportLimits
from consumer.exports.store import ExportStore
from consumer.full_pass.chunks import to_chunks
from consumer.full_pass.richest import Block, Richest, format_block
from consumer.full_pass.spool import Spool
from consumer.logs import get_log
from consumer.metrics import Metrics
from schemas.events import ErrorCode

_log = get_log("reading")


@dataclass(frozen=True, slots=True)
class ReadExport:
    """What was read: the block of the richest conversations, and counts of what is visible."""

    richest: Block
    conversations: int
    chunks: int
    messages: int
    skipped: int

    def block(self) -> Block:
        """The richest conversations as the text that the sections are made from."""
        return self.richest


async def read_export(
    storage_path: str, completed_at: datetime, store: ExportStore, spool: Spool, limits: ExportLimits, metrics: Metrics
) -> ReadExport:
    """Read the export at `storage_path` to its end, in a thread of its own; `completed_at` is the event's.

    Skipped elements are logged by index and counted. Cancelled, it waits for the thread, which stops at the next conversation.

    Raises:
        NotThereYet, FinalError, Outage, OperatorTrouble: as `ExportStore.open` and `read_conversations`; `export_empty` without
            a visible message.
    """
    reading = _Reading(completed_at, spool, metrics)
    # A thread of its own: in asyncio's, which are few, long reads would hold up the look-up of host names.
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="reading") as executor:
        run = contextvars.copy_context().run  # so that the thread's log lines name the run too
        future = asyncio.get_running_loop().run_in_executor(executor, run, reading.run, storage_path, store, limits)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            reading.stopped.set()
            await asyncio.wait([future])
            future.exception()
            raise


class _Stopped(Exception):
    """The stage was cancelled; nobody waits for what the thread returns."""


class _Reading:
    """What the thread counts and keeps."""

    def __init__(self, completed_at: datetime, spool: Spool, metrics: Metrics) -> None:
        self.stopped = threading.Event()
        self._completed_at = completed_at
        self._spool = spool
        self._metrics = metrics
        self._richest = Richest()
        self._conversations = self._chunks = self._messages = self._skipped = 0

    def run(self, storage_path: str, store: ExportStore, limits: ExportLimits) -> ReadExport:
        with store.open(storage_path) as file:
            for element in read_conversations(file, limits):
                if self.stopped.is_set():
                    raise _Stopped
                if isinstance(element, Skipped):
                    self._skip(element)
                else:
                    self._take(element)
        if not self._conversations:
            raise FinalError(ErrorCode.EXPORT_EMPTY, "The export has no conversation with a visible message.")
        return ReadExport(format_block(self._richest.chosen()), self._conversations, self._chunks, self._messages, self._skipped)

    def _take(self, conversation: Conversation) -> None:
        if not conversation.messages:
            return
        chunks = to_chunks(conversation, self._completed_at)
        self._spool.append(chunks)
        self._richest.offer(conversation)
        self._conversations += 1
        self._chunks += len(chunks)
        self._messages += len(conversation.messages)

    def _skip(self, element: Skipped) -> None:
        self._skipped += 1
        self._metrics.conversations_skipped.inc()
        _log.warning("element_skipped", index=element.index, reason=element.reason)
