"""TLS to PostgreSQL: libpq's `ssl…` parameters where asyncpg falls short of them, and the words for what goes wrong."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from urllib.parse import parse_qsl, urlsplit

from consumer.errors import ConfigurationError

_SYSTEM = "system"


def system_trust(dsn: str) -> ssl.SSLContext | None:
    """What `sslrootcert=system` asks for: the system's authorities and `verify-full`. None for any other address.

    Raises:
        ConfigurationError: beside a weaker `sslmode`, as libpq does.
    """
    query = _query(dsn)
    if query.get("sslrootcert") != _SYSTEM:
        return None
    if query.get("sslmode", "verify-full") != "verify-full":
        raise ConfigurationError("DATABASE_URL: sslrootcert=system needs sslmode=verify-full")
    context = ssl.create_default_context()
    if "sslcert" in query:
        context.load_cert_chain(query["sslcert"], query.get("sslkey"), password=lambda: query.get("sslpassword", ""))
    return context


def unusable_file(dsn: str) -> str | None:
    """Which parameter names a file that can't be used, and why; None when all can."""
    query = _query(dsn)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusted = [name for name in ("sslrootcert", "sslcrl") if query.get(name, _SYSTEM) != _SYSTEM]
    try:
        for name in trusted:
            at_fault = name
            context.load_verify_locations(query[name])
        at_fault = "sslcert or sslkey"
        if "sslcert" in query:
            context.load_cert_chain(query["sslcert"], query.get("sslkey"), password=lambda: query.get("sslpassword", ""))
    except OSError as error:  # ssl.SSLError is one
        return f"{at_fault} names no readable PEM file ({type(error).__name__})"
    return None


def refusal(error: BaseException) -> str | None:
    """What the TLS behind an error means, to stand after "PostgreSQL at DATABASE_URL"; None where there is none."""
    for each in _causes(error):
        if isinstance(each, ssl.SSLCertVerificationError):
            return f"shows a certificate that its sslrootcert does not vouch for ({each.verify_message})"
        if isinstance(each, ssl.SSLError):
            return f"ended TLS ({each.reason}): does it know who signed the certificate of sslcert, or demand one?"
        if isinstance(each, ConnectionError) and "rejected SSL" in str(each):
            return "does not speak TLS, which its sslmode asks for"
    return None


def _query(dsn: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(dsn).query))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
