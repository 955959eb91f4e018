"""Server processes: each in a session of its own, known again by more than its pid, and ended by that pid alone."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from sandbox.errors import SandboxError

_CLOCK_SHIFT_SECONDS = 5.0  # a process's start time is counted from the boot time, which a set clock moves
_LOOK_AGAIN_SECONDS = 0.02
_GONE_SECONDS = 10.0
_STOPPED_SECONDS = 10.0
_STATES_AT_REST = ("T", "t", "Z", "X")  # proc(5): stopped, traced, ended
_TAIL_LINES = 20
_TAIL_BYTES = 16_384


@dataclass(frozen=True)
class Identity:
    """Which process is meant, so that a pid that the system gave to another one is not taken for it.

    `started_at` is in seconds since 1970; `mark` is a text that stands in the process's command line.
    """

    pid: int
    started_at: float
    mark: str

    def process(self) -> psutil.Process | None:
        """The process, if it is still running and still the one that was meant."""
        try:
            process = psutil.Process(self.pid)
            if abs(process.create_time() - self.started_at) > _CLOCK_SHIFT_SECONDS:
                return None
            named = any(self.mark in word for word in process.cmdline())
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            return None
        return process if named else None


class Leash:
    """A watcher that kills the server as soon as this process is gone (see `sandbox/leash.py`)."""

    def __init__(self, process: psutil.Process) -> None:
        script = Path(__file__).with_name("leash.py")
        self._watcher = subprocess.Popen(
            [sys.executable, "-P", str(script), str(process.pid), repr(process.create_time())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def release(self) -> None:
        """Let the server go; it is ended, or meant to stay."""
        with contextlib.suppress(BrokenPipeError):
            self._watcher.communicate(b".")


def launch(command: Sequence[str], log: Path, environment: Mapping[str, str]) -> psutil.Process:
    """Start a server in a session of its own, so that Ctrl-C is not for it, with both outputs appended to `log`.

    Raises:
        SandboxError: if the program can't be started.
    """
    outputs = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    try:
        pid = os.posix_spawn(
            command[0], list(command), dict(environment), file_actions=outputs, setsid=True, setsigdef=[signal.SIGPIPE]
        )
    except OSError as error:
        raise SandboxError(f"{command[0]} can't be started: {error.strerror}.") from None
    return psutil.Process(pid)


def run(command: Sequence[str], environment: Mapping[str, str], seconds: float) -> subprocess.CompletedProcess[str]:
    """Run a program to its end and return what it said; one that takes too long counts as failed."""
    try:
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=seconds)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"no end after {seconds:.0f} s")


def is_running(process: psutil.Process) -> bool:
    """Whether the process is alive; one that ended but was not waited for is not."""
    try:
        if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            return True
        process.wait(0)  # a child of ours that ended by itself: its pid is given back
    except (psutil.NoSuchProcess, psutil.TimeoutExpired):
        pass
    return False


def wait_until(ready: Callable[[], bool], process: psutil.Process, seconds: float) -> bool:
    """Whether `ready` came true in time; False at once when the process has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not is_running(process):
            return False
        if ready():
            return True
        time.sleep(_LOOK_AGAIN_SECONDS)
    return False


def end(process: psutil.Process, signal_number: int, seconds: float) -> None:
    """Ask the process to end, and kill it with all its children when it hasn't in time."""
    thaw(process)
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(signal_number)
    try:
        process.wait(seconds)
    except psutil.TimeoutExpired:
        kill(process)


def kill(process: psutil.Process) -> None:
    """SIGKILL the process, then its children, and wait until all are gone.

    The parent first: PostgreSQL's would take a killed child for a crash and start another.
    """
    family = _family(process)
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    _, alive = psutil.wait_procs(family, timeout=_GONE_SECONDS)
    if alive:
        raise SandboxError(f"process {process.pid} is still there {_GONE_SECONDS:.0f} s after SIGKILL.")


def freeze(process: psutil.Process) -> None:
    """SIGSTOP the process and its children, and wait until all are stopped: they keep their connections and answer nobody."""
    family = _family(process)
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.suspend()
    if not wait_until(lambda: all(map(_is_stopped, family)), process, _STOPPED_SECONDS):
        raise SandboxError(f"process {process.pid} is not stopped {_STOPPED_SECONDS:.0f} s after SIGSTOP.")


def _is_stopped(process: psutil.Process) -> bool:
    """Whether no thread of it runs: each of them stops when it comes to look, and until then may answer."""
    try:
        if not psutil.LINUX:
            return bool(process.status() == psutil.STATUS_STOPPED)
        stats = [stat.read_text() for stat in Path(f"/proc/{process.pid}/task").glob("*/stat")]
    except (psutil.NoSuchProcess, OSError):  # it ended in between
        return not process.is_running()
    return all(stat.rpartition(") ")[2].startswith(_STATES_AT_REST) for stat in stats)


def thaw(process: psutil.Process) -> None:
    """SIGCONT the process and its children."""
    for member in reversed(_family(process)):
        with contextlib.suppress(psutil.NoSuchProcess):
            member.resume()


def _family(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return [process]


def size_of(log: Path) -> int:
    """Bytes in a log, 0 for one that isn't there: where the next start's lines begin."""
    return log.stat().st_size if log.exists() else 0


def tail_of(log: Path, start: int) -> str:
    """The last lines of a log that were written after the byte `start`."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(start, size_of(log) - _TAIL_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
    return "\n".join(lines[-_TAIL_LINES:])
