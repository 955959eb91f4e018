"""What a client is told about the brokers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from consumer.errors import ConfigurationError
from consumer.kafka.connection import connection_options
from consumer.settings import Settings


def settings(**variables: Any) -> Settings:
    return Settings(**{"KAFKA_BOOTSTRAP_SERVERS": "broker:9092", **variables})


def test_a_plain_connection_needs_the_brokers_alone() -> None:
    assert connection_options(settings())["security_protocol"] == "PLAINTEXT"
    with pytest.raises(ConfigurationError, match="KAFKA_BOOTSTRAP_SERVERS"):
        connection_options(Settings())


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_sasl_takes_name_and_password(mechanism: str) -> None:
    credentials = {"KAFKA_SASL_USERNAME": "ada", "KAFKA_SASL_PASSWORD": "lovelace"}
    options = connection_options(
        settings(KAFKA_SECURITY_PROTOCOL="SASL_PLAINTEXT", KAFKA_SASL_MECHANISM=mechanism, **credentials)
    )
    given = (options["sasl_mechanism"], options["sasl_plain_username"], options["sasl_plain_password"])
    assert given == (mechanism, "ada", "lovelace")


@pytest.mark.parametrize("missing", ["KAFKA_SASL_USERNAME", "KAFKA_SASL_PASSWORD"])
def test_sasl_without_credentials_is_a_configuration_error(missing: str) -> None:
    credentials = {"KAFKA_SASL_USERNAME": "ada", "KAFKA_SASL_PASSWORD": "lovelace"}
    del credentials[missing]
    with pytest.raises(ConfigurationError, match=missing):
        connection_options(settings(KAFKA_SECURITY_PROTOCOL="SASL_PLAINTEXT", **credentials))


def test_tls_verifies_the_broker() -> None:
    context = connection_options(settings(KAFKA_SECURITY_PROTOCOL="SSL"))["ssl_context"]
    assert context.check_hostname
    assert context.verify_mode.name == "CERT_REQUIRED"


def test_a_certificate_that_cannot_be_read_is_named_by_its_variable(tmp_path: Path) -> None:
    nothing, text = tmp_path / "nothing.pem", tmp_path / "text.pem"
    text.write_text("no certificate")
    for path in (nothing, text):
        for variable in ("KAFKA_SSL_CAFILE", "KAFKA_SSL_CERTFILE"):
            with pytest.raises(ConfigurationError, match=variable) as caught:
                connection_options(settings(KAFKA_SECURITY_PROTOCOL="SSL", **{variable: path}))
            assert str(tmp_path) not in str(caught.value)
    with pytest.raises(ConfigurationError, match="without KAFKA_SSL_CERTFILE"):
        connection_options(settings(KAFKA_SECURITY_PROTOCOL="SSL", KAFKA_SSL_KEYFILE=text))
