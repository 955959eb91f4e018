"""The stage that reads the export, once: chunks to the spool, the richest conversations kept (specification 1 to 3, 6)."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from consumer.errors import FinalError
from consumer.exports.conversations import Conversation, Skipped, read_conversations
from consumer.exports.limits import ExportLimits
from consumer.exports.stopping import Stop
from consumer.exports.store import ExportStore
from consumer.full_pass.chunks import to_chunks
from consumer.full_pass.richest import Block, Richest, format_block
from consumer.full_pass.spool import Spool
from consumer.logs import get_log
from consumer.metrics import Metrics
from schemas.events import ErrorCode

LEAVE_BEHIND_SECONDS = 1.0
SKIPPED_LOGGED = 20
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

    Skipped elements are counted; the first 20 are logged by index, the others together. Cancelled, it interrupts what the
    thread waits for, and ends with it.

    Raises:
        NotThereYet, FinalError, Outage, OperatorTrouble: as `ExportStore.open` and `read_conversations`; `export_empty` without
            a visible message.
    """
    reading = _Reading(completed_at, spool, metrics)
    outcome: Future[ReadExport] = Future()
    read = partial(_settle, outcome, partial(reading.run, storage_path, store, limits))
    run = contextvars.copy_context().run  # so that the thread's log lines name the run too
    # A thread of its own: in asyncio's, which are few, long reads would hold up the look-up of host names. A daemon: asyncio's
    # and an executor's are waited for when the process ends, and one that hangs in a file system would keep it.
    threading.Thread(target=run, args=(read,), name="reading", daemon=True).start()
    future = asyncio.wrap_future(outcome)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        reading.stop.set()
        # Only a file system that hangs, or a conversation of a hundred MiB, takes longer. Such a thread is left behind: it stops
        # at the next read or conversation, and writes to no spool before that.
        await asyncio.wait([future], timeout=LEAVE_BEHIND_SECONDS)
        future.cancel()
        raise


def _settle(outcome: Future[ReadExport], read: Callable[[], ReadExport]) -> None:
    if not outcome.set_running_or_notify_cancel():
        return
    try:
        result = read()
    except BaseException as error:  # noqa: BLE001 - nothing is handled here: whoever waits for the outcome raises it
        outcome.set_exception(error)
    else:
        outcome.set_result(result)


class _Reading:
    """What the thread counts and keeps."""

    def __init__(self, completed_at: datetime, spool: Spool, metrics: Metrics) -> None:
        self.stop = Stop()
        self._completed_at = completed_at
        self._spool = spool
        self._metrics = metrics
        self._richest = Richest()
        self._conversations = self._chunks = self._messages = self._skipped = self._last_skipped = 0

    def run(self, storage_path: str, store: ExportStore, limits: ExportLimits) -> ReadExport:
        try:
            with store.open(storage_path, self.stop) as file:
                for element in read_conversations(file, limits):
                    self.stop.check()
                    if isinstance(element, Skipped):
                        self._skip(element)
                    else:
                        self._take(element)
        finally:
            if self._skipped > SKIPPED_LOGGED:
                _log.warning("more_elements_skipped", skipped=self._skipped, last_index=self._last_skipped)
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
        self._last_skipped = element.index
        self._metrics.conversations_skipped.inc()
        if self._skipped <= SKIPPED_LOGGED:
            _log.warning("element_skipped", index=element.index, reason=element.reason)
