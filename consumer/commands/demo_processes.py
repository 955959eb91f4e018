"""Processes of the demo: known before a signal can come in between, and ended in order, however often Ctrl-C is pressed."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path


def start(end: ExitStack, command: Sequence[str], environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start a process with both outputs in `log`; `end` ends it by SIGTERM, and by SIGKILL if that is not enough."""
    with log.open("wb") as output, _signals_held_back():
        process = subprocess.Popen(  # noqa: S603 - commands of ours alone
            command,
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C reaches us alone, and we end it in order
        )
        end.callback(_end, process)
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    with undisturbed():
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def undisturbed() -> Iterator[None]:
    """Clean up to the end, however often Ctrl-C is pressed."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait until a process that is being started is known to whoever ends it."""
    came: list[int] = []
    before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])
