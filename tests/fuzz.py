"""Fuzz the reader of exports: `python -m tests.fuzz --seconds 60 --seed 7`.

Files are made from the project's own sample: conversations are changed value by value, the JSON text and the archive byte by
byte. Each is read to its end and cut into chunks. What must hold of every file:

- the reader ends, or raises `export_unreadable` or `export_too_large`; nothing else;
- it takes no longer and no more memory than the file's size explains;
- what comes out can be stored: no U+0000, no lone surrogates, no blank chunk;
- the same JSON says the same when it comes in other pieces (as gzip of many small members).

The first file that breaks one is written beside the seed's number, and the command ends with status 1.
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
import time
import tracemalloc
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from consumer.errors import FinalError
from consumer.exports.conversations import Conversation, Skipped, read_conversations
from consumer.exports.limits import ExportLimits
from consumer.full_pass.chunks import CHUNK_MAX_CHARS, to_chunks
from schemas.events import ErrorCode
from tests.unit.exports.examples import MemoryFile
from tests.unit.exports.mutations import in_small_pieces, made_file

NOW = datetime(2026, 11, 24, tzinfo=UTC)
LIMITS = ExportLimits(max_bytes=1_000_000, max_uncompressed_bytes=4_000_000, max_compression_ratio=200, max_conversations=200)
SECONDS_PER_FILE = 20
MEMORY_PER_FILE_BYTES = 100_000_000


class Broken(Exception):
    """The reader did with a file what it never should; the message says what, and the content of the file is at hand."""


def outcome(content: bytes, limits: ExportLimits = LIMITS) -> tuple[str, list[Any]]:
    """How reading ends (`read` or a code), and what came out before that.

    Raises:
        Broken: when it ends in another way, or something came out that can't be stored.
    """
    found: list[Any] = []
    try:
        for element in read_conversations(MemoryFile(content), limits):
            found.append(element)
            _check(element, len(found) - 1)
    except FinalError as error:
        if error.code not in (ErrorCode.EXPORT_UNREADABLE, ErrorCode.EXPORT_TOO_LARGE):
            raise Broken(f"the code {error.code}") from error
        return str(error.code), found
    except Broken:
        raise
    except Exception as error:
        raise Broken(f"{type(error).__name__}: {str(error)[:200]}") from error
    return "read", found


def _check(element: Conversation | Skipped, place: int) -> None:
    if element.index != place:
        raise Broken("an element has another index than its place")
    for chunk in to_chunks(element, NOW) if isinstance(element, Conversation) else ():
        for text in (chunk.content, chunk.title, chunk.conversation_id):
            text.encode()
            if "\0" in text:
                raise Broken("a text with U+0000")
        if not chunk.content.strip() or len(chunk.content) > CHUNK_MAX_CHARS:
            raise Broken("a chunk that is blank or too long")


def check(content: bytes, draw: random.Random, compared: bool = True) -> str:
    """Read one file, and if it is JSON a second time in other pieces; its outcome.

    Raises:
        Broken: see above.
    """
    tracemalloc.clear_traces()
    tracemalloc.reset_peak()
    started = time.monotonic()
    result = outcome(content)
    if time.monotonic() - started > SECONDS_PER_FILE:
        raise Broken(f"more than {SECONDS_PER_FILE} seconds")
    if tracemalloc.get_traced_memory()[1] > MEMORY_PER_FILE_BYTES:
        raise Broken(f"more than {MEMORY_PER_FILE_BYTES} bytes of memory")
    if compared and content and content[:2] not in (b"PK", b"\x1f\x8b"):
        in_pieces = in_small_pieces(content, draw)
        if len(in_pieces) <= LIMITS.max_bytes and result != outcome(in_pieces):
            raise Broken("another outcome when it comes in small pieces")
    return result[0]


def main() -> int:
    """Fuzz until the time is over; print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--memory", action="store_true", help="watch the memory of each file, at a fifth of the speed")
    parser.add_argument("--kept", type=Path, default=Path(), help="folder for a file that breaks the reader")
    arguments = parser.parse_args()
    sys.stdout.write(f"seed {arguments.seed}\n")
    if arguments.memory:
        tracemalloc.start()
    seen: Counter[str] = Counter()
    slowest, ends_at, number = 0.0, time.monotonic() + arguments.seconds, 0
    while time.monotonic() < ends_at:
        draw = random.Random(f"{arguments.seed} {number}")
        content = made_file(draw)
        started = time.monotonic()
        try:
            seen[check(content, draw)] += 1
        except Broken as error:
            kept = arguments.kept / f"fuzz-{arguments.seed}-{number}.bin"
            kept.write_bytes(content)
            sys.stdout.write(f"file {number} ({len(content)} bytes, kept as {kept}): {error}\n")
            return 1
        slowest = max(slowest, time.monotonic() - started)
        number += 1
    counts = ", ".join(f"{outcome} {count}" for outcome, count in seen.most_common())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    sys.stdout.write(f"{number} files: {counts}; the slowest took {slowest:.2f} s; peak memory of the process {peak} MB\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
