"""One worker killed at one point, another one that finishes, and what is wrong afterwards."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from tests.acceptance.reference import SECTION_FIELDS, soulprint
from tests.acceptance.topics import LETTERS, OUTPUTS, Seen, Sent
from tests.acceptance.worker import until
from tests.acceptance.world import User, World
from tests.chaos.calls import Calls, calls_of
from tests.chaos.killer import HOST, Killer, Moment, Point, before_kafka, before_postgres
from tests.chaos.stories import COMPLETED, Story, export_of, let_the_model_answer, says

BROKEN = b"no JSON"
_LOOK = "SELECT soul_md, identity_md, user_md, agents_md, tools_md, soulprint_text FROM user_profiles WHERE user_id = $1"
_LOOK_SECONDS = 0.02
_PATIENCE_SECONDS = 90  # many crashes go on side by side


@dataclass(frozen=True)
class Crash:
    """Everything that is there after a worker was killed at the point and another one has finished.

    `states`: what a reader who looked all the time found in the five sections and the soulprint. `in_flight`: the calls that had
    been asked and not recorded when the worker was dead.
    """

    story: Story
    point: Point | None
    steps: list[str]
    runs: list[dict[str, Any]]
    profile: dict[str, Any]
    chunks: list[str]
    events: list[Seen]
    letters: list[Seen]
    states: set[tuple[str, ...]]
    in_flight: int
    calls: Calls

    def wrong_events(self) -> list[str]:
        """Guarantees G1, G2 and G5: one run, one end, each event once and in order."""
        (run, *others) = self.runs
        expected = list(self.story.events)
        names = [name for name in OUTPUTS for seen in self.events if seen.topic.endswith(name)]
        versions = [seen.data["profile_version"] for seen in self.events]
        completed = self.story is COMPLETED
        found = {
            f"{len(others)} runs too many": bool(others),
            f"the run is {run['status']} ({run['error_code']})": run["status"] != self.story.name,
            f"a reader sees {names}": names != expected,
            f"ids come twice: {names}": len({seen.headers["ce_id"] for seen in self.events}) != len(self.events),
            f"versions {versions}": versions != ([1, 2] if completed else [0]),
            f"the dead letter is there {len(self.letters)} times": not 1 <= len(self.letters) <= self._most_letters(),
            "the dead letter is another one": {letter.value for letter in self.letters} != {BROKEN},
            f"failures: {run['failures']}": run["failures"] > 1,
        }
        return [what for what, wrong in found.items() if wrong]

    def _most_letters(self) -> int:
        """Dead letters come at least once: twice, where they were written and the offset behind them was not committed."""
        again = {("dead letter", Moment.AFTER), ("offset commit", Moment.BEFORE)}
        return 2 if self.point is not None and (self.point.step, self.point.moment) in again else 1

    def wrong_profile(self) -> list[str]:
        """Guarantees G3 and G4: sections and soulprint of one run, at every moment; MEMORY before them."""
        found = [f"a reader saw {state}" for state in self.states if len(set(state[:5])) > 1 or state[5] != state[0]]
        if self.story is not COMPLETED:
            untouched = says(self.profile["soulprint_text"]) == "as it was" and self.profile["memory_md"] is None
            return found if untouched else [*found, "the failed run changed the profile"]
        if says(self.profile["soul_md"]) == "as it was":
            return [*found, "no sections were saved"]
        memory, completed = (seen.data for seen in self.events) if len(self.events) == 2 else ({}, {})
        sections = {name: json.loads(self.profile[f"{name}_md"]) for name in SECTION_FIELDS}
        wrong = {
            f"the chunks are of {self.chunks}": len(set(self.chunks)) != 3 or len(self.chunks) != 3,
            "the soulprint is not made of these sections and this MEMORY": self.profile["soulprint_text"]
            != soulprint(sections, self.profile["memory_md"]),
            f"profile_version {self.profile['profile_version']}": self.profile["profile_version"] != 2,
            f"status {self.profile['full_pass_status']}": self.profile["full_pass_status"] != "complete",
            "MEMORY is another than was announced": memory.get("memory_sha256") != sha256_of(self.profile["memory_md"]),
            "the soulprint is another than was announced": completed.get("soulprint_sha256")
            != sha256_of(self.profile["soulprint_text"]),
            "MEMORY was announced after the sections": memory.get("saved_at", "") >= completed.get("completed_at", ""),
        }
        return found + [what for what, is_so in wrong.items() if is_so]

    def wrong_calls(self) -> list[str]:
        """Guarantee G8: bought again is at most what was in flight, and the run's bill counts every answer once."""
        (run, *_) = self.runs
        found = {
            f"{self.calls.asked_again} calls were bought again, {self.in_flight} were in flight": self.calls.asked_again
            > self.in_flight,
            f"{run['model_calls']} answers were recorded of {self.calls.different} requests": run["model_calls"]
            != self.calls.different,
        }
        return [what for what, is_so in found.items() if is_so]

    def wrong(self) -> list[str]:
        """Everything that is wrong."""
        return [*self.wrong_events(), *self.wrong_profile(), *self.wrong_calls()]


def sha256_of(text: str) -> str:
    """Of the UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def crash(world: World, story: Story, point: Point | None) -> Crash:
    """Kill a worker at the point (None: let it go on to the end), start another, and look at what they leave."""
    word = "craft" + os.urandom(8).hex().translate(str.maketrans("0123456789", "ghijklmnop"))
    world.settings.update(story.settings)
    world.store("exports/somebody.json", export_of("else"))  # a store in which nothing lies is an operator's trouble
    user = world.a_user(export_of(word) if story.with_export else None)
    let_the_model_answer(world, word)
    event: Sent = (user.id.encode(), json.dumps(user.event).encode(), [])
    world.produce([event, (user.id.encode(), BROKEN, []), event])

    def kill() -> None:
        world.workers[0].process.kill()

    killer = Killer(point, kill, marker=user.id.encode())
    with _watched(world, user, killer) as (variables, states):
        worker = world.worker(**variables)
        if point is None:
            world.until_ended(user, seconds=_PATIENCE_SECONDS)
            until(lambda: "offset commit" in killer.seen, what="the first worker had committed its offsets")
        else:
            what = f"a worker was killed {point}"
            until(lambda: killer.struck.is_set() or not worker.alive, _PATIENCE_SECONDS, what)
            worker.process.wait(10)
            assert killer.struck.is_set(), worker.log.read_text()[-2000:]
        before = calls_of(world, word)
        recorded = len(world.rows("SELECT FROM full_pass_model_calls WHERE user_id = $1", user.uuid))
        with world.worker():
            world.until_ended(user, seconds=_PATIENCE_SECONDS)
            until(lambda: world.read(LETTERS), _PATIENCE_SECONDS, "the dead letter was written")
    return Crash(
        story=story,
        point=point,
        steps=killer.order,
        runs=world.runs(user),
        profile=world.profile(user),
        chunks=[chunk["conversation_id"] for chunk in world.chunks(user)],
        events=[seen for seen in world.read(*OUTPUTS) if seen.data["user_id"] == user.id],
        letters=world.read(LETTERS),
        states=states,
        in_flight=before.asked - recorded,
        calls=calls_of(world, word),
    )


@contextmanager
def _watched(world: World, user: User, killer: Killer) -> Iterator[tuple[dict[str, str], set[tuple[str, ...]]]]:
    """The proxies, and a reader of the profile who looks all the time, on an event loop of their own.

    Gives the variables that lead a worker through the proxies, and what the reader saw.
    """
    states: set[tuple[str, ...]] = set()
    ready: Future[Any] = Future()
    leaving = threading.Event()

    async def watch() -> None:
        async with _on_the_way(world, killer) as variables:
            ready.set_result(variables)
            connection = await asyncpg.connect(world.database_url)
            while not leaving.is_set():
                for row in await connection.fetch(_LOOK, user.uuid):
                    states.add(tuple(says(text) for text in row.values()))
                await asyncio.sleep(_LOOK_SECONDS)
            await connection.close()

    with ThreadPoolExecutor(1) as pool:
        watching: Future[Any] = pool.submit(lambda: asyncio.run(watch()))
        try:
            wait([ready, watching], timeout=20, return_when=FIRST_COMPLETED)
            if watching.done():
                watching.result()  # raises
            yield ready.result(0), states
        finally:
            leaving.set()
        watching.result(20)


@asynccontextmanager
async def _on_the_way(world: World, killer: Killer) -> AsyncIterator[dict[str, str]]:
    """Proxies to a world's servers."""
    parts = urlsplit(world.database_url)
    kafka_port = int(world.bootstrap_servers.rpartition(":")[2])
    async with before_postgres(parts.port or 0, killer) as postgres, before_kafka(kafka_port, killer) as kafka:
        netloc = f"{parts.netloc.rpartition('@')[0]}@{HOST}:{postgres}"
        yield {"DATABASE_URL": urlunsplit(parts._replace(netloc=netloc)), "KAFKA_BOOTSTRAP_SERVERS": f"{HOST}:{kafka}"}
