"""Kafka and PostgreSQL as containers, for machines that have a Docker engine but no wheels of the two.

The containers are found again by their names, which follow from the folder, and keep their data until `remove`.
"""

from __future__ import annotations

import hashlib
import secrets
import shutil
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

from docker.errors import DockerException, NotFound  # type: ignore[import-untyped]
from testcontainers.community.postgres import PostgresContainer
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.docker_client import DockerClient
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

from sandbox.errors import SandboxError
from sandbox.server import HOST, Progress, free_port, silent

_KAFKA_IMAGE = "apache/kafka:4.3.1"
_POSTGRES_IMAGE = "postgres:18"
_START_SECONDS = 120


def docker_answers() -> bool:
    """Whether a Docker engine is there and answers."""
    try:
        return bool(DockerClient().client.ping())
    except DockerException:
        return False


class ContainerServer(ABC):
    """A server in a container. The surface is that of `Server`, as far as the sandbox needs it."""

    name: ClassVar[str]
    inner_port: ClassVar[int]

    def __init__(self, folder: Path, progress: Progress = silent) -> None:
        self.folder = folder.absolute()
        self.progress = progress

    @abstractmethod
    def _new(self, name: str, port: int) -> DockerContainer:
        """A container that isn't started yet and listens on `port` of the host."""

    @property
    def running(self) -> bool:
        """Whether the container is up."""
        found = self._found()
        return found is not None and found.status == "running"

    @property
    def port(self) -> int:
        """The port on 127.0.0.1."""
        bindings = self._existing().attrs["HostConfig"]["PortBindings"]
        return int(bindings[f"{self.inner_port}/tcp"][0]["HostPort"])

    def start(self, *, detached: bool = False) -> None:
        """Start the container, made anew if there is none; one that isn't `detached` is removed when this process ends.

        Raises:
            SandboxError: with the engine's words.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            if (found := self._found()) is not None:
                found.start()
                return
            self.progress(f"getting {self.name} as a container (once)…")
            testcontainers_config.ryuk_disabled = detached
            port = free_port()
            container = self._new(self._container_name(), port)
            container.ports[f"{self.inner_port}/tcp"] = (HOST, port)  # type: ignore[assignment]  # docker-py takes the pair
            container.start()
        except (DockerException, TimeoutError) as error:
            raise SandboxError(f"{self.name} could not be started as a container: {error}") from None

    def stop(self) -> None:
        """Stop the container; its data stay."""
        if self.running:
            self._existing().stop()

    def remove(self) -> None:
        """Remove the container with its data."""
        if (found := self._found()) is not None:
            found.remove(force=True, v=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _container_name(self) -> str:
        return f"full-pass-{hashlib.sha256(str(self.folder).encode()).hexdigest()[:16]}"

    def _found(self) -> Any:
        try:
            return DockerClient().client.containers.get(self._container_name())
        except NotFound:
            return None

    def _existing(self) -> Any:
        found = self._found()
        if found is None:
            raise SandboxError(f"{self.name} has no container here.")
        return found


class KafkaContainerServer(ContainerServer):
    """Apache's own image; testcontainers' Kafka module knows other images alone."""

    name: ClassVar[str] = "Kafka"
    inner_port: ClassVar[int] = 9092

    @property
    def bootstrap_servers(self) -> str:
        """`host:port`, for clients."""
        return f"{HOST}:{self.port}"

    def _new(self, name: str, port: int) -> DockerContainer:
        container = DockerContainer(_KAFKA_IMAGE, name=name).with_envs(
            KAFKA_NODE_ID="1",
            KAFKA_PROCESS_ROLES="broker,controller",
            KAFKA_CONTROLLER_QUORUM_VOTERS="1@localhost:9093",
            KAFKA_CONTROLLER_LISTENER_NAMES="CONTROLLER",
            KAFKA_LISTENERS="PLAINTEXT://:9092,CONTROLLER://:9093",
            KAFKA_ADVERTISED_LISTENERS=f"PLAINTEXT://{HOST}:{port}",
            KAFKA_LISTENER_SECURITY_PROTOCOL_MAP="PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            KAFKA_AUTO_CREATE_TOPICS_ENABLE="false",
            KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS="1",
            KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR="1",
            KAFKA_TRANSACTION_STATE_LOG_NUM_PARTITIONS="1",
            KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR="1",
            KAFKA_TRANSACTION_STATE_LOG_MIN_ISR="1",
            KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS="0",
        )
        started = LogMessageWaitStrategy("Kafka Server started").with_startup_timeout(_START_SECONDS)
        return container.waiting_for(started)


class PostgresContainerServer(ContainerServer):
    """The official image, with the superuser `postgres` and a random password."""

    name: ClassVar[str] = "PostgreSQL"
    inner_port: ClassVar[int] = 5432

    def url(self, database: str = "postgres") -> str:
        """A `postgresql://` URL with the password."""
        variables = dict(pair.split("=", 1) for pair in self._existing().attrs["Config"]["Env"])
        return f"postgresql://postgres:{variables['POSTGRES_PASSWORD']}@{HOST}:{self.port}/{quote(database)}"

    def ensure_database(self, name: str) -> None:
        """Create a database unless it exists."""
        code, output = self._existing().exec_run(["createdb", "--username", "postgres", name])
        if code and b"already exists" not in output:
            raise SandboxError(f"PostgreSQL refused: {output.decode(errors='replace').strip()}")

    def _new(self, name: str, port: int) -> DockerContainer:
        del port  # its clients are not told where it listens
        return PostgresContainer(
            _POSTGRES_IMAGE, name=name, username="postgres", password=secrets.token_hex(16), dbname="postgres"
        )
