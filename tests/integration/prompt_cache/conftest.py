"""A real Redis and a database with profiles."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from sandbox.postgres import PostgresServer
from sandbox.redis import RedisServer

SERVER_PROGRAM = os.environ.get("TEST_REDIS_SERVER")
"""The path of a `redis-server` to test with, such as Debian's; by default the Valkey of the sandbox."""


def a_server(folder: Path) -> RedisServer:
    return RedisServer(folder, server_program=Path(SERVER_PROGRAM) if SERVER_PROGRAM else None)


@pytest.fixture(scope="package")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis for tests that leave it running; what is in it belongs to the test that runs."""
    with a_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis for a test that kills or freezes it."""
    with a_server(tmp_path / "redis") as server:
        yield server


@pytest.fixture(scope="package")
def profiles_url(postgres: PostgresServer) -> Iterator[str]:
    """A database with `user_profiles`, as far as a chat service looks at it."""
    name = f"profiles_{uuid.uuid4().hex[:8]}"
    postgres.create_database(name)
    asyncio.run(_create_table(postgres.url(name)))
    yield postgres.url(name)
    postgres.drop_database(name)


async def _create_table(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(
        "CREATE TABLE user_profiles (user_id uuid PRIMARY KEY, profile_version integer NOT NULL DEFAULT 0, memory_md text, "
        "soul_md text, identity_md text, user_md text, agents_md text, tools_md text, soulprint_text text)"
    )
    await connection.close()
