"""A migrated database and the ledger's own classes on it, for tests of what happens between workers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import text

from consumer.postgres.answers import Answers
from consumer.postgres.chunks import Chunks
from consumer.postgres.database import Database
from consumer.postgres.migrating import upgrade
from consumer.postgres.outbox import Outbox
from consumer.postgres.profiles import Profiles
from consumer.postgres.runs import Claim, Ledger, NewRun

LEASE_SECONDS = 30.0
FIRST = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)
TRACE = "00-" + "1" * 32 + "-" + "2" * 16 + "-00"


class World:
    """One worker's view of the database, and questions that only a test asks."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.ledger = Ledger(database)
        self.profiles = Profiles(database)
        self.chunks = Chunks(database)
        self.answers = Answers(database)
        self.outbox = Outbox(database)

    async def sql(self, statement: str, **values: Any) -> list[dict[str, Any]]:
        """The rows, if there are any."""
        async with self.database.transaction() as transaction:
            result = await transaction.execute(text(statement), values)
            return [dict(row) for row in result.mappings()] if result.returns_rows else []

    async def value(self, statement: str, **values: Any) -> Any:
        """The one value of the one row."""
        [row] = await self.sql(statement, **values)
        [found] = row.values()
        return found

    async def user(self, **columns: Any) -> UUID:
        """A user with a profile row."""
        user_id = uuid4()
        names = ", ".join(["user_id", *columns])
        places = ", ".join([":user_id", *(f":{name}" for name in columns)])
        await self.sql(f"INSERT INTO user_profiles ({names}) VALUES ({places})", user_id=user_id, **columns)
        return user_id

    async def accept(self, user_id: UUID, key: str = "key", *, seconds: float = 0, **more: Any) -> NewRun:
        """A pending run whose event was completed so many seconds after the first."""
        run = new_run(user_id, key, seconds=seconds, **more)
        await self.ledger.accept([run])
        return run

    async def claim(self, *held: UUID, expired_count: bool = True, suspects: bool = True) -> Claim | None:
        """What a worker that holds these runs would claim."""
        return await self.ledger.claim(LEASE_SECONDS, held, expired_count=expired_count, suspects=suspects)

    async def claimed(self, *held: UUID) -> Claim:
        """The same, where there is something to claim."""
        claim = await self.claim(*held)
        assert claim is not None
        return claim

    async def started(self, **columns: Any) -> Claim:
        """A user's run that has begun on the profile."""
        await self.accept(await self.user(**columns))
        claim = await self.claimed()
        await self.profiles.begin(claim)
        return claim

    async def expire(self, claim: Claim) -> None:
        """The holder has been silent for longer than the lease."""
        await self.sql(
            "UPDATE full_pass_runs SET lease_until = clock_timestamp() - interval '1 s' WHERE run_id = :id", id=claim.run_id
        )

    async def run(self, run_id: UUID) -> dict[str, Any]:
        """The run's row."""
        [row] = await self.sql("SELECT * FROM full_pass_runs WHERE run_id = :id", id=run_id)
        return row

    async def profile(self, user_id: UUID) -> dict[str, Any]:
        """The user's row."""
        [row] = await self.sql("SELECT * FROM user_profiles WHERE user_id = :id", id=user_id)
        return row

    async def events(self) -> list[str]:
        """The types of all events in the outbox, in order."""
        return [row.event_type for row in await self.outbox.unpublished(1000)]


def new_run(user_id: UUID, key: str = "key", *, seconds: float = 0, **more: Any) -> NewRun:
    """An event that was accepted."""
    return NewRun(user_id, key, FIRST + timedelta(seconds=seconds), '{"storage_path": "exports/a.json"}', TRACE, **more)


@asynccontextmanager
async def a_world(url: str, lease_seconds: float = LEASE_SECONDS) -> AsyncIterator[World]:
    """A worker's view of a migrated database."""
    database = Database(url, lease_seconds)
    try:
        await upgrade(database)
        yield World(database)
    finally:
        await database.close()


def in_world(url: str, work: Callable[[World], Awaitable[None]]) -> None:
    """Run a test's coroutine in a world of its own."""

    async def main() -> None:
        async with a_world(url) as world:
            await work(world)

    asyncio.run(main())


COUNT_DELETES = """
    CREATE TABLE deletes (of text, rows bigint);
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO deletes SELECT TG_TABLE_NAME, count(*) FROM old; RETURN NULL; END $$;
"""


async def count_deletes(world: World, *tables: str) -> None:
    triggers = [
        f"CREATE TRIGGER note AFTER DELETE ON {table} REFERENCING OLD TABLE AS old FOR EACH STATEMENT EXECUTE FUNCTION note()"
        for table in tables
    ]
    for statement in (*filter(str.strip, COUNT_DELETES.split(";\n    ")), *triggers):
        await world.sql(statement)
