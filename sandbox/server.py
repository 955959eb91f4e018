"""What the three local servers have in common: a folder, a port that stays, and a process that is found again."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import psutil

from sandbox import processes
from sandbox.errors import SandboxError
from sandbox.processes import Identity, Leash

HOST = "127.0.0.1"
Progress = Callable[[str], None]

# Below the ports that systems give to outgoing connections, so that a killed server finds its own free again.
_PORTS = range(20_000, 32_000)
_PORT_TRIES = 5
_PORT_TAKEN = re.compile(r"address already in use|failed to bind", re.IGNORECASE)
_STOP_SECONDS = 20.0


def silent(message: str) -> None:
    """The progress callback of those who don't want to hear."""


class Server(ABC):
    """A server of the sandbox, with all its state in `folder`.

    Its port is chosen at the first start and kept in the folder, as is the identity of its process: a second object on the
    same folder, in this process or another, finds the same server. A server that isn't `detached` is killed when
    the process that started it is gone.
    """

    name: ClassVar[str]
    start_seconds: ClassVar[float] = 60.0
    stop_signal: ClassVar[int] = signal.SIGTERM

    def __init__(self, folder: Path, port: int | None = None, progress: Progress = silent) -> None:
        self.folder = folder.absolute()
        self.progress = progress
        self._port = port
        self._leash: Leash | None = None
        self._log_start = 0

    @abstractmethod
    def _prepare(self) -> None:
        """Make everything that has to be there before the first start; called with the ports known."""

    @abstractmethod
    def _command(self) -> list[str]:
        """The command line."""

    @abstractmethod
    def _answers(self) -> bool:
        """Whether the server answers a real request."""

    @abstractmethod
    def _mark(self) -> str:
        """A text of the command line that no other process has."""

    def _environment(self) -> Mapping[str, str]:
        return os.environ

    @property
    def log(self) -> Path:
        """Both outputs of the server, over all its starts."""
        return self.folder / "server.log"

    @property
    def port(self) -> int:
        """The port that it listens on, or will. A SandboxError before the first start."""
        port = self._record().get("port", self._port)
        if port is None:
            raise SandboxError(f"{self.name} has no port yet: start it first.")
        return int(port)

    @property
    def running(self) -> bool:
        """Whether the process is there; it may be frozen."""
        return self._process() is not None

    @property
    def pid(self) -> int:
        """The server's pid. A SandboxError if it isn't running."""
        return self._running_process().pid

    def start(self, *, detached: bool = False) -> None:
        """Start the server if it isn't running, and wait until it answers.

        Raises:
            SandboxError: with the last lines of the log.
        """
        if self.running:
            return None
        self._let_go()
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        first_start = "port" not in self._record()
        tries_left = _PORT_TRIES if first_start and self._port is None else 1
        if first_start:
            self._choose_ports()
        while True:
            tries_left -= 1
            try:
                return self._start_once(detached)
            except SandboxError as error:
                if not tries_left or not _PORT_TAKEN.search(str(error)):
                    raise
                self._choose_ports()

    def _choose_ports(self) -> None:
        """A port may be taken by somebody between this choice and the server's start; then it is made again."""
        self._note(port=self._port or free_port())

    def _start_once(self, detached: bool) -> None:
        self._prepare()
        self._log_start = processes.size_of(self.log)
        process = processes.launch(self._command(), self.log, self._environment())
        self._note(process={"pid": process.pid, "started_at": process.create_time()})
        if not detached:
            self._leash = Leash(process)
        if processes.wait_until(self._answers, process, self.start_seconds):
            return
        happened = f"did not answer within {self.start_seconds:.0f} s" if processes.is_running(process) else "ended at its start"
        processes.kill(process)
        self._let_go()
        raise SandboxError(f"{self.name} {happened}. {self.log} ends with:\n{self._logged()}")

    def _logged(self) -> str:
        """The last lines that the server wrote since this start."""
        return processes.tail_of(self.log, self._log_start)

    def stop(self) -> None:
        """End the server in good order, killing it if that takes more than 20 s. Nothing happens if it isn't running."""
        process = self._process()
        if process is not None:
            processes.end(process, self.stop_signal, _STOP_SECONDS)
        self._let_go()

    def kill(self) -> None:
        """SIGKILL; nothing is flushed, nobody is told. `start` brings it back with its data and port."""
        process = self._process()
        if process is not None:
            processes.kill(process)
        self._let_go()

    def restart(self) -> None:
        """Stop and start, on the same data and port."""
        self.stop()
        self.start()

    def remove(self) -> None:
        """Stop, and remove the folder with all data in it."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def freeze(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        processes.freeze(self._running_process())

    def thaw(self) -> None:
        """SIGCONT after `freeze`."""
        processes.thaw(self._running_process())

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _running_process(self) -> psutil.Process:
        process = self._process()
        if process is None:
            raise SandboxError(f"{self.name} is not running.")
        return process

    def _process(self) -> psutil.Process | None:
        noted = self._record().get("process")
        if noted is None:
            return None
        process = Identity(noted["pid"], noted["started_at"], self._mark()).process()
        return process if process is not None and processes.is_running(process) else None

    def _let_go(self) -> None:
        if self._leash is not None:
            self._leash.release()
            self._leash = None

    def _record(self) -> dict[str, Any]:
        try:
            record: dict[str, Any] = json.loads((self.folder / "server.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        return record

    def _note(self, **entries: Any) -> None:
        written = self.folder / "server.json.new"
        written.touch(mode=0o600)
        written.write_text(json.dumps({**self._record(), **entries}, indent=2), encoding="utf-8")
        written.replace(self.folder / "server.json")


def free_port() -> int:
    """A port of this machine that nobody listens on now.

    Raises:
        SandboxError: if none is found.
    """
    for port in random.SystemRandom().sample(_PORTS, k=100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise SandboxError(f"no free port between {_PORTS.start} and {_PORTS.stop} on {HOST}.")


def connects(port: int) -> bool:
    """Whether somebody listens on the port of 127.0.0.1."""
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True
