"""Every client of ours, against a broker that demands TLS, client certificates or SASL; and what is said when it refuses."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import subprocess
import sys
import termios
import uuid
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from consumer.kafka.alerts import Alerts
from consumer.kafka.broker import BrokerProbe
from consumer.kafka.connection import KafkaTrouble
from consumer.kafka.dead_letters import list_dead_letters
from consumer.kafka.intake import Intake
from consumer.kafka.publishing import publish
from consumer.kafka.reading import read_events
from consumer.kafka.relay import Relay
from consumer.kafka.topics import Topics
from consumer.settings import Settings
from sandbox.postgres import PostgresServer
from tests.integration.kafka_environment import a_memory, an_environment, an_event, until
from tests.integration.security.acls import Acl, allow
from tests.integration.security.conftest import PASSWORD, USER, SecuredKafka

DOORS = {
    "TLS": ("TLS", "SSL", ""),
    "client certificate": ("MTLS", "SSL", ""),
    "PLAIN": ("SASL", "SASL_PLAINTEXT", "PLAIN"),
    "PLAIN and TLS": ("SASLTLS", "SASL_SSL", "PLAIN"),
    "SCRAM-SHA-256": ("SASL", "SASL_PLAINTEXT", "SCRAM-SHA-256"),
    "SCRAM-SHA-256 and TLS": ("SASLTLS", "SASL_SSL", "SCRAM-SHA-256"),
    "SCRAM-SHA-512 and TLS": ("SASLTLS", "SASL_SSL", "SCRAM-SHA-512"),
}
ANYBODY = [
    *(Acl("*", operation, "topic", "tls-", prefixed=True) for operation in ("Create", "Read", "Write", "DescribeConfigs")),
    Acl("*", "Read", "group", "tls-", prefixed=True),
    Acl("*", "Write", "transactional-id", "tls-", prefixed=True),
]


@pytest.fixture(scope="module")
def open_kafka(secured_kafka: SecuredKafka) -> SecuredKafka:
    """The broker, where whoever gets in may do what he likes under one prefix."""
    asyncio.run(allow(secured_kafka.server.bootstrap_servers, ANYBODY))
    return secured_kafka


def test_every_client_works_where_tls_a_client_certificate_or_sasl_is_demanded(
    open_kafka: SecuredKafka, postgres: PostgresServer
) -> None:
    """Administration, publishing, intake, dead letters, relay with its transactions, alerts, and reading of events."""
    databases = {door: f"security_{uuid.uuid4().hex[:8]}" for door in DOORS}  # or one's relay would send another's events
    for name in databases.values():
        postgres.create_database(name)

    async def test() -> None:
        migrating = asyncio.Lock()  # Alembic migrates one database of a process at a time
        await at_each(
            DOORS, lambda door: work_through(open_kafka.variables(*DOORS[door]), postgres.url(databases[door]), migrating)
        )

    try:
        asyncio.run(test())
    finally:
        for name in databases.values():
            postgres.drop_database(name)


async def work_through(variables: dict[str, Any], database_url: str, migrating: asyncio.Lock) -> None:
    """Let each client that we make do its work."""
    bootstrap, prefix, user = variables.pop("KAFKA_BOOTSTRAP_SERVERS"), f"tls-{uuid.uuid4().hex[:8]}-", uuid.uuid4()
    webhook = {"alert_webhook_url": "http://127.0.0.1:1"}
    async with AsyncExitStack() as stack:
        async with migrating:
            env = await stack.enter_async_context(an_environment(bootstrap, database_url, prefix, 1, **variables, **webhook))
        health, metrics = env.health, env.metrics
        intake, relay = Intake(env.settings, env.ledger, health, metrics), Relay(env.settings, env.outbox, health, metrics)

        async def taken() -> bool:
            return prefix in await env.keys() and not await env.unpublished()

        async with BrokerProbe(env.settings) as probe, env.running(intake, relay, Alerts(env.settings, health, metrics)):
            assert await probe.check() is None
            await publish(env.settings, an_event(prefix, user))
            await env.produce(b"no JSON")
            await env.announce(a_memory(1, user))
            await until(taken)
        assert [letter.reason async for letter in list_dead_letters(env.settings)] == ["not_json"]
        assert [event.topic for event in await read_events(env.settings, user)] == [env.topics.names.memory_saved]


async def at_each(names: Iterable[str], work: Callable[[str], Awaitable[None]]) -> None:
    """Do the work for each name, all at once; an error says whose it is."""

    async def named(name: str) -> None:
        try:
            await work(name)
        except BaseException as error:
            error.add_note(f"with {name}")
            raise

    async with asyncio.TaskGroup() as tasks:
        for name in names:
            tasks.create_task(named(name))


REFUSALS: dict[str, tuple[str, dict[str, Any], str]] = {
    "wrong password, PLAIN": ("PLAIN", {"KAFKA_SASL_PASSWORD": "wr0ng"}, "refuses KAFKA_SASL_USERNAME or KAFKA_SASL_PASSWORD"),
    "wrong password, SCRAM": (
        "SCRAM-SHA-512 and TLS", {"KAFKA_SASL_PASSWORD": "wr0ng"}, "refuses KAFKA_SASL_USERNAME or KAFKA_SASL_PASSWORD"
    ),
    "unknown user": ("SCRAM-SHA-256", {"KAFKA_SASL_USERNAME": "bob"}, "refuses KAFKA_SASL_USERNAME or KAFKA_SASL_PASSWORD"),
    "unknown authority": ("TLS", {"KAFKA_SSL_CAFILE": "others"}, "a certificate that KAFKA_SSL_CAFILE does not vouch for"),
    "the system's authorities": ("TLS", {"KAFKA_SSL_CAFILE": None}, "a certificate that KAFKA_SSL_CAFILE does not vouch for"),
    "another host": ("TLS", {"KAFKA_BOOTSTRAP_SERVERS": "localhost"}, r"does not vouch for \(Hostname mismatch"),
    "no client certificate": (
        "client certificate", {"KAFKA_SSL_CERTFILE": None, "KAFKA_SSL_KEYFILE": None},
        "demands a client's certificate: set KAFKA_SSL_CERTFILE and KAFKA_SSL_KEYFILE"
    ),
    "a stranger's certificate": (
        "client certificate", {"KAFKA_SSL_CERTFILE": "stranger"}, "refuses the certificate of KAFKA_SSL_CERTFILE"
    ),
    "plain to TLS": ("TLS", {"KAFKA_SECURITY_PROTOCOL": "PLAINTEXT"}, "KAFKA_SECURITY_PROTOCOL=PLAINTEXT right for this port"),
    "plain to SASL": ("PLAIN", {"KAFKA_SECURITY_PROTOCOL": "PLAINTEXT"}, "KAFKA_SECURITY_PROTOCOL=PLAINTEXT right for this port"),
    "TLS to plain": ("PLAIN", {"KAFKA_SECURITY_PROTOCOL": "SSL"}, "KAFKA_SECURITY_PROTOCOL.* right for this port?"),
    "SASL to none": (
        "TLS", {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "KAFKA_SASL_USERNAME": "u", "KAFKA_SASL_PASSWORD": "wr0ng"},
        "asks for no SASL; is KAFKA_SECURITY_PROTOCOL=SASL_SSL right"
    ),
}  # fmt: skip


@pytest.mark.guarantee("G9")
def test_a_refusal_names_the_setting_that_mends_it_and_no_secret(open_kafka: SecuredKafka) -> None:
    async def refused(case: str) -> None:
        door, changes, words = REFUSALS[case]
        settings = Settings(**open_kafka.variables(*DOORS[door], **placed(changes, open_kafka, door)))
        async with BrokerProbe(settings) as probe:
            said = await probe.check() or ""
        with pytest.raises(KafkaTrouble, match=words) as caught:
            await Topics(settings).create()
        with pytest.raises(KafkaTrouble, match=words):
            await anext(list_dead_letters(settings))
        assert said == str(caught.value)
        assert not [secret for secret in (PASSWORD, "wr0ng", USER) if secret in said]

    asyncio.run(at_each(REFUSALS, refused))


def placed(changes: dict[str, Any], kafka: SecuredKafka, door: str) -> dict[str, Any]:
    """The changes with files and addresses instead of their nicknames."""
    found = dict(changes)
    if found.get("KAFKA_SSL_CAFILE") == "others":
        found["KAFKA_SSL_CAFILE"] = str(kafka.trust.others.certificate)
    if found.get("KAFKA_SSL_CERTFILE") == "stranger":
        found |= {"KAFKA_SSL_CERTFILE": str(kafka.trust.stranger.certificate), "KAFKA_SSL_KEYFILE": str(kafka.trust.stranger.key)}
    if found.get("KAFKA_BOOTSTRAP_SERVERS") == "localhost":
        found["KAFKA_BOOTSTRAP_SERVERS"] = kafka.server.bootstrap_servers_of(DOORS[door][0]).replace("127.0.0.1", "localhost")
    return found


def test_a_key_with_a_passphrase_is_refused_instead_of_asking_for_it(open_kafka: SecuredKafka) -> None:
    """OpenSSL would ask at the terminal, and the worker would wait there for somebody to type."""
    locked = open_kafka.trust.ours.sign("locked", passphrase=b"open sesame")
    files = {"KAFKA_SSL_CERTFILE": str(locked.certificate), "KAFKA_SSL_KEYFILE": str(locked.key)}
    variables = open_kafka.variables(*DOORS["client certificate"], **files)
    terminal, its_end = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "consumer", "topics", "create"], env={**os.environ, **variables}, stdin=its_end,
            capture_output=True, text=True, timeout=30, start_new_session=True, check=False,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
    finally:
        os.close(its_end)
        os.close(terminal)
    assert done.returncode == 2
    assert "KAFKA_SSL_KEYFILE: expected a readable PEM pair, no passphrase" in done.stderr
