"""A worker that also writes down, twice a second, how many tasks its event loop has."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from consumer.app import run_worker
from consumer.logs import configure_logs
from consumer.settings import load_settings

TASKS_FILE = "SOAK_TASKS_FILE"
_EVERY_SECONDS = 0.5


async def note_tasks(path: Path) -> None:
    """Write the number, until cancelled."""
    while True:
        written = path.with_suffix(".part")
        written.write_text(str(len(asyncio.all_tasks())), encoding="utf-8")
        written.replace(path)
        await asyncio.sleep(_EVERY_SECONDS)


async def work() -> None:
    """As `full-pass worker --without alerts` does."""
    settings = load_settings()
    configure_logs(settings.log_level, "json")
    noting = asyncio.ensure_future(note_tasks(Path(os.environ[TASKS_FILE])))
    try:
        await run_worker(settings, frozenset({"intake", "executor", "relay"}))
    finally:
        noting.cancel()


if __name__ == "__main__":
    asyncio.run(work())
