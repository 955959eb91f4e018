"""A `conversation_chunks` of the application's own, with what it may ask of its rows."""

from __future__ import annotations

import asyncio

import pytest

from consumer.errors import CommandError, PassingFailure
from consumer.postgres.database import Database
from consumer.postgres.migrating import upgrade
from sandbox.postgres import PostgresServer
from tests.integration.postgres_world import World, a_world
from tests.integration.test_records import chunk, contents

REFUSED = {
    "a column that must be filled": ("embedding text NOT NULL", "embedding, which .* default"),
    "one row a conversation": ("conversation_id text UNIQUE", r"conversation_id\), in which"),
    "one row a user and text": ("UNIQUE (user_id, content)", r"user_id, content\), in which"),
    "no chunk of another user": ("conversation_id text, chunk_index int, UNIQUE (conversation_id, chunk_index)", "let it hold"),
    "a constant beside": ("version int DEFAULT 1, conversation_id text, UNIQUE (conversation_id, version)", "in which"),
}
TAKEN = {
    "a sequence": "id bigserial PRIMARY KEY",
    "an identity": "id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
    "a random key": "id uuid PRIMARY KEY DEFAULT gen_random_uuid()",
    "a key of another's": "theirs text UNIQUE",
    "a filled column": "theirs text NOT NULL DEFAULT '', made_at timestamptz NOT NULL DEFAULT now()",
    "a generated one": "length int GENERATED ALWAYS AS (length(content)) STORED NOT NULL",
    "the key of a chunk": "conversation_id text, chunk_index int, UNIQUE (user_id, conversation_id, chunk_index)",
}


def migrate(server: PostgresServer, database: str, columns: str) -> None:
    server.run_sql(f"CREATE TABLE conversation_chunks (user_id uuid NOT NULL, content text NOT NULL, {columns})", database)

    async def main() -> None:
        found = Database(server.url(database))
        try:
            await upgrade(found)
        finally:
            await found.close()

    asyncio.run(main())


@pytest.mark.parametrize("what", REFUSED)
def test_a_table_that_asks_for_more_than_our_rows_have_is_refused_in_words(
    postgres: PostgresServer, database: str, what: str
) -> None:
    """Or each run would end as `internal`, and the operator would have to find out why."""
    columns, words = REFUSED[what]
    with pytest.raises(CommandError, match=words):
        migrate(postgres, database, columns)
    assert postgres.run_sql("SELECT to_regclass('full_pass_runs') IS NULL", database) == "t"


@pytest.mark.parametrize("what", TAKEN)
def test_a_table_with_columns_and_keys_that_take_care_of_themselves_keeps_our_chunks(
    postgres: PostgresServer, database: str, what: str
) -> None:
    migrate(postgres, database, TAKEN[what])

    async def main() -> None:
        async with a_world(postgres.url(database)) as world:
            for claim in (await world.started(), await world.started()):
                await world.chunks.replace(claim, [[chunk(index=0), chunk(index=1)]])
                await world.chunks.replace(claim, [[chunk(index=0), chunk(index=1)]])
                assert len(await contents(world, claim)) == 2

    asyncio.run(main())


@pytest.mark.guarantee("G9")
def test_a_constraint_that_refuses_a_chunk_is_named_and_the_chunk_is_not(database_url: str) -> None:
    async def work(world: World) -> None:
        claim = await world.started()
        await world.chunks.replace(claim, [[chunk(content="old")]])
        await world.sql("ALTER TABLE conversation_chunks ADD CONSTRAINT theirs UNIQUE (user_id, conversation_id, chunk_index)")
        with pytest.raises(PassingFailure, match="constraint theirs, SQLSTATE 23505") as caught:
            await world.chunks.replace(claim, [[chunk(content="secret"), chunk(content="secret")]])
        assert "secret" not in str(caught.value)
        assert await contents(world, claim) == ["old"]

    async def main() -> None:
        async with a_world(database_url) as world:
            await work(world)

    asyncio.run(main())
