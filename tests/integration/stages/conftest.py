"""One migrated database for all stages: each test has a user of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from uuid import uuid4

import pytest

from consumer.postgres.database import Database
from consumer.postgres.migrating import upgrade
from sandbox.postgres import PostgresServer


@pytest.fixture(scope="session")
def database_url(postgres: PostgresServer) -> Iterator[str]:
    """Its URL."""
    name = f"test_{uuid4().hex[:12]}"
    postgres.create_database(name)
    asyncio.run(_migrate(postgres.url(name)))
    yield postgres.url(name)
    postgres.drop_database(name)


async def _migrate(url: str) -> None:
    database = Database(url)
    await upgrade(database)
    await database.close()
