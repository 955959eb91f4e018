"""A command at a terminal of 100 columns and 24 rows, as an operator sits at it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.acceptance.worker import FULL_PASS, until
from tests.acceptance.world import World

COLUMNS, ROWS = 100, 24
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


class Terminal:
    """What a command has written so far, and its keyboard."""

    def __init__(self, process: subprocess.Popen[bytes], ours: int) -> None:
        self.process = process
        self.raw = ""
        self._ours = ours
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        written = b""
        while True:
            try:
                more = os.read(self._ours, 65_536)
            except OSError:  # Linux says so when the last process at the terminal has left
                return
            if not more:
                return
            written += more
            self.raw = written.decode(errors="replace")

    @property
    def text(self) -> str:
        """All that was written, without colours and movements."""
        return _ESCAPES.sub("", self.raw).replace("\r\n", "\n")

    def until(self, pattern: str) -> re.Match[str]:
        """Wait until something like that was written."""
        found: re.Match[str] = until(lambda: re.search(pattern, self.text), what=f"{pattern!r} was written: {self.text[-500:]}")
        return found

    def type(self, line: str) -> None:
        """Type a line."""
        os.write(self._ours, line.encode() + b"\n")

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def ended(self) -> int:
        """Wait for its end; the exit status."""
        status = self.process.wait(40)
        self._reader.join(10)
        return status


@contextmanager
def at_a_terminal(world: World, *arguments: str, **changes: str) -> Iterator[Terminal]:
    """Run a command at a terminal; killed at the end of the block if it is still there."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    environment = world.environment(TERM="xterm", **changes)
    for name in ("COLUMNS", "LINES", "NO_COLOR"):
        environment.pop(name, None)
    process = subprocess.Popen([FULL_PASS, *arguments], env=environment, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    terminal = Terminal(process, ours)
    try:
        yield terminal
    finally:
        process.kill()
        terminal.ended()
        os.close(ours)
