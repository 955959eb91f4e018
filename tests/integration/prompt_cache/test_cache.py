"""What the chat service is served, whatever happens between Redis, the row and the announcements."""

from __future__ import annotations

import asyncio
import uuid
from functools import partial

import pytest

from examples.prompt_cache import GENERATION_KEY, RECORD_SECONDS
from sandbox.redis import RedisServer
from tests.integration.prompt_cache.chat import Chat, a_chat


def test_a_prompt_is_built_once_and_served_from_the_cache_until_a_newer_version_is_announced(
    redis_server: RedisServer, profiles_url: str
) -> None:
    async def story() -> None:
        user = uuid.uuid4()
        async with a_chat(redis_server, profiles_url) as chat:
            await chat.commit(user, 1)
            assert await chat.served(user) == (1, False)
            assert await chat.served(user) == (1, True)
            await chat.commit(user, 2)
            assert await chat.cache.announce({user: 2}) == [user]
            found = await chat.prompt(user)
            assert (found.version, found.cached, found.text) == (2, False, "# Memory\nmemory of version 2")
            assert await chat.served(user) == (2, True)

    asyncio.run(story())


def test_what_is_announced_again_or_late_drops_nothing(redis_server: RedisServer, profiles_url: str) -> None:
    """`v2-completed` may arrive before the `memory-saved` of its run, and a replayed topic says everything once more."""

    async def story() -> None:
        user = uuid.uuid4()
        async with a_chat(redis_server, profiles_url) as chat:
            await chat.commit_and_announce(user, 2)
            await chat.cached(user)
            for version in (1, 2, 1, 2):
                assert await chat.cache.announce({user: version}) == []
                assert await chat.served(user) == (2, True)

    asyncio.run(story())


@pytest.mark.parametrize("late", [None, 1])
def test_a_prompt_is_not_stored_when_a_newer_version_was_announced_while_it_was_built(
    redis_server: RedisServer, profiles_url: str, late: int | None
) -> None:
    """Read the row, build, store: an event in between has nothing to drop yet. Nor does a late one make it forgotten."""

    async def story() -> None:
        user = uuid.uuid4()
        async with a_chat(redis_server, profiles_url) as chat:
            await chat.commit(user, 1)

            async def announced() -> None:
                await chat.commit_and_announce(user, 2)
                if late is not None:
                    await chat.cache.announce({user: late})

            chat.rows.meanwhile.append(announced)
            assert await chat.served(user) == (2, False)
            assert await chat.served(user) == (2, True)

    asyncio.run(story())


def test_a_slow_builder_does_not_replace_what_a_quick_one_has_stored_since(redis_server: RedisServer, profiles_url: str) -> None:
    async def story() -> None:
        user = uuid.uuid4()
        async with a_chat(redis_server, profiles_url) as chat:
            await chat.commit(user, 1)

            async def overtaken() -> None:
                await chat.commit(user, 2)  # whose event is still under way
                assert await chat.served(user) == (2, False)

            chat.rows.meanwhile.append(overtaken)
            assert await chat.served(user) == (2, True)

    asyncio.run(story())


async def everything_is_dropped(chat: Chat, user: uuid.UUID) -> None:
    await chat.cache.drop_everything()


async def the_record_is_evicted(chat: Chat, user: uuid.UUID) -> None:
    """Somebody whose row can't be read makes it anew, without a prompt and without what was announced."""
    assert await chat.redis.delete(f"prompt:{user}")
    chat.rows.meanwhile.append(postgresql_goes_away)
    with pytest.raises(ConnectionResetError):
        await chat.prompt(user)


async def postgresql_goes_away() -> None:
    raise ConnectionResetError


async def redis_comes_back_empty(chat: Chat, user: uuid.UUID) -> None:
    await chat.redis.flushall()
    await chat.redis.set(GENERATION_KEY, "another")


@pytest.mark.parametrize("loss", [everything_is_dropped, the_record_is_evicted, redis_comes_back_empty])
def test_a_builder_stores_nothing_when_an_announcement_may_have_been_lost_meanwhile(
    redis_server: RedisServer, profiles_url: str, loss: object
) -> None:
    """Version 2 is announced while 1 is being built; then Redis loses what it was told."""

    async def story() -> None:
        user = uuid.uuid4()
        async with a_chat(redis_server, profiles_url) as chat:
            await chat.commit(user, 1)

            async def announced_and_lost() -> None:
                await chat.commit_and_announce(user, 2)
                await loss(chat, user)  # type: ignore[operator]

            chat.rows.meanwhile.append(announced_and_lost)
            assert (await chat.prompt(user)).version == 2
            assert await chat.served(user) == (2, True)

    asyncio.run(story())


def test_dropping_everything_drops_what_every_user_had(redis_server: RedisServer, profiles_url: str) -> None:
    async def story() -> None:
        users = [uuid.uuid4() for _ in range(3)]
        async with a_chat(redis_server, profiles_url) as chat:
            for user in users:
                await chat.commit(user, 1)
                await chat.cached(user)
                await chat.commit(user, 2)  # announced while nobody listened
            await chat.cache.drop_everything()
            assert [await chat.served(user) for user in users] == [(2, False)] * 3

    asyncio.run(story())


def test_a_change_whose_event_never_came_is_found_when_the_trust_ends(redis_server: RedisServer, profiles_url: str) -> None:
    """The topic has expired, or nobody reads it: then the row's version decides."""

    async def story() -> None:
        user = uuid.uuid4()
        async with a_chat(redis_server, profiles_url) as trusting, a_chat(redis_server, profiles_url, trust_seconds=0) as chat:
            await chat.commit(user, 1)
            await chat.cached(user)
            chat.rows.asked.clear()
            assert await chat.served(user) == (1, True)
            (asked,) = chat.rows.asked
            assert asked.startswith("SELECT profile_version FROM")  # one number, not the profile
            await chat.commit(user, 2)
            assert await trusting.served(user) == (1, True)
            assert trusting.rows.asked == []
            assert await chat.served(user) == (2, False)

    asyncio.run(story())


def test_a_prompt_that_was_compared_is_trusted_anew(redis_server: RedisServer, profiles_url: str) -> None:
    async def story() -> None:
        user = uuid.uuid4()
        async with a_chat(redis_server, profiles_url) as chat:
            await chat.commit(user, 1)
            await chat.cached(user)
            await chat.redis.hset(f"prompt:{user}", "compared_at", 0)  # long ago
            chat.rows.asked.clear()
            assert [await chat.served(user) for _ in range(3)] == [(1, True)] * 3
            assert len(chat.rows.asked) == 1

    asyncio.run(story())


def test_an_announcement_while_versions_are_compared_counts(redis_server: RedisServer, profiles_url: str) -> None:
    async def story() -> None:
        user = uuid.uuid4()
        async with a_chat(redis_server, profiles_url, trust_seconds=0) as chat:
            await chat.commit(user, 1)
            await chat.cached(user)
            chat.rows.meanwhile.append(partial(chat.commit_and_announce, user, 2))
            assert await chat.served(user) == (2, False)

    asyncio.run(story())


def test_a_user_without_a_profile_has_no_prompt_and_nothing_stays_in_redis(redis_server: RedisServer, profiles_url: str) -> None:
    async def story() -> None:
        user = uuid.uuid4()
        async with a_chat(redis_server, profiles_url, trust_seconds=0) as chat:
            assert await chat.cache.prompt_for(user) is None
            await chat.commit(user, 1, "a secret")
            await chat.cached(user)
            await chat.pool.execute("DELETE FROM user_profiles WHERE user_id = $1", user)
            assert await chat.cache.prompt_for(user) is None
            assert await chat.redis.keys("prompt:*") == []

    asyncio.run(story())


def test_a_forgotten_user_is_served_nothing_of_before(redis_server: RedisServer, profiles_url: str) -> None:
    """`users forget --profile` empties the columns and raises the version, without an event."""

    async def story() -> None:
        user = uuid.uuid4()
        async with a_chat(redis_server, profiles_url) as chat:
            await chat.commit(user, 4, "a secret")
            await chat.cached(user)
            await chat.pool.execute("UPDATE user_profiles SET profile_version = 5, memory_md = NULL WHERE user_id = $1", user)
            await chat.cache.forget([user])
            found = await chat.prompt(user)
            assert (found.version, found.text) == (5, "")

    asyncio.run(story())


def test_a_row_made_anew_with_a_lower_version_is_served_as_it_is(
    redis_server: RedisServer, profiles_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The row is the truth. Its prompt is not kept while the record remembers the higher version, which a log line explains."""

    async def story() -> None:
        user = uuid.uuid4()
        async with a_chat(redis_server, profiles_url) as chat:
            await chat.commit(user, 7)
            await chat.cached(user)
            await chat.pool.execute("DELETE FROM user_profiles WHERE user_id = $1", user)
            await chat.commit(user, 0)
            await chat.cache.announce({user: 8})
            assert [await chat.served(user) for _ in range(2)] == [(0, False)] * 2

    asyncio.run(story())
    assert "older than what was announced" in caplog.text


def test_a_record_ends_by_itself_and_announcements_of_others_leave_none(redis_server: RedisServer, profiles_url: str) -> None:
    """Prompts are personal data: none stays in Redis for longer than it is used. And a replayed topic fills no memory."""

    async def story() -> None:
        user, others = uuid.uuid4(), [uuid.uuid4() for _ in range(100)]
        async with a_chat(redis_server, profiles_url) as chat:
            await chat.commit(user, 1)
            await chat.cached(user)
            assert 0 < await chat.redis.ttl(f"prompt:{user}") <= RECORD_SECONDS
            await chat.cache.announce(dict.fromkeys(others, 3))
            assert await chat.redis.keys("prompt:*") == [f"prompt:{user}"]

    asyncio.run(story())


def test_without_redis_prompts_come_from_the_row_and_none_is_stale_when_it_is_back(
    own_redis: RedisServer, profiles_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        user = uuid.uuid4()
        async with a_chat(own_redis, profiles_url, socket_timeout=0.7) as chat:
            await chat.commit(user, 1)
            await chat.cached(user)
            own_redis.freeze()
            assert await chat.served(user) == (1, False)
            own_redis.thaw()
            own_redis.kill()
            await chat.commit(user, 2)  # its announcement finds no Redis
            assert await chat.served(user) == (2, False)
            own_redis.start()
            assert await chat.served(user) == (2, False)
            assert await chat.served(user) == (2, True)
            chat.rows.meanwhile.append(lambda: asyncio.to_thread(own_redis.kill))
            await chat.cache.forget([user])
            assert await chat.served(user) == (2, False)  # it went away before the prompt was stored

    asyncio.run(story())
    assert "without Redis" in caplog.text
    assert "memory of version" not in caplog.text
