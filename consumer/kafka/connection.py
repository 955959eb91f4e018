"""How every Kafka client of the service connects, and how one is closed when its broker no longer answers."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from consumer.errors import ConfigurationError, FullPassError
from consumer.kafka.refusals import what_is_denied, why_refused
from consumer.settings import Settings, required

START_SECONDS = 20.0
CLOSE_SECONDS = 5.0
REQUEST_TIMEOUT_MS = 15_000
TRANSACTION_TIMEOUT_MS = 30_000
_NO_LIMIT_BYTES = 2**30  # the topic's own limit decides, not the client's


class KafkaTrouble(FullPassError):
    """Kafka can't be reached, or refused what a part asked of it; the part is started again from its durable position."""


def connection_options(settings: Settings) -> dict[str, Any]:
    """The arguments that every aiokafka client takes.

    Raises:
        ConfigurationError: naming the variable that is missing, or the certificate file that can't be read.
    """
    options: dict[str, Any] = {
        "bootstrap_servers": required(settings.kafka_bootstrap_servers, "KAFKA_BOOTSTRAP_SERVERS"),
        "client_id": "full-pass",
        "security_protocol": settings.kafka_security_protocol,
    }
    if settings.kafka_security_protocol.endswith("SSL"):
        options["ssl_context"] = _ssl_context(settings)
    if settings.kafka_security_protocol.startswith("SASL"):
        options["sasl_mechanism"] = settings.kafka_sasl_mechanism
        options["sasl_plain_username"] = required(settings.kafka_sasl_username, "KAFKA_SASL_USERNAME")
        options["sasl_plain_password"] = required(settings.kafka_sasl_password, "KAFKA_SASL_PASSWORD")
    return options


def _ssl_context(settings: Settings) -> ssl.SSLContext:
    cafile, certfile, keyfile = settings.kafka_ssl_cafile, settings.kafka_ssl_certfile, settings.kafka_ssl_keyfile
    try:
        context = ssl.create_default_context(cafile=cafile)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigurationError(f"KAFKA_SSL_CAFILE names no readable PEM file ({type(error).__name__})") from None
    if keyfile is not None and certfile is None:
        raise ConfigurationError("KAFKA_SSL_KEYFILE is set without KAFKA_SSL_CERTFILE")
    if certfile is not None:
        try:
            context.load_cert_chain(certfile, keyfile, password=lambda: "")  # without it OpenSSL would ask at the terminal
        except OSError as error:
            raise ConfigurationError(
                f"KAFKA_SSL_CERTFILE, KAFKA_SSL_KEYFILE: expected a readable PEM pair, no passphrase ({type(error).__name__})"
            ) from None
    return context


@asynccontextmanager
async def idempotent_producer(settings: Settings, transactional_id: str | None = None) -> AsyncIterator[AIOKafkaProducer]:
    """A producer whose writes all replicas acknowledge (`acks=all`). With a transactional id `InitProducerId` has answered.

    Raises:
        KafkaTrouble: when the brokers can't be reached.
    """
    producer = AIOKafkaProducer(
        **connection_options(settings),
        acks="all",
        enable_idempotence=True,
        transactional_id=transactional_id,
        transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
        request_timeout_ms=REQUEST_TIMEOUT_MS,
        max_request_size=_NO_LIMIT_BYTES,
    )
    try:
        await started(producer, settings)
        yield producer
    finally:
        await _close(producer)


@asynccontextmanager
async def admin_client(settings: Settings, timeout_ms: int = REQUEST_TIMEOUT_MS) -> AsyncIterator[AIOKafkaAdminClient]:
    """A client for topics, configurations and groups.

    Raises:
        KafkaTrouble: when the brokers can't be reached.
    """
    admin = AIOKafkaAdminClient(**connection_options(settings), request_timeout_ms=timeout_ms)
    try:
        await started(admin, settings)
        yield admin
    finally:
        await admin.close()


async def started(client: AIOKafkaProducer | AIOKafkaConsumer | AIOKafkaAdminClient, settings: Settings) -> None:
    """Start a client within `START_SECONDS`; the caller closes it in either case.

    Raises:
        KafkaTrouble: when the brokers can't be reached, or refuse the connection: then it names the setting that mends it.
    """
    try:
        async with asyncio.timeout(START_SECONDS):
            await client.start()
    except (KafkaError, TimeoutError, OSError) as error:
        if (denied := what_is_denied(error)) is not None:
            raise KafkaTrouble(denied) from error
        reason = await why_refused(connection_options(settings), settings.kafka_ssl_certfile is not None)
        raise KafkaTrouble(reason or f"no Kafka broker answers at KAFKA_BOOTSTRAP_SERVERS ({type(error).__name__})") from error


async def _close(producer: AIOKafkaProducer) -> None:
    """Stop a producer, or abandon it: `stop` waits for ever for acknowledgements of a broker that is gone."""
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await producer.stop()
    except TimeoutError:
        await _abandon(producer)


async def _abandon(producer: AIOKafkaProducer) -> None:
    """End a producer's background work; what it had not sent may or may not arrive, as after a crash.

    aiokafka has no public way to give up. The sender goes first: failing the batches while it lives would let a transaction
    be committed without them.
    """
    sender = producer._sender.sender_task  # noqa: SLF001 - no public way, see above
    while sender is not None and not sender.done():
        sender.cancel()  # twice, if it is waiting for one of its own tasks
        await asyncio.wait([sender], timeout=0.1)
    producer._message_accumulator.fail_all(KafkaTrouble("the producer was given up"))  # noqa: SLF001
    await producer.client.close()
