"""Read files that were made to fill the memory, each in a process that may have little of it.

`python -m tests.integration.exports.hostile` prints a JSON line for each: its name, how reading ended, by how many bytes the
most memory that the process ever held has grown since it began to read, and its seconds of CPU. The files are made while they
are read, and take no room on a disk.
"""

from __future__ import annotations

import gzip
import json
import os
import resource
import sys
import time
import zlib
from collections import deque
from collections.abc import Callable

from consumer.errors import FinalError
from consumer.exports.conversations import read_conversations
from consumer.exports.file import ExportFile
from consumer.exports.limits import ExportLimits
from tests.unit.exports.examples import MemoryFile
from tests.unit.exports.raw_zip import Member, archive, sharing_one_kernel

MEMORY_BYTES = 300_000_000
LIMITS = ExportLimits(1 << 41, 200_000_000, 200, 50_000)
SAID = b'"messages":[{"role":"user","content":"hi"}]}]'
TERABYTE = 1 << 40
_BLOCK = 1 << 20


class RepeatingFile(ExportFile):
    """`begin`, then `unit` again and again up to about `size` bytes, then `end`."""

    def __init__(self, begin: bytes, unit: bytes, size: int, end: bytes) -> None:
        self._begin, self._unit, self._end = begin, unit, end
        self._units_bytes = size // len(unit) * len(unit)
        self._many = unit * (_BLOCK // len(unit) + 2)
        super().__init__(len(begin) + self._units_bytes + len(end), "etag")

    def read_range(self, start: int, size: int) -> bytes:
        if start < len(self._begin):
            return self._begin[start : start + size]
        start -= len(self._begin)
        if start >= self._units_bytes:
            return self._end[start - self._units_bytes :][:size]
        turn = start % len(self._unit)
        return self._many[turn : turn + min(size, _BLOCK, self._units_bytes - start)]


def _bomb(begin: bytes, megabytes: int) -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    packed = [packer.compress(begin)] + [packer.compress(b" " * 1_000_000) for _ in range(megabytes)]
    return b"".join(packed) + packer.flush()


def _many_members() -> bytes:
    member = Member(b"conversations.json", b'[{"a":1,' + SAID)
    content = member.header() + member.body
    other = Member(b"NAME!", packed=b"x").entry(len(content))
    return archive(
        content, member.entry(0) + b"".join(other.replace(b"NAME!", b"%05x" % each) for each in range(150_000)), 150_001
    )


FILES: dict[str, Callable[[], ExportFile]] = {
    "nesting a million deep": lambda: RepeatingFile(b'[{"a":', b"[", 1_000_000, b"]" * 1_000_000 + b"," + SAID),
    "nesting that isn't closed": lambda: RepeatingFile(b"", b'{"a":', 1_000_000, b""),
    "a huge title": lambda: RepeatingFile(b'[{"title":"', b"x", 20_000_000, b'",' + SAID),
    "a huge text": lambda: RepeatingFile(b'[{"messages":[{"role":"user","content":"', "é".encode(), 20_000_000, b'"}]}]'),
    "a huge number": lambda: RepeatingFile(b'[{"create_time":', b"9", 20_000_000, b"," + SAID),
    "a huge key": lambda: RepeatingFile(b'[{"', b"k", 20_000_000, b'":1,' + SAID),
    "lists in a title": lambda: RepeatingFile(b'[{"title":[0', b",[]", 2_500_000, b"]," + SAID),
    "parts that are objects": lambda: RepeatingFile(
        b'[{"mapping":{"a":{"message":{"author":{"role":"user"},"content":{"parts":["hi"', b',{"text":"b"}', 2_500_000, b"]}}}}}]"
    ),
    "gzip that unpacks to 200 times its size": lambda: MemoryFile(_bomb(b"[", 100)),
    "gzip of gzip": lambda: MemoryFile(gzip.compress(_bomb(b"[", 100))),
    "members that share one kernel": lambda: MemoryFile(
        sharing_one_kernel([b"conversations-%d.json" % number for number in range(20)], b"[" + b" " * 1_000_000 + b"]")
    ),
    "150,000 members": lambda: MemoryFile(_many_members()),
    "white space that never ends": lambda: RepeatingFile(b"[", b" ", TERABYTE, b""),
    "elements that never end": lambda: RepeatingFile(b"[0", b",0", TERABYTE, b""),
    "objects that never end": lambda: RepeatingFile(b"[{}", b",{}", TERABYTE, b""),
    "a string that never ends": lambda: RepeatingFile(b'[{"title":"', b"x", TERABYTE, b""),
    "a key that never ends": lambda: RepeatingFile(b'{"', b"x", TERABYTE, b""),
    "a number that never ends": lambda: RepeatingFile(b'[{"create_time":', b"9", TERABYTE, b""),
}
"""What is held of the last three grows up to what one conversation may have."""


def main() -> None:
    """Read each file of FILES in a process of its own."""
    resource.setrlimit(resource.RLIMIT_AS, (_virtual_bytes() + MEMORY_BYTES,) * 2)
    for name, made in FILES.items():
        if (reader := os.fork()) == 0:
            _read(name, made())
            os._exit(0)  # where reading raised something else, there is a traceback, and no line
        os.waitpid(reader, 0)


def _read(name: str, file: ExportFile) -> None:
    held, ending = _peak_bytes(), "read"
    try:
        with file:
            deque(read_conversations(file, LIMITS), maxlen=0)
    except FinalError as error:
        ending = str(error.code)
    line = json.dumps([name, ending, _peak_bytes() - held, round(time.process_time(), 2)])
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _virtual_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


if __name__ == "__main__":
    main()
