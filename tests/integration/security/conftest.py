"""Servers that demand TLS, SASL and rights of their clients."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from sandbox.kafka import KafkaSecurity, KafkaServer, Listener
from sandbox.postgres import PostgresServer
from tests.integration.security.certificates import Authority, Pair

USER, PASSWORD = "ada", "l0velace-never-printed"
WORKER, PUBLISHER = "worker", "publisher"


@dataclass(frozen=True)
class Trust:
    """Who signs here, somebody else who does too, and what they signed."""

    ours: Authority
    others: Authority
    server: Pair
    client: Pair
    stranger: Pair


@dataclass(frozen=True)
class SecuredKafka:
    """A broker with a listener for each demand. Clients of the plain one may do everything, others what ACLs allow."""

    server: KafkaServer
    trust: Trust

    def variables(self, listener: str, protocol: str, mechanism: str = "", **changes: Any) -> dict[str, Any]:
        """What a client of that listener sets; `changes` go on top, and None takes a variable away."""
        found: dict[str, Any] = {
            "KAFKA_BOOTSTRAP_SERVERS": self.server.bootstrap_servers_of(listener),
            "KAFKA_SECURITY_PROTOCOL": protocol,
        }
        if protocol.endswith("SSL"):
            found["KAFKA_SSL_CAFILE"] = str(self.trust.ours.certificate)
        if listener == "MTLS":
            found |= {
                "KAFKA_SSL_CERTFILE": str(self.trust.client.certificate),
                "KAFKA_SSL_KEYFILE": str(self.trust.client.key),
            }
        if mechanism:
            found |= {
                "KAFKA_SASL_MECHANISM": mechanism,
                "KAFKA_SASL_USERNAME": USER,
                "KAFKA_SASL_PASSWORD": PASSWORD,
            }
        return {name: value for name, value in {**found, **changes}.items() if value is not None}


@pytest.fixture(scope="package")
def trust(tmp_path_factory: pytest.TempPathFactory) -> Trust:
    """Authorities and their certificates, for 127.0.0.1."""
    folder = tmp_path_factory.mktemp("trust")
    ours, others = Authority(folder / "ours", "ours"), Authority(folder / "others", "somebody else")
    return Trust(ours, others, ours.sign("server"), ours.sign("client"), others.sign("client"))


@pytest.fixture(scope="package")
def secured_kafka(trust: Trust, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    """The broker of all these tests (4 s)."""
    security = KafkaSecurity(
        listeners=[
            Listener("TLS", "SSL"),
            Listener("MTLS", "SSL", client_certificate=True),
            Listener("SASL", "SASL_PLAINTEXT"),
            Listener("SASLTLS", "SASL_SSL"),
        ],
        keystore=trust.server.both,
        truststore=trust.ours.certificate,
        users={USER: PASSWORD, WORKER: PASSWORD, PUBLISHER: PASSWORD},
        acls=True,
    )
    server = KafkaServer(tmp_path_factory.mktemp("kafka"), security=security)
    with server:
        yield SecuredKafka(server, trust)
    server.remove()


@pytest.fixture(scope="package")
def package_database_url(postgres: PostgresServer) -> Iterator[str]:
    """A database for tests that don't look into it closely."""
    name = f"security_{uuid.uuid4().hex[:8]}"
    postgres.create_database(name)
    yield postgres.url(name)
    postgres.drop_database(name)
