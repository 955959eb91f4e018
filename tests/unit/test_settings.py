"""The settings: their variables, their defaults, and what is said about a wrong one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from consumer.errors import ConfigurationError
from consumer.settings import Settings, is_secret, load_settings, required, variable_of

SECRETS = (
    "KAFKA_SASL_PASSWORD",
    "DATABASE_URL",
    "ANTHROPIC_API_KEY",
    "FULL_PASS_ALERT_WEBHOOK_URL",
    "FULL_PASS_ALERT_WEBHOOK_SECRET",
)
DEFAULTS: dict[str, Any] = {
    "TOPIC_PREFIX": "",
    "CONSUMER_GROUP": "full-pass",
    "STORAGE_PATH_PATTERN": "",
    "MODEL": "claude-haiku-4-5-20251001",
    "RUN_CONCURRENCY": 8,
    "MODEL_CONCURRENCY": 32,
    "MODEL_TIMEOUT_SECONDS": 600,
    "LEASE_SECONDS": 30,
    "MAX_FAILURES": 5,
    "GIVE_UP_AFTER_SECONDS": 3 * 24 * 3600,
    "NOT_FOUND_GRACE_SECONDS": 60,
    "RETRY_BACKOFF_SECONDS": 5,
    "COVERAGE_FLOOR": 0.9,
    "MAX_RUN_COST_USD": 50,
    "MAX_COST_USD_PER_DAY": None,
    "MAX_EXPORT_BYTES": 4_000_000_000,
    "MAX_EXPORT_UNCOMPRESSED_BYTES": 16_000_000_000,
    "MAX_COMPRESSION_RATIO": 200,
    "MAX_CONVERSATIONS": 200_000,
    "FACTS_TOKENS_PER_CALL": 2_000,
    "POLL_SECONDS": 1,
    "SHUTDOWN_SECONDS": 25,
    "RETENTION_DAYS": 30,
    "HTTP_HOST": "127.0.0.1",
    "HTTP_PORT": 8080,
    "LOG_LEVEL": "INFO",
    "LOG_FORMAT": None,
}


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may have settings of their own."""
    for name, field in Settings.model_fields.items():
        for variable in (variable_of(name, field), f"{variable_of(name, field)}_FILE"):
            monkeypatch.delenv(variable, raising=False)


def _value(variable: str) -> Any:
    return getattr(load_settings(), variable.removeprefix("FULL_PASS_").lower())


@pytest.mark.parametrize(("name", "default"), DEFAULTS.items())
def test_a_setting_has_its_published_default_also_where_it_is_an_empty_string(
    monkeypatch: pytest.MonkeyPatch, name: str, default: Any
) -> None:
    assert _value(name) == default
    monkeypatch.setenv(f"FULL_PASS_{name}", "")
    assert _value(name) == default


def test_the_secrets_are_those_that_hold_something_to_hide() -> None:
    assert {variable_of(name, field) for name, field in Settings.model_fields.items() if is_secret(field)} == set(SECRETS)


@pytest.mark.parametrize("variable", SECRETS)
def test_a_secret_can_be_given_as_a_file_and_is_never_printed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    path = tmp_path / "secret"
    path.write_text("from-a-file\n", encoding="utf-8")
    monkeypatch.setenv(f"{variable}_FILE", str(path))
    assert _value(variable).get_secret_value() == "from-a-file"
    assert "from-a-file" not in repr(load_settings())
    monkeypatch.setenv(variable, "from-the-variable")
    assert _value(variable).get_secret_value() == "from-the-variable"


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_secrets_file_that_cannot_be_read_is_an_error_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("DATABASE_URL_FILE", str(path))
    with pytest.raises(ConfigurationError, match="DATABASE_URL_FILE names a file that can't be read"):
        load_settings()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("FULL_PASS_LEASE_SECONDS", "1.9"),
        ("FULL_PASS_LEASE_SECONDS", "inf"),
        ("FULL_PASS_MAX_FAILURES", "0"),
        ("FULL_PASS_POLL_SECONDS", "0"),
        ("FULL_PASS_NOT_FOUND_GRACE_SECONDS", "-1"),
        ("FULL_PASS_COVERAGE_FLOOR", "1.1"),
        ("FULL_PASS_MAX_RUN_COST_USD", "nan"),
        ("FULL_PASS_MAX_EXPORT_BYTES", "4GB"),
        ("FULL_PASS_HTTP_PORT", "70000"),
        ("FULL_PASS_LOG_LEVEL", "loud"),
        ("KAFKA_SECURITY_PROTOCOL", "TLS"),
    ],
)
def test_a_wrong_value_is_refused_and_its_variable_named_but_never_the_value(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    marked = f"{value}-gave-this" if value[0].isalpha() and value not in {"inf", "nan"} else value
    monkeypatch.setenv(variable, marked)
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert str(caught.value).startswith(f"{variable}: ")
    assert "gave-this" not in str(caught.value)


def test_every_wrong_setting_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FULL_PASS_HTTP_PORT", "x")
    monkeypatch.setenv("FULL_PASS_MAX_FAILURES", "y")
    with pytest.raises(ConfigurationError, match=r"FULL_PASS_MAX_FAILURES: .*; FULL_PASS_HTTP_PORT: "):
        load_settings()


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("LEASE_SECONDS", "2", 2.0),
        ("POLL_SECONDS", "0.25", 0.25),
        ("NOT_FOUND_GRACE_SECONDS", "0", 0.0),
        ("MAX_FAILURES", "1", 1),
        ("HTTP_PORT", "0", 0),
        ("LOG_LEVEL", "debug", "DEBUG"),
        ("MAX_COST_USD_PER_DAY", "0", 0.0),
    ],
)
def test_the_bounds_that_are_published_are_allowed(monkeypatch: pytest.MonkeyPatch, name: str, value: str, read: Any) -> None:
    monkeypatch.setenv(f"FULL_PASS_{name}", value)
    assert _value(name) == read


def test_settings_cannot_be_changed_after_they_were_read() -> None:
    with pytest.raises(Exception, match="frozen"):
        load_settings().max_failures = 9  # type: ignore[misc]


def test_what_is_required_is_asked_for_by_its_variable_and_given_in_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="DATABASE_URL is not set"):
        required(load_settings().database_url, "DATABASE_URL")
    monkeypatch.setenv("DATABASE_URL", "postgresql://somewhere")
    assert required(load_settings().database_url, "DATABASE_URL") == "postgresql://somewhere"


@pytest.mark.parametrize("brokers", ["kafka:9092", "a:1,b:65535", "a:1,", "a, b:9092", "[::1]:9092", "127.0.0.1:9092"])
def test_brokers_are_hosts_with_ports(monkeypatch: pytest.MonkeyPatch, brokers: str) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", brokers)
    assert load_settings().kafka_bootstrap_servers == brokers.replace(" ", "").rstrip(",")


@pytest.mark.parametrize("brokers", ["kafka:port", "kafka:65536", "kafka:", "PLAINTEXT://kafka:9092", ",", "a b:1", "user@a:1"])
def test_what_is_no_broker_is_refused_before_anything_connects(monkeypatch: pytest.MonkeyPatch, brokers: str) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", brokers)
    with pytest.raises(ConfigurationError, match=r"^KAFKA_BOOTSTRAP_SERVERS: .*expected host:port") as refused:
        load_settings()
    assert "me@" not in str(refused.value)
