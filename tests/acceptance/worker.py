"""A worker as a user starts it: the command as a process, its log, its HTTP, and signals."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

FULL_PASS = str(Path(sys.executable).with_name("full-pass"))
_LOOK_AGAIN_SECONDS = 0.03


def until(condition: Callable[[], Any], seconds: float = 40, what: str = "the condition came true") -> Any:
    """Wait until the condition gives something true, with a deadline, and return that."""
    deadline = time.monotonic() + seconds
    while not (met := condition()):
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain until {what}"
        time.sleep(_LOOK_AGAIN_SECONDS)
    return met


class Worker:
    """`full-pass worker` in the background; killed at the end of the block if it is still there."""

    def __init__(self, environment: Mapping[str, str], log: Path, arguments: tuple[str, ...] = ()) -> None:
        self.log = log
        self.printed = log.with_suffix(".stdout")
        with log.open("w") as stderr, self.printed.open("w") as stdout:
            self.process = subprocess.Popen([FULL_PASS, "worker", *arguments], env=environment, stdout=stdout, stderr=stderr)
        self._port = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def alive(self) -> bool:
        """Whether the process is there."""
        return self.process.poll() is None

    def kill(self) -> None:
        """SIGKILL, which no process can do anything about."""
        self.process.kill()
        self.process.wait(10)

    def stop(self, seconds: float = 40) -> int:
        """SIGTERM, and the exit status."""
        self.process.terminate()
        return self.process.wait(seconds)

    def said(self) -> list[dict[str, Any]]:
        """Each whole line of its log, which must be a JSON object."""
        lines = self.log.read_text(encoding="utf-8").split("\n")[:-1]
        return [json.loads(line) for line in lines]

    def events(self, name: str) -> list[dict[str, Any]]:
        """The lines with that event."""
        return [line for line in self.said() if line["event"] == name]

    @property
    def port(self) -> int:
        """The port that it took, by its own word."""
        if not self._port:
            self._port = until(self._listening, what="the worker listened")[0]["port"]
        return self._port

    def _listening(self) -> list[dict[str, Any]]:
        assert self.alive, f"the worker ended with {self.process.returncode}: {self.log.read_text()[-2000:]}"
        return self.events("http_listening")

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of an answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def reasons(self) -> dict[str, str]:
        """Why it is not ready; empty when it is."""
        status, body = self.get("/health/ready")
        answer = json.loads(body)
        assert answer["ready"] == (status == 200) == (answer["reasons"] == {})
        found: dict[str, str] = answer["reasons"]
        return found

    def ready(self) -> Self:
        """Wait until it is ready."""
        until(lambda: not self.reasons(), what="the worker was ready")
        return self

    def metrics(self) -> dict[str, float]:
        """Every sample of `/metrics`, by its name with labels as they stand there."""
        status, body = self.get("/metrics")
        assert status == 200
        return {name: float(value) for name, value in re.findall(r"^([^#\s]+(?:\{.*\})?) (\S+)$", body, re.MULTILINE)}

    def metric(self, name: str) -> float:
        """One sample, such as `full_pass_runs_ended_total{status="completed",code=""}`; 0 while there is none."""
        return self.metrics().get(name, 0.0)
