"""What brokers refuse a client for, in the words of the settings that mend it.

aiokafka tells of a failed start only that nobody could be reached. So one more connection is made, whose error says why.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from typing import Any

from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import (
    IllegalSaslStateError,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.metadata import MetadataRequest

ANSWER_SECONDS = 1.0
_HERE = "Kafka at KAFKA_BOOTSTRAP_SERVERS"


async def why_refused(options: dict[str, Any], client_certificate: bool) -> str | None:
    """Why the first broker that is there refuses us, or None where none is there or none refuses.

    `options` are the arguments of a client. Takes at most a second; names settings and never holds one's value.
    """
    given = {name: value for name, value in options.items() if name != "bootstrap_servers"}
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            for host, port, _ in collect_hosts(options["bootstrap_servers"], randomize=False):
                try:
                    await _knock(host, port, given)
                except (KafkaError, OSError) as error:
                    if reason := _reason(error, options["security_protocol"], client_certificate):
                        return reason
    except TimeoutError:
        pass
    return None


def what_is_denied(error: BaseException) -> str | None:
    """The sentence for an error that says that an ACL is missing, or None for any other.

    aiokafka hides some of them behind a bare KafkaError.
    """
    kinds = (type(each).__name__ for each in _causes(error))
    named = next((kind for kind in kinds if "AuthorizationFailed" in kind), None)
    return None if named is None else f"Kafka does not allow our user what is needed ({named}); docs/security.md has the ACLs"


async def _knock(host: str, port: int, given: dict[str, Any]) -> None:
    """Connect, and ask a question that only those who are let in may ask."""
    connection = await create_conn(host, port, request_timeout_ms=int(ANSWER_SECONDS * 1000), **given)
    try:
        await connection.send(MetadataRequest([]))
    finally:
        connection.close()


def _reason(error: KafkaError | OSError, protocol: str, client_certificate: bool) -> str | None:
    """The sentence for an error, or None for one that is no refusal."""
    if isinstance(error, SaslAuthenticationFailed):
        return f"{_HERE} refuses KAFKA_SASL_USERNAME or KAFKA_SASL_PASSWORD"
    if isinstance(error, UnsupportedSaslMechanismError):
        return f"{_HERE} does not take KAFKA_SASL_MECHANISM"
    if isinstance(error, IllegalSaslStateError):
        return f"{_HERE} asks for no SASL; is KAFKA_SECURITY_PROTOCOL={protocol} right for this port?"
    if tls := next((each for each in _causes(error) if isinstance(each, ssl.SSLError)), None):
        return _tls_reason(tls, client_certificate)
    if isinstance(error, KafkaConnectionError | ConnectionResetError):
        return f"no Kafka broker answers at KAFKA_BOOTSTRAP_SERVERS: is KAFKA_SECURITY_PROTOCOL={protocol} right for this port?"
    return None


def _tls_reason(error: ssl.SSLError, client_certificate: bool) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"{_HERE} shows a certificate that KAFKA_SSL_CAFILE does not vouch for ({error.verify_message})"
    if "CERTIFICATE" not in str(error.reason) and "HANDSHAKE_FAILURE" not in str(error.reason):
        return f"{_HERE} does not speak our TLS ({error.reason}); is KAFKA_SECURITY_PROTOCOL right for this port?"
    if client_certificate:
        return f"{_HERE} refuses the certificate of KAFKA_SSL_CERTFILE ({error.reason})"
    return f"{_HERE} demands a client's certificate: set KAFKA_SSL_CERTFILE and KAFKA_SSL_KEYFILE"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
