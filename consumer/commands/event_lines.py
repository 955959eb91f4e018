"""Completion events from a file: one JSON object a line, held to the rules that intake holds a message to."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from consumer.errors import ConfigurationError, InvalidMessage
from consumer.kafka.messages import Headers, to_new_run
from consumer.kafka.storage_paths import AllowedPaths
from schemas.events import QuickPassCompleted

LONGEST_LINE_BYTES = 1024 * 1024
MOST_REFUSALS = 1_000
_PIECE_BYTES = 64 * 1024
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A line that no event could be made of. `reason` is the code that a dead letter would have."""

    line: int
    reason: str
    detail: str


@dataclass(slots=True)
class Refusals:
    """Every refused line counted by its reason; the first 1,000 of them kept."""

    lines: list[Refusal] = field(default_factory=list)
    by_reason: Counter[str] = field(default_factory=Counter)

    def add(self, refusal: Refusal) -> bool:
        """Count a refusal; whether it is one of those kept."""
        self.by_reason[refusal.reason] += 1
        if len(self.lines) < MOST_REFUSALS:
            self.lines.append(refusal)
            return True
        return False


@dataclass(frozen=True, slots=True)
class Source:
    """An open file. `size_bytes` is None where nobody knows it: a pipe, a terminal."""

    descriptor: int
    size_bytes: int | None


@contextmanager
def opened(name: str) -> Iterator[Source]:
    """The file of that name, or standard input for `-`.

    Raises:
        ConfigurationError: when it can't be read.
    """
    if name == "-" and sys.stdin is None:
        raise ConfigurationError("--from-file: standard input is closed")
    try:
        descriptor = sys.stdin.fileno() if name == "-" else os.open(name, os.O_RDONLY)
    except OSError as error:
        raise ConfigurationError(f"--from-file: can't read {name}: {error.strerror}") from None
    try:
        found = os.fstat(descriptor)
        if stat.S_ISDIR(found.st_mode):
            raise ConfigurationError(f"--from-file: expected a file with one JSON object a line, {name} is a folder")
        yield Source(descriptor, found.st_size if stat.S_ISREG(found.st_mode) else None)
    finally:
        if name != "-":
            os.close(descriptor)


async def events_of(
    source: Source, paths: AllowedPaths, refused: Callable[[Refusal], None], read: Callable[[int], None]
) -> AsyncIterator[tuple[int, QuickPassCompleted]]:
    """The events with the numbers of their lines, from 1; blank lines are passed over, in bounded memory.

    `refused` is told of each line that no event can be made of, `read` of the bytes read so far.
    """
    async for number, line in lines_of(source.descriptor, read):
        if line is None:
            refused(Refusal(number, "too_long", f"expected at most {LONGEST_LINE_BYTES:,} bytes a line"))
            continue
        if not line.strip():
            continue
        try:
            event = to_event(line, paths)
        except InvalidMessage as problem:
            refused(Refusal(number, problem.reason, problem.detail))
        else:
            yield number, event


async def lines_of(descriptor: int, read: Callable[[int], None]) -> AsyncIterator[tuple[int, bytes | None]]:
    """The lines as they come, without waiting for more than one; None stands for one that is too long."""
    number, rest, too_long, total = 0, b"", False, 0
    while piece := await _next_piece(descriptor):
        if not total:
            piece = piece.removeprefix(_BYTE_ORDER_MARK)
        total += len(piece)
        read(total)
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            number += 1
            yield number, None if too_long or len(line) > LONGEST_LINE_BYTES else line
            too_long = False
        if len(rest) > LONGEST_LINE_BYTES:
            rest, too_long = b"", True
    if rest or too_long:
        yield number + 1, None if too_long else rest


async def _next_piece(descriptor: int) -> bytes:
    """What can be read now; empty at the end. Waiting for a pipe or a terminal can be cancelled, unlike a read in a thread."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    try:
        loop.add_reader(descriptor, readable.set)
    except PermissionError:  # a file on a disk can always be read
        await asyncio.sleep(0)  # so that Ctrl-C gets between
        return os.read(descriptor, _PIECE_BYTES)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(descriptor)
    return os.read(descriptor, _PIECE_BYTES)


@dataclass(slots=True)
class _LineRecord:
    """A line as the record that intake would get."""

    value: bytes | None
    timestamp: int | None
    headers: Headers = ()
    key: bytes | None = None
    topic: str = ""
    partition: int = 0
    offset: int = 0


def to_event(line: bytes, paths: AllowedPaths) -> QuickPassCompleted:
    """The event of a line.

    Raises:
        InvalidMessage: when intake would make a dead letter of it; the detail never quotes a value.
    """
    run = to_new_run(_LineRecord(line, int(datetime.now(UTC).timestamp() * 1000)), paths)
    return QuickPassCompleted.model_validate_json(run.event)
