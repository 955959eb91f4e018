"""The stand-in for the Anthropic API as a server of the sandbox: a process of its own, on the wire."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from sandbox.server import HOST, Progress, Server, connects, silent


class StandInServer(Server):
    """`python -m sandbox.anthropic` with a port that stays.

    `arguments` go to its command line, such as `--latency-seconds 0.5`; what it answers is documented there.
    """

    name: ClassVar[str] = "the stand-in for the Anthropic API"

    def __init__(self, folder: Path, port: int | None = None, progress: Progress = silent, arguments: Sequence[str] = ()) -> None:
        super().__init__(folder, port, progress)
        self._arguments = tuple(arguments)

    @property
    def url(self) -> str:
        """What goes into ANTHROPIC_BASE_URL."""
        return f"http://{HOST}:{self.port}"

    def _prepare(self) -> None:
        pass

    def _command(self) -> list[str]:
        return [sys.executable, "-m", "sandbox.anthropic", "--host", HOST, "--port", str(self.port), *self._arguments]

    def _mark(self) -> str:
        return "sandbox.anthropic"

    def _environment(self) -> Mapping[str, str]:
        """With this very package first on the path, and each line in the log as it is said."""
        package = str(Path(__file__).parent.parent)
        path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
        return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}

    def _answers(self) -> bool:
        """By its own word too: somebody else may be listening on a port that it is about to be refused."""
        return f"listening on {self.url}" in self._logged() and connects(self.port)
