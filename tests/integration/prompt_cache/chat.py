"""A chat service that has copied the example: its cache on a real Redis, and real rows."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
from redis.asyncio import Redis

from examples.prompt_cache import Prompt, PromptCache
from sandbox.redis import RedisServer

_LOOK_AGAIN_SECONDS = 0.02


class Rows:
    """asyncpg's pool, where a test can let something happen after a row was read and before who asked goes on."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self.meanwhile: list[Callable[[], Awaitable[Any]]] = []
        self.asked: list[str] = []

    async def fetchrow(self, question: str, *values: Any) -> Any:
        return await self._then(question, await self._pool.fetchrow(question, *values))

    async def fetchval(self, question: str, *values: Any) -> Any:
        return await self._then(question, await self._pool.fetchval(question, *values))

    async def _then(self, question: str, answer: Any) -> Any:
        self.asked.append(question)
        if self.meanwhile:
            await self.meanwhile.pop(0)()
        return answer


@dataclass(frozen=True)
class Chat:
    """The parts, and what a test does with them."""

    redis: Redis
    pool: asyncpg.Pool
    rows: Rows
    cache: PromptCache

    async def commit(self, user_id: uuid.UUID, version: int, memory: str | None = None) -> None:
        """What the full pass commits before it announces the version."""
        await self.pool.execute(
            "INSERT INTO user_profiles (user_id, profile_version, memory_md) VALUES ($1, $2, $3) "
            "ON CONFLICT (user_id) DO UPDATE SET profile_version = $2, memory_md = $3",
            user_id, version, memory or f"memory of version {version}",
        )  # fmt: skip

    async def commit_and_announce(self, user_id: uuid.UUID, version: int) -> None:
        await self.commit(user_id, version)
        await self.cache.announce({user_id: version})

    async def prompt(self, user_id: uuid.UUID) -> Prompt:
        """The user's prompt, which there is."""
        found = await self.cache.prompt_for(user_id)
        assert found is not None
        return found

    async def served(self, user_id: uuid.UUID) -> tuple[int, bool]:
        """Version of the prompt, and whether it came from the cache."""
        found = await self.prompt(user_id)
        return found.version, found.cached

    async def cached(self, user_id: uuid.UUID) -> None:
        """Have the user's prompt cached."""
        await self.prompt(user_id)
        assert (await self.prompt(user_id)).cached


@asynccontextmanager
async def a_chat(server: RedisServer, profiles_url: str, *, trust_seconds: float = 60, **options: Any) -> AsyncIterator[Chat]:
    """A chat service with an empty cache."""
    async with (
        Redis.from_url(server.url, decode_responses=True, retry=None, **options) as redis,
        asyncpg.create_pool(profiles_url, min_size=0, max_size=4) as pool,
    ):
        await redis.flushall()
        rows: Any = Rows(pool)
        yield Chat(redis, pool, rows, PromptCache(redis, rows, trust_seconds))


async def until(condition: Callable[[], Awaitable[Any]], what: str, seconds: float = 40) -> Any:
    """Wait until the condition gives something true, with a deadline, and return that."""
    try:
        async with asyncio.timeout(seconds):
            while not (met := await condition()):
                await asyncio.sleep(_LOOK_AGAIN_SECONDS)
    except TimeoutError:
        raise AssertionError(f"waited {seconds:.0f} s in vain until {what}") from None
    return met
