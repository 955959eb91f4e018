"""Cache a prompt per user in Redis, and drop it when the user's profile changes. Copy this file into the chat service.

    python prompt_cache.py             # the reader: drops what memory-saved and v2-completed make stale; run one or more
    python prompt_cache.py USER_ID     # the prompt of a user, as the chat service gets it

The environment names KAFKA_BOOTSTRAP_SERVERS, DATABASE_URL and REDIS_URL, and FULL_PASS_TOPIC_PREFIX if there is one. Needs
aiokafka, asyncpg and redis.

The promise: once the cache has taken an announcement of version n of a profile, `prompt_for` returns no prompt that is older,
and what is announced while it is at work counts too. How it is kept:

- A prompt carries the `profile_version` of the row it was built from, and the cache the highest version announced. So it
  doesn't matter in which order, from which topic and how often events come: an older one changes nothing.
- Between reading a row and storing its prompt an event may pass. A script in Redis stores nothing older than what is
  announced; and nothing at all unless the user's record is still the one that was there before the row was read. A record that
  expired, was evicted or was lost with its Redis may have lost an announcement, so its absence says no as well.
- Events can be missed: Kafka keeps them for a time only, and a reader may be down for longer. So a prompt is served for
  TRUST_SECONDS without a question; then its version is compared with the row's. And where a reader finds no position to go on
  from, it begins at the end of the topic and drops everything: what came before the end is in the rows that are read from now on.
- Redis away: prompts are built from the row, which is slower and never stale. Kafka or every reader away: a prompt may be stale
  for TRUST_SECONDS. PostgreSQL away: `prompt_for` raises, but for prompts that are still trusted. The reader tries again until
  all is back, from its committed offsets, which it commits after Redis has taken what they stand for (at least once).

Read rows from the primary: a replica may not have yet what an event announces. On Redis Cluster put a hash tag into both keys.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import CommitFailedError, KafkaError, NoOffsetForPartitionError, OffsetOutOfRangeError
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

TRUST_SECONDS = 60.0  # how long a prompt is served before its version is compared with the row's
RECORD_SECONDS = 3600  # the backstop: how long Redis keeps a user's record that nobody renews
REDIS_SECONDS = 0.5  # how long a chat waits for Redis before it does without
BACKOFF_SECONDS = (0.5, 10.0)  # first and longest pause of a reader that can't reach Kafka or Redis
ROUNDS = 10  # each one more means that the profile changed meanwhile
TOPICS = ("memory-saved", "v2-completed")  # v2-failed changes nothing that a prompt is made of
SECTIONS = {"soul_md": "Soul", "identity_md": "Identity", "user_md": "User", "agents_md": "Agents", "tools_md": "Tools"}
GENERATION_KEY = "prompt-generation"

log = logging.getLogger("prompt_cache")


@dataclass(frozen=True)
class Prompt:
    """A prompt, the version of the profile that it was built from, and whether it came from the cache."""

    version: int
    text: str
    cached: bool


@dataclass(frozen=True)
class Look:
    """What Redis has of a user. `at_ms` is its clock."""

    ticket: str
    announced: int
    prompt: Prompt | None
    trusted: bool
    at_ms: int


def prompt_of(row: Mapping[str, Any]) -> str:
    """Yours: the system prompt. A profile that is empty, as that of a forgotten user, gives an empty one."""
    parts = [f"# {title}\n{readable(row[column])}" for column, title in SECTIONS.items() if row[column]]
    # Not soulprint_text: that holds the MEMORY of its own run, and memory-saved may have brought a newer one.
    return "\n\n".join([*parts, f"# Memory\n{row['memory_md']}"] if row["memory_md"] else parts)


def readable(section: str) -> str:
    """The fields of a section, a line each, without those for which there was not enough data; other text as it is."""
    try:
        found = json.loads(section)
    except ValueError:
        return section
    if not isinstance(found, dict):
        return section
    fields = {name: "; ".join(value) if isinstance(value, list) else value for name, value in found.items()}
    return "\n".join(f"{name.replace('_', ' ')}: {text}" for name, text in fields.items() if text not in {"", "not enough data"})


class PromptCache:
    """Prompts in Redis (with `decode_responses`), built from `user_profiles`."""

    def __init__(self, redis: Redis, rows: asyncpg.Pool, trust_seconds: float = TRUST_SECONDS) -> None:
        self._redis, self._rows, self._trust_ms = redis, rows, trust_seconds * 1000
        self._look_script, self._store_script = redis.register_script(_LOOK), redis.register_script(_STORE)
        self._announce_script = redis.register_script(_ANNOUNCE)

    async def prompt_for(self, user_id: uuid.UUID) -> Prompt | None:
        """The user's prompt, None where there is no profile. Raises what asyncpg raises."""
        built = None
        for _ in range(ROUNDS):
            try:
                seen = await self._look(user_id)
                if seen.prompt and seen.trusted:
                    return seen.prompt
                if seen.prompt and seen.prompt.version == await self._version(user_id):
                    built = seen.prompt
                elif (built := await self._build(user_id)) is None:
                    await self.forget([user_id])
                    return None
                if built.version < seen.announced:
                    log.warning("the row of %s is older than what was announced; read the primary", user_id)
                    return built  # or the row was made anew: then the record ends in RECORD_SECONDS, and with it the old version
                if await self._store(user_id, seen, built):
                    return built
            except RedisError as error:
                log.warning("without Redis (%s)", type(error).__name__)
                return await self._build(user_id)
        return built

    async def announce(self, versions: Mapping[uuid.UUID, int]) -> list[uuid.UUID]:
        """Take what was announced: the versions of profiles. Returns the users whose prompts were dropped."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for user_id, version in versions.items():
                await self._announce_script(keys=[_key(user_id)], args=[version], client=pipe)
            dropped = await pipe.execute()
        return [user_id for user_id, one in zip(versions, dropped, strict=True) if one]

    async def forget(self, user_ids: Iterable[uuid.UUID]) -> None:
        """Remove whatever is kept of these users. Always safe: who is about to store finds their ticket gone."""
        if keys := [_key(user_id) for user_id in user_ids]:
            await self._redis.unlink(*keys)

    async def drop_everything(self) -> None:
        """Drop all prompts at once. Records of another generation count for nothing, and expire."""
        await self._redis.set(GENERATION_KEY, uuid.uuid4().hex)

    async def _look(self, user_id: uuid.UUID) -> Look:
        keys, fresh_ticket = [_key(user_id), GENERATION_KEY], uuid.uuid4().hex
        found = await self._look_script(keys=keys, args=[fresh_ticket, RECORD_SECONDS])
        ticket, announced, version, text, compared_at, now = found
        prompt = Prompt(int(version), text, cached=True) if version else None
        return Look(ticket, int(announced), prompt, bool(prompt) and now - int(compared_at) < self._trust_ms, now)

    async def _store(self, user_id: uuid.UUID, seen: Look, built: Prompt) -> bool:
        arguments: list[str | int] = [seen.ticket, built.version, built.text, seen.at_ms, RECORD_SECONDS]
        return bool(await self._store_script([_key(user_id)], arguments))

    async def _version(self, user_id: uuid.UUID) -> int | None:
        version: int | None = await self._rows.fetchval("SELECT profile_version FROM user_profiles WHERE user_id = $1", user_id)
        return version

    async def _build(self, user_id: uuid.UUID) -> Prompt | None:
        """One statement for version and content, so that they are of the same row."""
        columns = ", ".join(["profile_version", "memory_md", *SECTIONS])
        row = await self._rows.fetchrow(f"SELECT {columns} FROM user_profiles WHERE user_id = $1", user_id)
        return Prompt(row["profile_version"], prompt_of(dict(row)), cached=False) if row else None


def _key(user_id: uuid.UUID) -> str:
    return f"prompt:{user_id}"


# A record is a hash of generation, ticket and announced; and, once a prompt is stored, version, text and compared_at.
_LOOK = """
local generation = redis.call('GET', KEYS[2])
if not generation then
  generation = ARGV[1]
  redis.call('SET', KEYS[2], generation)
end
if redis.call('HGET', KEYS[1], 'generation') ~= generation then
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'generation', generation, 'ticket', ARGV[1], 'announced', 0)
  redis.call('EXPIRE', KEYS[1], ARGV[2])
end
local found = redis.call('HMGET', KEYS[1], 'ticket', 'announced', 'version', 'text', 'compared_at')
local time = redis.call('TIME')
found[6] = time[1] * 1000 + math.floor(time[2] / 1000)
return found
"""
_STORE = """
local held = redis.call('HMGET', KEYS[1], 'ticket', 'announced', 'version')
local version = tonumber(ARGV[2])
if held[1] ~= ARGV[1] or version < tonumber(held[2]) or version < tonumber(held[3] or 0) then return 0 end
redis.call('HSET', KEYS[1], 'version', ARGV[2], 'text', ARGV[3], 'compared_at', ARGV[4])
redis.call('EXPIRE', KEYS[1], ARGV[5])
return 1
"""
# Where there is no record nobody holds a valid ticket: whoever makes one reads the row afterwards, and finds what was announced.
_ANNOUNCE = """
local held = redis.call('HMGET', KEYS[1], 'announced', 'version')
if not held[1] or tonumber(ARGV[1]) <= tonumber(held[1]) then return 0 end
redis.call('HSET', KEYS[1], 'announced', ARGV[1])
if not held[2] or tonumber(ARGV[1]) <= tonumber(held[2]) then return 0 end
return redis.call('HDEL', KEYS[1], 'version', 'text', 'compared_at')
"""


class Reader:
    """Takes announcements from Kafka to the cache."""

    def __init__(self, cache: PromptCache, redis: Redis, bootstrap_servers: str, prefix: str = "") -> None:
        self._cache, self._redis, self._bootstrap_servers, self._prefix = cache, redis, bootstrap_servers, prefix

    async def run(self) -> None:
        """Read until cancelled. After any trouble it begins again where its offsets are committed."""
        shortest, longest = BACKOFF_SECONDS
        pause, loop = shortest, asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                await self._redis.ping()  # without Redis there is no use in joining the group
                await self._read()
            except (KafkaError, RedisError, OSError) as error:
                if loop.time() - began > longest:
                    pause = shortest  # it had gone well
                log.warning("%s; trying again in %.1f s", type(error).__name__, pause)
                await asyncio.sleep(pause)
                pause = min(pause * 2, longest)

    async def _read(self) -> None:
        consumer = AIOKafkaConsumer(
            *(self._prefix + topic for topic in TOPICS),
            bootstrap_servers=self._bootstrap_servers,  # yours: security_protocol, SASL, …
            group_id=f"{self._prefix}prompt-cache",
            enable_auto_commit=False,
            isolation_level="read_committed",  # what an aborted transaction holds was never said
            auto_offset_reset="none",  # a position that is missing means that events were, too
        )
        try:
            await consumer.start()
            unknown = [place for place in consumer.assignment() if await consumer.committed(place) is None]
            await self._begin_at_the_end(consumer, unknown)
            log.info("reading %d partitions", len(consumer.assignment()))
            while True:
                await self._take_some(consumer)
        finally:
            await consumer.stop()

    async def _take_some(self, consumer: AIOKafkaConsumer) -> None:
        try:
            batch = await consumer.getmany(timeout_ms=500, max_records=500)
            await self._take([record for records in batch.values() for record in records])
            if batch:
                await consumer.commit()  # its positions: what we took, and the markers of transactions behind it
        except NoOffsetForPartitionError as error:  # a partition that was added, or given to us in a rebalance
            await self._begin_at_the_end(consumer, [error.args[0]])
        except OffsetOutOfRangeError as error:  # retention removed what was not read yet, or the topic was made anew
            await self._begin_at_the_end(consumer, list(error.args[0]))
        except CommitFailedError:
            log.info("the group rebalanced; what was just taken may come again")

    async def _begin_at_the_end(self, consumer: AIOKafkaConsumer, places: list[TopicPartition]) -> None:
        """In this order: an event before the end was committed to the row before we drop, one after it is going to be read."""
        if not places:
            return
        ends = await consumer.end_offsets(places)
        await self._cache.drop_everything()
        for place, end in ends.items():
            consumer.seek(place, end)
        await consumer.commit(ends)
        log.info("no position in %d partitions: all prompts are dropped, and reading begins at the end", len(places))

    async def _take(self, records: list[Any]) -> None:
        versions: dict[uuid.UUID, int] = {}
        forgotten = []
        for record in records:
            try:
                user_id, version = announcement(record.key, record.value)
            except (ValueError, TypeError, KeyError, AttributeError):
                log.warning("not readable: %s, partition %d, offset %d", record.topic, record.partition, record.offset)
                continue
            if version is None:
                forgotten.append(user_id)
            else:
                versions[user_id] = max(version, versions.get(user_id, 0))
        await self._cache.forget(forgotten)
        for user_id in await self._cache.announce(versions):
            log.info("version %d of %s was announced: an older prompt is dropped", versions[user_id], user_id)


def announcement(key: bytes | None, value: bytes | None) -> tuple[uuid.UUID, int | None]:
    """User and version of an event; the version is None for a record without a value, which says that the user is forgotten."""
    if value is None:
        return uuid.UUID((key or b"").decode()), None
    data = json.loads(value)
    return uuid.UUID(data["user_id"]), int(data["profile_version"])


async def main(arguments: list[str]) -> None:
    """The reader, or with a user's id as argument one prompt."""
    for name in ("DATABASE_URL", "REDIS_URL", *([] if arguments else ["KAFKA_BOOTSTRAP_SERVERS"])):
        if not os.environ.get(name):
            sys.exit(f"{name} is not set")
    signals = (signal.SIGINT, signal.SIGTERM)
    for number in signals:
        asyncio.get_running_loop().add_signal_handler(number, asyncio.current_task().cancel)  # type: ignore[union-attr]
    # One try more, for connections that broke while nobody used them; a Redis that hangs is not asked twice.
    retry = Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,))
    options: dict[str, Any] = {"socket_timeout": REDIS_SECONDS, "socket_connect_timeout": REDIS_SECONDS}
    async with (
        Redis.from_url(os.environ["REDIS_URL"], retry=retry, decode_responses=True, **options) as redis,
        asyncpg.create_pool(os.environ["DATABASE_URL"], min_size=0, max_size=4) as rows,
    ):
        cache = PromptCache(redis, rows)
        if arguments:
            prompt = await cache.prompt_for(uuid.UUID(arguments[0]))
            sys.stdout.write(json.dumps(prompt and asdict(prompt), ensure_ascii=False) + "\n")
            return
        prefix = os.environ.get("FULL_PASS_TOPIC_PREFIX", "")
        await Reader(cache, redis, os.environ["KAFKA_BOOTSTRAP_SERVERS"], prefix).run()


if __name__ == "__main__":
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.INFO)
    logging.getLogger("aiokafka").setLevel(logging.WARNING)
    try:
        asyncio.run(main(sys.argv[1:]))
    except asyncio.CancelledError:
        log.info("stopped")
