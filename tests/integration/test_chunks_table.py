"""`conversation_chunks`, as concurrent readers see it."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from consumer.postgres.chunks import DELETED_AT_ONCE, PAGE_CHUNKS, Chunk, Chunks
from consumer.postgres.database import Database
from tests.integration.postgres_world import FIRST, World, count_deletes, in_world

FETCHED = "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_user_tables WHERE relname = 'conversation_chunks'"


def chunk(conversation: str, content: str, *, index: int = 0, hours: int = 0, title: str = "title") -> Chunk:
    return Chunk(conversation, title, content, len(content) // 4, index, 1, 2, True, FIRST + timedelta(hours=hours))


def test_chunks_that_are_equal_in_all_that_orders_them_are_all_read(database_url: str) -> None:
    """Two conversations may have one id, one time and one text, on both sides of the end of a page."""

    async def work(world: World) -> None:
        claim = await world.started()
        made = [chunk("same", "text") for _ in range(PAGE_CHUNKS + 3)] + [chunk("same", "text", title="T")] * 3
        await world.chunks.replace(claim, [made])
        found = [each async for page in world.chunks.oldest_first(claim) for each in page]
        assert len(found) == len(made)
        assert sum(each.title == "T" for each in found) == 3

    in_world(database_url, work)


def test_reading_all_of_very_many_chunks_fetches_each_row_about_once(database_url: str) -> None:
    """A page that is found by walking through all that lie before it makes large exports take minutes, then hours."""

    async def work(world: World) -> None:
        claim = await world.started()
        made = [chunk(str(number), "text", hours=number) for number in range(40 * PAGE_CHUNKS)]
        await world.chunks.replace(claim, [made])
        await world.sql("ANALYZE conversation_chunks")
        before = await world.value(FETCHED)
        reading = Database(database_url)  # whose sessions tell the statistics of all they did when they end
        found = [each async for page in Chunks(reading).oldest_first(claim) for each in page]
        await reading.close()
        assert [each.conversation_id for each in found] == [each.conversation_id for each in made]
        assert await world.value(FETCHED) - before < 1.5 * len(made)

    in_world(database_url, work)


def test_a_reader_sees_the_old_chunks_or_the_new_ones_never_both_and_never_none(database_url: str) -> None:
    async def work(world: World) -> None:
        claim = await world.started()
        await world.chunks.replace(claim, [[chunk("old", str(number)) for number in range(7)]])
        seen: set[tuple[str, int]] = set()
        done = asyncio.Event()

        async def read() -> None:
            question = "SELECT min(conversation_id) || max(conversation_id) AS ids, count(*) AS n FROM conversation_chunks"
            while not done.is_set():
                [row] = await world.sql(question)
                seen.add((row["ids"], row["n"]))

        async with asyncio.TaskGroup() as tasks:
            for _ in range(2):
                tasks.create_task(read())
            for turn in range(20):
                name, size = ("new", 5) if turn % 2 == 0 else ("old", 7)
                batches = ([chunk(name, str(number))] for number in range(size))  # a statement each, so that readers get between
                await world.chunks.replace(claim, batches)
            done.set()
        assert seen == {("oldold", 7), ("newnew", 5)}

    in_world(database_url, work)


@pytest.mark.guarantee("G10")
def test_very_many_old_chunks_give_way_in_statements_that_stay_short(database_url: str) -> None:
    """One statement for all of them could take longer than any may, and the user would never have new ones."""

    async def work(world: World) -> None:
        claim, other = await world.started(), await world.started()
        await world.chunks.replace(other, [[chunk("theirs", "text")]])
        await world.sql(
            """INSERT INTO conversation_chunks
               SELECT :user, n::text, '', '', 1, 0, 1, 1, '', true, now() - make_interval(secs => n / 3000)
               FROM generate_series(1, :number) AS n""",
            user=claim.user_id,
            number=2 * DELETED_AT_ONCE + 1,
        )
        await count_deletes(world, "conversation_chunks")
        await world.chunks.replace(claim, [[chunk("new", "text")]])
        assert await world.value("SELECT max(rows) FROM deletes") == DELETED_AT_ONCE
        left = await world.sql("SELECT conversation_id FROM conversation_chunks ORDER BY 1")
        assert [row["conversation_id"] for row in left] == ["new", "theirs"]

    in_world(database_url, work)
