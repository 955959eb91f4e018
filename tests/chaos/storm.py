"""Random kills: workers under load, each of which may die at any moment."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import re
import string
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from sandbox.anthropic import StandInControl
from tests.acceptance.exports import conversation
from tests.acceptance.reference import derived_key
from tests.acceptance.topics import OUTPUTS, Seen
from tests.acceptance.worker import Worker, until
from tests.acceptance.world import User, World, user_text
from tests.chaos.calls import digest
from tests.chaos.journal import Life, life_of

LEASE_SECONDS = 2.0
COLUMNS = ("soul_md", "identity_md", "user_md", "agents_md", "tools_md", "soulprint_text")
WORD = re.compile(r"craft[a-z]{14}", re.IGNORECASE)
"""Every export has a word of its own, which comes back in every section that is made of it."""

_STILLBORN = 0.1
_TWICE = 0.3
_LOOK_SECONDS = 0.03
_ASK_SECONDS = 5.0


@dataclass(frozen=True)
class Plan:
    """How hard it blows. The seed decides users, events and how long workers live; what a death hits is up to the machine."""

    kills: int
    users: int
    workers: int
    seed: int
    mean_life_seconds: float = 1.8
    concurrency: int = 12
    open_events: int = 50

    def settings(self) -> dict[str, str]:
        """The workers' settings.

        A claim over an expired lease counts as a failure, since nobody can tell a kill from a poison run; a newly recorded answer
        clears it. A run may be hit before its next answer many times over, and here no run is poison.
        """
        return {
            "FULL_PASS_LEASE_SECONDS": str(LEASE_SECONDS),
            "FULL_PASS_RUN_CONCURRENCY": str(self.concurrency),
            "FULL_PASS_MAX_FAILURES": "50",
            "FULL_PASS_FACTS_TOKENS_PER_CALL": "1",  # more calls that a kill may fall into
            "FULL_PASS_POLL_SECONDS": "",  # the default
        }


@dataclass(frozen=True)
class Ask:
    """A call of the model API: which request, about which export, when."""

    digest: str
    word: str
    at: float


@dataclass
class Storm:
    """What happened, for the verdict."""

    plan: Plan
    lives: list[Life] = field(default_factory=list)
    published: dict[tuple[str, str], str] = field(default_factory=dict)
    """The word of each (user, idempotency key)."""
    deliveries: int = 0
    kills: int = 0
    states: set[tuple[str, ...]] = field(default_factory=set)
    """The words of the five sections and the soulprint, as a reader saw them who looked all the time."""
    asks: list[Ask] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)
    profiles: list[dict[str, Any]] = field(default_factory=list)
    unpublished: int = 0
    seconds: float = 0.0


class Publisher:
    """The upstream services: users with profile rows, and completion events with exports of their own."""

    def __init__(self, world: World, plan: Plan, storm: Storm, chance: random.Random) -> None:
        self._world, self._plan, self._storm, self._chance = world, plan, storm, chance
        users = [world.a_user() for _ in range(plan.users)]
        self._next = itertools.chain.from_iterable(chance.sample(users, len(users)) for _ in itertools.count())
        self._at = datetime(2026, 11, 20, tzinfo=UTC)

    def publish(self, count: int) -> None:
        """So many events, of each user in turn, some of them twice, in random order."""
        records: list[Any] = []
        for _ in range(count):
            user = self._an_event_of(next(self._next))
            times = 2 if self._chance.random() < _TWICE else 1
            records += [(user.id.encode(), json.dumps(user.event).encode(), [])] * times
        self._chance.shuffle(records)
        self._world.produce(records)
        self._storm.deliveries += len(records)

    def _an_event_of(self, somebody: User) -> User:
        word = "craft" + "".join(self._chance.choices(string.ascii_lowercase, k=14))
        self._at += timedelta(seconds=1)
        completed_at = self._at.isoformat(timespec="microseconds").replace("+00:00", "Z")
        user = User(somebody.id, f"exports/{somebody.id}/{word}.json", completed_at)
        self._world.store(user.path, export_about(word))
        self._storm.published[user.id, derived_key(user.id, user.path, completed_at)] = word
        return user

    def open(self) -> int:
        """How many events have no end yet."""
        ((row),) = self._world.rows("SELECT count(*) AS ended FROM full_pass_runs WHERE finished_at IS NOT NULL")
        return len(self._storm.published) - int(row["ended"])


def export_about(word: str) -> list[dict[str, Any]]:
    """Two conversations with something for each of the five sections, the word in all of it."""
    asking = (
        f"Can you help me write about {word}? I love {word}.",
        "Gladly.",
        f"Always explain {word} in detail, please.",
        "Yes.",
    )
    telling = (f"I decided to learn {word} because {word} matters to me.", "Good.", f"Never joke about {word}.", "Noted.")
    return [
        conversation(f"Questions about {word}", *asking, at="2026-09-12T07:15:00+00:00"),
        conversation(f"Plans with {word}", *telling, at="2026-03-05T18:30:00+00:00"),
    ]


def blow(world: World, plan: Plan, say: Any = print) -> Storm:
    """Kill workers at random moments while events come in; then let all of it come to its end."""
    chance, storm, began = random.Random(plan.seed), Storm(plan), time.monotonic()
    world.settings.update(plan.settings())
    publisher, asked = Publisher(world, plan, storm, chance), AskedSoFar(world, storm)
    workers = [Doomed(world.worker(), plan, chance) for _ in range(plan.workers)]
    publisher.publish(plan.open_events)
    with _reading(world, storm):
        while storm.kills < plan.kills:
            if (missing := plan.open_events - publisher.open()) > plan.open_events / 4:
                publisher.publish(missing)
            asked.look()
            time.sleep(_LOOK_SECONDS)
            for number, doomed in enumerate(workers):
                if doomed.is_due():
                    storm.lives.append(_killed(doomed.worker))
                    workers[number] = Doomed(world.worker(), plan, chance)
                    storm.kills += 1
                    if storm.kills % 50 == 0:
                        say(f"{storm.kills} kills, {len(storm.published)} events, {publisher.open()} of them open")
        until(lambda: publisher.open() == 0 and _outbox_is_empty(world), 300, "every event had come to its end")
    storm.lives += [_killed(doomed.worker) for doomed in workers]
    asked.look(now=True)
    storm.seen = world.read(*OUTPUTS)
    storm.runs = world.rows("SELECT * FROM full_pass_runs")
    storm.profiles = world.rows("SELECT * FROM user_profiles")
    storm.unpublished = len(world.rows("SELECT FROM full_pass_outbox WHERE published_at IS NULL"))
    storm.seconds = time.monotonic() - began
    return storm


def _outbox_is_empty(world: World) -> bool:
    return not world.rows("SELECT FROM full_pass_outbox WHERE published_at IS NULL")


class Doomed:
    """A worker whose end is drawn when it is started: so long after it was up, or, now and then, before that."""

    def __init__(self, worker: Worker, plan: Plan, chance: random.Random) -> None:
        self.worker = worker
        self._stillborn = chance.random() < _STILLBORN
        self._life_seconds = chance.expovariate(1 / plan.mean_life_seconds)
        self._since = time.monotonic() if self._stillborn else 0.0

    def is_due(self) -> bool:
        """Whether its time has come."""
        if not self._since and self.worker.events("worker_started"):
            self._since = time.monotonic()
        return bool(self._since) and time.monotonic() >= self._since + self._life_seconds


def _killed(worker: Worker) -> Life:
    assert worker.alive, worker.log.read_text()[-2000:]
    died_at = time.time()
    worker.kill()
    return life_of(worker, died_at)


class AskedSoFar:
    """Fetches the stand-in's record piece by piece, and keeps of each request only what the verdict needs."""

    def __init__(self, world: World, storm: Storm) -> None:
        self._control, self._storm = StandInControl(world.stand_in_url), storm
        before = asyncio.run(self._control.requests())  # those of crash points, which have words of their own
        self._last, self._looked_at = max((request["number"] for request in before), default=0), -float("inf")

    def look(self, *, now: bool = False) -> None:
        """Fetch what is new, if it is time."""
        if not now and time.monotonic() - self._looked_at < _ASK_SECONDS:
            return
        self._looked_at = time.monotonic()
        requests = asyncio.run(self._control.requests(after=self._last))
        self._last = max((request["number"] for request in requests), default=self._last)
        for request in requests:
            if request["path"] == "/v1/messages" and (word := WORD.search(user_text(request))):
                at = datetime.fromisoformat(request["at"]).timestamp()
                self._storm.asks.append(Ask(digest(request), word.group(0), at))


@contextmanager
def _reading(world: World, storm: Storm) -> Iterator[None]:
    """A reader of all profiles beside the block."""
    leaving = threading.Event()

    async def look() -> None:
        connection = await asyncpg.connect(world.database_url)
        question = f"SELECT {', '.join(COLUMNS)} FROM user_profiles WHERE soulprint_text IS NOT NULL"
        try:
            while not leaving.is_set():
                for row in await connection.fetch(question):
                    storm.states.add(tuple(words_of(row[name]) for name in COLUMNS))
                await asyncio.sleep(0.1)
        finally:
            await connection.close()

    thread = threading.Thread(target=lambda: asyncio.run(look()))
    thread.start()
    try:
        yield
    finally:
        leaving.set()
        thread.join(10)


def words_of(text: str) -> str:
    """The words of the exports that a text was made of; one, if all is well."""
    return " ".join(sorted(Counter(found.lower() for found in WORD.findall(text))))
