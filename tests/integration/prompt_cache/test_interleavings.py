"""The promise of the cache under random interleavings, at every step that it takes on the wire."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

from redis.asyncio import Redis

from examples.prompt_cache import GENERATION_KEY, PromptCache
from sandbox.redis import RedisServer

RUNS = 100
READS, VERSIONS, LOSSES = 8, 5, 3
"""Per user and run, at most; together fewer than the rounds that a read goes."""


class Turns:
    """Lets one task go on at a time, drawn at random, from one step to the next."""

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw
        self._waiting: list[asyncio.Future[None]] = []
        self._moved = asyncio.Event()

    async def mine(self) -> None:
        """A step begins: wait to be drawn."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._moved.set()
        await turn

    async def play(self, stories: list[Callable[[], Awaitable[Any]]], after_each: Callable[[], Awaitable[None]]) -> None:
        """Take all stories to their end."""
        async with asyncio.TaskGroup() as group:
            for story in stories:
                await self._until_it_stops(group.create_task(self._told(story)))
            while self._waiting:
                self._moved.clear()
                self._waiting.pop(self._draw.randrange(len(self._waiting))).set_result(None)
                await self._moved.wait()
                await after_each()

    async def _until_it_stops(self, task: asyncio.Task[None]) -> None:
        await self._moved.wait()
        self._moved.clear()

    async def _told(self, story: Callable[[], Awaitable[Any]]) -> None:
        try:
            await self.mine()
            await story()
        finally:
            self._moved.set()


class StepwiseRedis(Redis):
    """A client each of whose commands waits for its turn."""

    turns: Turns

    async def execute_command(self, *words: Any, **options: Any) -> Any:
        await self.turns.mine()
        return await super().execute_command(*words, **options)  # type: ignore[no-untyped-call]


class Profiles:
    """Rows in memory, each read of which is a step."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self.versions: dict[uuid.UUID, int] = defaultdict(int)

    async def fetchrow(self, _: str, user_id: uuid.UUID) -> dict[str, Any]:
        await self._turns.mine()
        names = ("memory_md", "soul_md", "identity_md", "user_md", "agents_md", "tools_md")
        version = self.versions[user_id]
        return {"profile_version": version, **dict.fromkeys(names, str(version))}

    async def fetchval(self, question: str, user_id: uuid.UUID) -> int:
        row = await self.fetchrow(question, user_id)
        version: int = row["profile_version"]
        return version


class Run:
    """One run: some users, versions committed and announced in any order and number, reads, and losses of all kinds."""

    def __init__(self, seed: int, redis: Any, plain: Redis) -> None:
        self._seed, self._draw, self._redis, self._plain = seed, random.Random(seed), redis, plain
        self._turns = redis.turns = Turns(self._draw)
        self._profiles = Profiles(self._turns)
        rows: Any = self._profiles
        self._caches = [PromptCache(redis, rows, trust_seconds) for trust_seconds in (0, 0, 3600)]
        self._announced: dict[uuid.UUID, int] = defaultdict(int)
        self._floor: dict[uuid.UUID, int] = {}
        self._users = [uuid.uuid4() for _ in range(self._draw.randint(1, 2))]
        self.served_from_cache = 0

    async def play(self) -> None:
        stories: list[Callable[[], Awaitable[Any]]] = []
        for user in self._users:
            stories += [self._reads(user) for _ in range(self._draw.randint(2, READS))]
            stories += [self._commits_and_announces(user) for _ in range(self._draw.randint(1, VERSIONS))]
        stories += [self._loses() for _ in range(self._draw.randint(0, LOSSES))]
        self._draw.shuffle(stories)
        await self._turns.play(stories, self._nothing_stale_is_kept)

    def _reads(self, user: uuid.UUID) -> Callable[[], Awaitable[None]]:
        async def read() -> None:
            for _ in range(self._draw.randint(1, 3)):
                before = self._floor.get(user, 0)
                found = await self._draw.choice(self._caches).prompt_for(user)
                assert found is not None
                assert found.version >= max(before, self._announced[user]), f"seed {self._seed}: stale"
                assert f"# Memory\n{found.version}" in found.text, f"seed {self._seed}: a mixture"
                self.served_from_cache += found.cached

        return read

    def _commits_and_announces(self, user: uuid.UUID) -> Callable[[], Awaitable[None]]:
        async def change() -> None:
            self._profiles.versions[user] += 1
            version = self._profiles.versions[user]
            for _ in range(self._draw.choice((0, 1, 2, 3))):  # lost, once, and again
                await self._turns.mine()
                await self._caches[0].announce({user: version})
                self._announced[user] = max(self._announced[user], version)

        return change

    def _loses(self) -> Callable[[], Awaitable[Any]]:
        user = self._draw.choice(self._users)
        return self._draw.choice(
            (
                self._drops_everything,
                lambda: self._redis.delete(f"prompt:{user}"),
                lambda: self._redis.delete(GENERATION_KEY),
                self._redis.flushall,
            )
        )

    async def _drops_everything(self) -> None:
        """Then what was committed before counts as announced, for whoever asks from here on."""
        await self._caches[0].drop_everything()
        self._floor = dict(self._profiles.versions)

    async def _nothing_stale_is_kept(self) -> None:
        async with self._plain.pipeline(transaction=False) as pipe:
            pipe.get(GENERATION_KEY)
            for user in self._users:
                pipe.hmget(f"prompt:{user}", ["generation", "version"])
            generation, *kept = await pipe.execute()
        for user, (kept_in, version) in zip(self._users, kept, strict=True):
            if version is not None and kept_in == generation:
                assert int(version) >= self._announced[user], f"seed {self._seed}: kept"


def test_no_interleaving_serves_or_keeps_a_prompt_older_than_the_last_announced_version(redis_server: RedisServer) -> None:
    """Whatever comes twice, late, never or in between; and whatever Redis loses meanwhile."""
    first = random.SystemRandom().randrange(10**9)
    print(f"seeds {first} to {first + RUNS - 1}")  # noqa: T201 - shown where the test fails

    async def story() -> int:
        hits = 0
        async with (
            StepwiseRedis.from_url(redis_server.url, decode_responses=True) as redis,
            Redis.from_url(redis_server.url, decode_responses=True) as plain,
        ):
            for seed in range(first, first + RUNS):
                await plain.flushdb()
                run = Run(seed, redis, plain)
                await run.play()
                hits += run.served_from_cache
        return hits

    assert asyncio.run(story()) > RUNS  # or it would be no cache
