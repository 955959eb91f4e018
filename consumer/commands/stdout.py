"""Standard output that may come to its end before the command does: a reader such as `head` leaves, or a disk is full."""

from __future__ import annotations

import io
import os
import sys
from typing import Any

from consumer.errors import CommandError


class Stdout(io.TextIOWrapper):
    """Where the reader has left, the command goes on to its own end, and what it says goes nowhere.

    Raises:
        CommandError: on writing, where nothing can be written any more for another reason.
    """

    left = False
    """Whether the reader has left: time to end, for a command that would speak for ever."""

    def write(self, text: str) -> int:
        """Write, or drop the text if nobody reads any more."""
        return self._tried(super().write, text) or len(text)

    def flush(self) -> None:
        """Flush what was written, if somebody reads it."""
        self._tried(super().flush)

    def _tried(self, do: Any, *values: Any) -> Any:
        try:
            return do(*values)
        except BrokenPipeError:
            self.left = True
            self._go_nowhere()
        except OSError as error:
            self._go_nowhere()
            raise CommandError(f"the answer can't be written to stdout: {error.strerror}") from None
        return None

    def _go_nowhere(self) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)


def guard_stdout() -> None:
    """Make the process's stdout one, unless it has none; what its encoding lacks is spelled out."""
    there = sys.stdout
    if isinstance(there, io.TextIOWrapper) and not isinstance(there, Stdout):
        sys.stdout = Stdout(there.buffer, encoding=there.encoding, errors="backslashreplace", line_buffering=there.line_buffering)


def reader_has_left() -> bool:
    """Whether nobody reads stdout any more."""
    return isinstance(sys.stdout, Stdout) and sys.stdout.left
