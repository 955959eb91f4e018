"""Real servers for the tests that need them, started by the first test that asks and gone with the session."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.kafka import KafkaServer
from sandbox.postgres import PostgresServer
from sandbox.stand_in import StandInServer


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """The session's Kafka. A test that kills or freezes it takes `own_kafka`."""
    server = KafkaServer(tmp_path_factory.mktemp("kafka"))
    with server:
        yield server
    server.remove()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """The session's PostgreSQL. A test that kills or freezes it takes `own_postgres`."""
    server = PostgresServer(tmp_path_factory.mktemp("postgres"))
    with server:
        yield server
    server.remove()


@pytest.fixture
def database(postgres: PostgresServer) -> Iterator[str]:
    """The name of an empty database in the session's PostgreSQL, dropped after the test with whoever is connected."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    postgres.create_database(name)
    yield name
    postgres.drop_database(name)


@pytest.fixture
def database_url(postgres: PostgresServer, database: str) -> str:
    """The `postgresql://` URL of an empty database."""
    return postgres.url(database)


@pytest.fixture
def topic_prefix() -> str:
    """A text for TOPIC_PREFIX (and names of groups) that no other test has."""
    return f"test-{uuid.uuid4().hex[:12]}-"


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[KafkaServer]:
    """A Kafka for this test alone (2 s)."""
    server = KafkaServer(tmp_path / "kafka")
    with server:
        yield server
    server.remove()


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[PostgresServer]:
    """A PostgreSQL for this test alone (0.5 s)."""
    server = PostgresServer(tmp_path / "postgres")
    with server:
        yield server
    server.remove()


@pytest.fixture
def stand_in_server(tmp_path: Path) -> Iterator[StandInServer]:
    """The stand-in for the Anthropic API as a process of its own."""
    server = StandInServer(tmp_path / "anthropic")
    with server:
        yield server
    server.remove()
