"""A chat service that has copied `examples/prompt_cache.py`: its reader as a process, and chats that go on all the time."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self
from uuid import UUID

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from redis.asyncio import Redis

from examples.prompt_cache import TOPICS, Prompt, PromptCache
from tests.acceptance.worker import until
from tests.acceptance.world import User, World

EXAMPLE = Path(__file__).parents[2] / "examples" / "prompt_cache.py"
_ALWAYS_TRUSTED_SECONDS = 3600.0  # so that nothing but events makes a prompt fresh
_PARTITIONS = 2


class ReaderProcess:
    """`python prompt_cache.py`, a copy away from this project's folder."""

    def __init__(self, world: World, redis_url: str, log: Path) -> None:
        copy = world.folder / EXAMPLE.name
        shutil.copyfile(EXAMPLE, copy)
        self._log = log
        environment = {
            "KAFKA_BOOTSTRAP_SERVERS": world.bootstrap_servers,
            "DATABASE_URL": world.database_url,
            "REDIS_URL": redis_url,
            "FULL_PASS_TOPIC_PREFIX": world.prefix,
        }
        with log.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-I", str(copy)], cwd=world.folder, env=environment, stdout=output, stderr=output
            )

    def __enter__(self) -> Self:
        until(lambda: "reading 4 partitions" in self.said, what="the reader read")
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)

    @property
    def said(self) -> str:
        """Its log."""
        return self._log.read_text(encoding="utf-8")

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


class Chats:
    """Asks for the prompts of users all the time, in a thread, and holds each answer against what the cache had seen before.

    What it had seen: the version that Redis remembers as announced, and the versions of all events whose offsets the reader has
    committed, since it commits after the cache has taken them.
    """

    def __init__(self, world: World, redis_url: str, users: Sequence[User]) -> None:
        self._world, self._redis_url, self._users = world, redis_url, [user.uuid for user in users]
        self._places = [TopicPartition(world.prefix + topic, number) for topic in TOPICS for number in range(_PARTITIONS)]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._chat()))
        self._events: list[tuple[TopicPartition, int, UUID, int]] = []
        self.seen: dict[UUID, int] = defaultdict(int)
        self.answers: list[tuple[UUID, Prompt]] = []
        self.stale: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def until_served(self, user: User, version: int) -> None:
        """Wait until a chat has got the prompt of this version from the cache."""
        wanted = (user.uuid, version)
        until(
            lambda: any((uuid, prompt.version) == wanted and prompt.cached for uuid, prompt in list(self.answers)),
            what=f"version {version} was served from the cache",
        )

    def rewind(self) -> None:
        """Set the reader's group, which nobody is in, back to the beginning of the topics."""
        asyncio.run(self._rewind())

    async def _rewind(self) -> None:
        async with AIOKafkaConsumer(
            bootstrap_servers=self._world.bootstrap_servers, group_id=self._group, enable_auto_commit=False
        ) as consumer:
            consumer.assign(self._places)
            await consumer.commit(dict.fromkeys(self._places, 0))

    @property
    def _group(self) -> str:
        return f"{self._world.prefix}prompt-cache"

    async def _chat(self) -> None:
        servers = self._world.bootstrap_servers
        async with AsyncExitStack() as end:
            redis = await end.enter_async_context(Redis.from_url(self._redis_url, decode_responses=True))
            pool = await end.enter_async_context(asyncpg.create_pool(self._world.database_url, min_size=1, max_size=2))
            consumer = AIOKafkaConsumer(bootstrap_servers=servers, enable_auto_commit=False, isolation_level="read_committed")
            await end.enter_async_context(consumer)
            consumer.assign(self._places)
            await consumer.seek_to_beginning(*self._places)
            admin = AIOKafkaAdminClient(bootstrap_servers=servers)
            await admin.start()
            end.push_async_callback(admin.close)
            cache = PromptCache(redis, pool, _ALWAYS_TRUSTED_SECONDS)
            while not self._stop.is_set():
                await self._learn(consumer, await admin.list_consumer_group_offsets(self._group))
                for user in self._users:
                    await self._ask(cache, redis, user)

    async def _learn(self, consumer: AIOKafkaConsumer, committed: dict[TopicPartition, Any]) -> None:
        """What the group has taken by now; whatever it had taken once counts for good."""
        for place, records in (await consumer.getmany(timeout_ms=5)).items():
            for record in records:
                data = json.loads(record.value)
                self._events.append((place, record.offset, UUID(data["user_id"]), data["profile_version"]))
        for place, offset, user, version in self._events:
            if offset < committed[place].offset:
                self.seen[user] = max(self.seen[user], version)

    async def _ask(self, cache: PromptCache, redis: Redis, user: UUID) -> None:
        announced = int(await redis.hget(f"prompt:{user}", "announced") or 0)
        floor = max(self.seen[user], announced)
        prompt = await cache.prompt_for(user)
        assert prompt is not None
        if prompt.version < floor:
            self.stale.append(f"served {prompt.version} after {floor} was announced")
        self.answers.append((user, prompt))
