"""Worlds: fresh ones for tests that disturb, and one with a worker that all others share."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.kafka import KafkaServer
from sandbox.postgres import PostgresServer
from sandbox.stand_in import StandInServer
from tests.acceptance.sample_run import Passed, take_the_sample_through
from tests.acceptance.worker import FULL_PASS, Worker
from tests.acceptance.world import World


@pytest.fixture(scope="session")
def migrated(postgres: PostgresServer) -> str:
    """The name of a database that `full-pass db upgrade` has migrated, for copies."""
    name = f"migrated_{uuid.uuid4().hex[:8]}"
    postgres.create_database(name)
    subprocess.run([FULL_PASS, "db", "upgrade"], env=os.environ | {"DATABASE_URL": postgres.url(name)}, check=True)
    return name


def a_world(kafka: KafkaServer, postgres: PostgresServer, stand_in: StandInServer, template: str, folder: Path) -> World:
    """A world with topics and tables."""
    prefix = f"test-{uuid.uuid4().hex[:12]}-"
    name = prefix.strip("-").replace("-", "_")
    postgres.run_sql(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    (folder / "store").mkdir()
    world = World(kafka.bootstrap_servers, postgres.url(name), stand_in.url, prefix, folder)
    world.create_topics()
    return world


@pytest.fixture
def world(
    kafka: KafkaServer, postgres: PostgresServer, stand_in_server: StandInServer, migrated: str, tmp_path: Path
) -> Iterator[World]:
    """A world of the test's own, without a worker."""
    world = a_world(kafka, postgres, stand_in_server, migrated, tmp_path)
    yield world
    world.close()


@pytest.fixture(scope="module")
def own_world(
    kafka: KafkaServer, postgres: PostgresServer, migrated: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """A world of the module's own, without a worker, for a story that several tests look at."""
    folder = tmp_path_factory.mktemp("own")
    with StandInServer(folder / "anthropic") as stand_in:
        world = a_world(kafka, postgres, stand_in, migrated, folder)
        yield world
        world.close()


@pytest.fixture(scope="session")
def shared(
    kafka: KafkaServer, postgres: PostgresServer, migrated: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """A world with one worker, which tests leave as well as they found it; each has users of its own."""
    folder = tmp_path_factory.mktemp("shared")
    with StandInServer(folder / "anthropic") as stand_in:
        world = a_world(kafka, postgres, stand_in, migrated, folder)
        world.worker(FULL_PASS_LOG_LEVEL="DEBUG").ready()
        yield world
        world.close()


@pytest.fixture
def worker(shared: World) -> Worker:
    """The worker of the shared world."""
    return shared.workers[0]


@pytest.fixture(scope="session")
def passed(shared: World, tmp_path_factory: pytest.TempPathFactory) -> Passed:
    """The sample's run, after its end."""
    return take_the_sample_through(shared, tmp_path_factory.mktemp("sample"))
