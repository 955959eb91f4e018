"""Kafka, PostgreSQL and the stand-in for the model API, and worlds on them, outside of pytest."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sandbox.kafka import KafkaServer
from sandbox.postgres import PostgresServer
from sandbox.stand_in import StandInServer
from tests.acceptance.conftest import a_world
from tests.acceptance.worker import FULL_PASS
from tests.acceptance.world import World

_MIGRATED = "migrated"
MakeWorld = Callable[[Path], World]


@contextmanager
def worlds(folder: Path, latency_seconds: float) -> Iterator[MakeWorld]:
    """Start servers; what is given makes a world in a folder."""
    stand_in = StandInServer(folder / "anthropic", arguments=("--latency-seconds", str(latency_seconds)))
    with KafkaServer(folder / "kafka") as kafka, PostgresServer(folder / "postgres") as postgres, stand_in:
        postgres.create_database(_MIGRATED)
        environment = os.environ | {"DATABASE_URL": postgres.url(_MIGRATED)}
        subprocess.run([FULL_PASS, "db", "upgrade"], env=environment, check=True)

        def make(own: Path) -> World:
            own.mkdir(parents=True, exist_ok=True)
            return a_world(kafka, postgres, stand_in, _MIGRATED, own)

        yield make
