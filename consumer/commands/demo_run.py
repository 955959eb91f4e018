"""The main job from nothing to the three events, shown as it happens, and nothing left behind."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

from consumer.commands.database import opened
from consumer.commands.demo_chat import Chat, chat_service
from consumer.commands.demo_processes import start, undisturbed
from consumer.commands.demo_screen import Screen
from consumer.commands.estimating import estimate_export
from consumer.commands.output import print_json
from consumer.commands.sandbox import Seeded, bring_up, opened_sandbox, seed_export
from consumer.errors import CommandError, ConfigurationError
from consumer.kafka.publishing import publish
from consumer.kafka.reading import ReadEvent, read_events
from consumer.postgres.overview import Overview
from consumer.postgres.seeding import fetch_profile
from consumer.settings import Settings, load_settings
from schemas.events import QuickPassCompleted, run_id_of

_LOOK_SECONDS = 0.2
_READY_SECONDS = 60
_LATENCY = ("--latency-seconds", "0.3")
_REAL_API = "https://api.anthropic.com"
_OURS = ("DATABASE_URL", "EXPORT_STORE_URL", "FULL_PASS_ALERT_WEBHOOK_URL", "FULL_PASS_ALERT_WEBHOOK_URL_FILE")


def run_demo(export: Path | None, *, real: bool, yes: bool, attached: bool, quiet: bool) -> None:
    """Run it, and show it; `quiet` leaves stdout to one JSON document.

    Raises:
        CommandError, ConfigurationError: naming what is missing.
    """
    if export is not None and not export.is_file():
        raise CommandError(f"there is no file {export}; expected conversations.json or the ZIP of an export")
    if real and not os.environ.get("ANTHROPIC_API_KEY"):
        raise ConfigurationError("--real needs ANTHROPIC_API_KEY in the environment")
    screen = Screen(quiet=quiet)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what we started is ended, as after Ctrl-C
    if attached:
        settings = settings_of_the_worker(real=real)
        document = _run(settings, screen, export, nullcontext(None), nullcontext(None), ask=real and not yes)
    else:
        document = _run_in_sandbox(screen, export, real=real, yes=yes)
    screen.show(document)
    if quiet:
        print_json(document)
    if document["run"]["status"] != "completed":
        raise CommandError(f"the run ended as v2-failed: {document['run']['error_code']}")


def settings_of_the_worker(*, real: bool) -> Settings:
    """The environment that a worker elsewhere is taken to share with us.

    Raises:
        ConfigurationError: when it leads to the real API and nobody said `--real`.
    """
    settings = load_settings()
    host = urlsplit(settings.anthropic_base_url or _REAL_API).hostname
    if host == urlsplit(_REAL_API).hostname and not real:
        raise ConfigurationError("the environment leads to the real API; say --real to spend, or set ANTHROPIC_BASE_URL")
    return settings


def _run_in_sandbox(screen: Screen, export: Path | None, *, real: bool, yes: bool) -> dict[str, Any]:
    """Start everything, run, and leave nothing behind."""
    folder = Path(tempfile.mkdtemp(prefix="full-pass-demo-"))
    _forget_the_users_own(real)
    sandbox = opened_sandbox(folder / "sandbox", detached=False, stand_in_arguments=() if real else _LATENCY)
    try:
        with screen.step("Kafka, PostgreSQL, topics and tables"):
            bring_up(sandbox)
        worker, chat = _worker(screen, folder / "worker.log"), chat_service(screen, folder)
        return _run(load_settings(), screen, export, worker, chat, ask=real and not yes)
    finally:
        with undisturbed():
            sandbox.wipe()
            shutil.rmtree(folder, ignore_errors=True)


def _run(
    settings: Settings,
    screen: Screen,
    export: Path | None,
    worker: AbstractContextManager[subprocess.Popen[bytes] | None],
    chat_service: AbstractContextManager[Chat | None],
    *,
    ask: bool = False,
) -> dict[str, Any]:
    with screen.step("an export in the store, a profile row in the database"):
        seeded = asyncio.run(seed_export(settings, export, uuid4()))
    if ask:
        screen.confirm(asyncio.run(estimate_export(settings, seeded.storage_path)), settings.model)
    with worker as process, chat_service as chat:
        cached = None if chat is None else chat.cached_prompt(seeded.user_id)
        document = asyncio.run(_follow(settings, screen, seeded, process))
        return document | {"prompts": None if chat is None else _prompts(screen, chat, seeded, cached, document)}


def _prompts(
    screen: Screen, chat: Chat, seeded: Seeded, cached: dict[str, Any] | None, document: dict[str, Any]
) -> dict[str, Any]:
    """What a chat got before the event, what the reader dropped, and what a chat gets now."""
    with screen.step("the prompt of the next chat"):
        fresh, again = chat.fresh_prompts(seeded.user_id, document["profile"]["profile_version"])
    return {"cached": cached, "dropped": chat.drops(), "fresh": fresh, "cached_again": again}


async def _follow(settings: Settings, screen: Screen, seeded: Seeded, process: subprocess.Popen[bytes] | None) -> dict[str, Any]:
    """Publish the event, show its run while it goes on, and gather what came out."""
    event = QuickPassCompleted(user_id=seeded.user_id, storage_path=seeded.storage_path, completed_at=datetime.now(UTC))
    place = await publish(settings, event)
    screen.published(event, place)
    async with opened(settings) as database:
        overview = Overview(database)
        run = await _watch(overview, screen, run_id_of(event.user_id, event.key(), 0), process)
        events = await _read_all(settings, event.user_id, len(run["events"]))
        profile = await fetch_profile(database, event.user_id)
    return {
        "run": run,
        "profile": profile,
        "events": [
            {
                "topic": event.topic,
                "partition": event.partition,
                "offset": event.offset,
                "headers": event.headers,
                "data": event.data,
            }
            for event in events
        ],
    }


async def _watch(overview: Overview, screen: Screen, run_id: UUID, process: subprocess.Popen[bytes] | None) -> dict[str, Any]:
    taken_by = time.monotonic() + _READY_SECONDS
    with screen.following() as follow:
        while True:
            if process is not None and process.poll() is not None:
                raise CommandError(f"the worker ended with status {process.returncode} before its run did")
            try:
                run = await overview.show_run(run_id)
            except CommandError:  # intake has not taken the event yet
                run = None
            if run is None and time.monotonic() > taken_by:
                raise CommandError(f"no worker took the event in {_READY_SECONDS} seconds; see 'full-pass status'")
            if run is not None:
                follow(run)
                if run["status"] in {"completed", "failed"} and all(event["published_at"] for event in run["events"]):
                    return run
            await asyncio.sleep(_LOOK_SECONDS)


async def _read_all(settings: Settings, user_id: UUID, count: int) -> list[ReadEvent]:
    """What a reader gets; the rows are marked after Kafka has them, so they are there to be read."""
    events = await read_events(settings, user_id)
    if len(events) != count:
        raise CommandError(f"a reader of the topics got {len(events)} events, expected {count}")
    return events


def _forget_the_users_own(real: bool) -> None:
    """The demo never touches servers or stores that the environment names; the real key is used with --real alone.

    How to sign in to a Kafka elsewhere goes with its address: the sandbox's takes plain connections.
    """
    kafka = tuple(variable for variable in os.environ if variable.startswith("KAFKA_"))
    for variable in kafka + _OURS + (() if real else ("ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY")):
        os.environ.pop(variable, None)
    if real:
        os.environ.setdefault("ANTHROPIC_BASE_URL", _REAL_API)


@contextmanager
def _worker(screen: Screen, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The worker as operators start it, ready; ended by SIGTERM, and by SIGKILL if that is not enough."""
    environment = {**os.environ, "FULL_PASS_HTTP_PORT": "0", "FULL_PASS_LOG_FORMAT": "json"}
    with ExitStack() as end:
        with screen.step("the worker"):
            process = start(end, [sys.executable, "-m", "consumer", "worker"], environment, log)
        with screen.step("waiting until it is ready"):
            _wait_until_ready(process, log)
        yield process


def _wait_until_ready(process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for `/health/ready` of the port that the worker says it took."""
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline:
        lines = log.read_text(encoding="utf-8").splitlines()
        if process.poll() is not None:
            raise CommandError(f"the worker ended with status {process.returncode}: {lines[-1] if lines else 'it said nothing'}")
        if (port := _port_of(lines)) is not None and _answers(port):
            return
        time.sleep(_LOOK_SECONDS)
    raise CommandError(f"the worker was not ready after {_READY_SECONDS} seconds")


def _port_of(lines: list[str]) -> int | None:
    for line in lines:
        if '"http_listening"' in line:
            return int(json.loads(line)["port"])
    return None


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
