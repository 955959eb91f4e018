"""Every setting of the service, read once from the environment (design, "Environment").

An empty string is the default. Each secret can also be given as a file: `ANTHROPIC_API_KEY_FILE=/run/secrets/key`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from consumer.errors import ConfigurationError

Seconds = Annotated[float, Field(gt=0, le=10 * 365 * 24 * 3600, allow_inf_nan=False)]
Usd = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[int, Field(ge=1)]
Bytes = Annotated[int, Field(ge=1)]
_PORT = "(?:[0-9]{1,4}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
_BROKER = re.compile(rf"(?:\[[0-9A-Fa-f:.]+(?:%\w+)?\]|[^\s:\[\]/@]+)(?::{_PORT})?")


def _plain(variable: str, default: Any, description: str) -> Any:
    """A field whose variable has no `FULL_PASS_` in front, because the rest of the world knows it by that name."""
    return Field(default=default, description=description, validation_alias=AliasChoices(variable))


class Settings(BaseSettings):
    """The settings. A field's variable is its name in upper case after `FULL_PASS_`, or the alias it declares."""

    model_config = SettingsConfigDict(
        env_prefix="FULL_PASS_", env_ignore_empty=True, extra="ignore", frozen=True, hide_input_in_errors=True
    )

    kafka_bootstrap_servers: str | None = _plain("KAFKA_BOOTSTRAP_SERVERS", None, "Comma-separated host:port of Kafka brokers.")
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = _plain(
        "KAFKA_SECURITY_PROTOCOL", "PLAINTEXT", "PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL."
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = _plain(
        "KAFKA_SASL_MECHANISM", "PLAIN", "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512."
    )
    kafka_sasl_username: str | None = _plain("KAFKA_SASL_USERNAME", None, "User name for SASL.")
    kafka_sasl_password: SecretStr | None = _plain("KAFKA_SASL_PASSWORD", None, "Password for SASL.")
    kafka_ssl_cafile: Path | None = _plain("KAFKA_SSL_CAFILE", None, "PEM file of the authority that signed the broker.")
    kafka_ssl_certfile: Path | None = _plain("KAFKA_SSL_CERTFILE", None, "PEM file of the client's certificate.")
    kafka_ssl_keyfile: Path | None = _plain("KAFKA_SSL_KEYFILE", None, "PEM file of the client's key.")
    database_url: SecretStr | None = _plain(
        "DATABASE_URL", None, "postgresql://user:password@host:port/name; a direct or session-mode connection."
    )
    export_store_url: str | None = _plain(
        "EXPORT_STORE_URL", None, "file:///folder, s3://, gs:// or az://; storage_path names the bucket."
    )
    anthropic_api_key: SecretStr | None = _plain("ANTHROPIC_API_KEY", None, "Key of the Anthropic API.")
    anthropic_base_url: str | None = _plain("ANTHROPIC_BASE_URL", None, "Where the Anthropic API answers, if not at home.")

    topic_prefix: str = Field(default="", description="Goes in front of every topic's name, as it is.")
    consumer_group: str = Field(default="full-pass", description="Kafka consumer group of the intake.")
    storage_path_pattern: str = Field(
        default="", description="Shell pattern that storage_path must match, such as exports/{user_id}/*; empty: any."
    )
    model: str = Field(default="claude-haiku-4-5-20251001", description="The Claude model of every call.")
    run_concurrency: Positive = Field(default=8, description="Runs at once in a worker.")
    model_concurrency: Positive = Field(default=32, description="Model calls at once in a worker.")
    model_timeout_seconds: Seconds = Field(default=600, description="Deadline of one model call.")
    lease_seconds: Annotated[Seconds, Field(ge=2)] = Field(
        default=30, description="How long a run stays with a worker that says nothing; 2 or more."
    )
    max_failures: Positive = Field(default=5, description="Failures after which a run ends for good.")
    give_up_after_seconds: Seconds = Field(default=259_200, description="How long an outage may hold a run up before it ends.")
    not_found_grace_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        default=60, description="How long a missing profile or export is looked for again; 0: once."
    )
    retry_backoff_seconds: Seconds = Field(
        default=5, description="First wait before a run is tried again; doubled each time with jitter, at most an hour."
    )
    coverage_floor: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.9, description="Share of chunks that must be answered for a MEMORY."
    )
    max_run_cost_usd: Usd = Field(default=50, description="Most that one run may cost.")
    max_cost_usd_per_day: Usd | None = Field(
        default=None, description="Most that all workers may spend in 24 hours; empty: no limit."
    )
    max_export_bytes: Bytes = Field(default=4_000_000_000, description="Largest export as it lies in the store.")
    max_export_uncompressed_bytes: Bytes = Field(default=16_000_000_000, description="Largest export after unpacking.")
    max_compression_ratio: Positive = Field(default=200, description="Most that a byte of export may unpack to.")
    max_conversations: Positive = Field(default=200_000, description="Most conversations in an export.")
    facts_tokens_per_call: Positive = Field(default=2_000, description="Tokens of conversation in one facts request.")
    poll_seconds: Seconds = Field(default=1, description="Longest wait between looks at the ledger; notifications are faster.")
    shutdown_seconds: Seconds = Field(default=25, description="Time to finish or hand back after SIGTERM.")
    retention_days: Annotated[float, Field(gt=0, le=36_500)] = Field(
        default=30, description="How long recorded answers and published outbox rows are kept."
    )
    http_host: str = Field(default="127.0.0.1", description="Address of health and metrics; a container wants 0.0.0.0.")
    http_port: Annotated[int, Field(ge=0, le=65_535)] = Field(
        default=8080, description="Port of health and metrics; 0 takes a free one and logs it."
    )
    alert_webhook_url: SecretStr | None = Field(
        default=None, description="Told of failed runs, but not of superseded and cancelled ones, if set."
    )
    alert_webhook_secret: SecretStr | None = Field(default=None, description="Signs what the webhook is told.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(default="INFO", description="DEBUG, INFO, WARNING or ERROR.")
    log_format: Literal["json", "console"] | None = Field(
        default=None, description="json, or console; empty: console on a terminal, json elsewhere."
    )

    @field_validator("kafka_bootstrap_servers")
    @classmethod
    def _brokers(cls, value: str | None) -> str | None:
        if value is None:
            return None
        brokers = [each.strip() for each in value.split(",") if each.strip()]
        if not brokers or not all(map(_BROKER.fullmatch, brokers)):
            raise ValueError("expected host:port, comma-separated, such as kafka-1:9092,kafka-2:9092")
        return ",".join(brokers)

    @field_validator("log_level", "kafka_security_protocol", "kafka_sasl_mechanism", mode="before")
    @classmethod
    def _any_case(cls, value: Any) -> Any:
        return value.upper() if isinstance(value, str) else value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        del dotenv_settings, file_secret_settings
        return (init_settings, env_settings, _SecretFiles(settings_cls))


class _SecretFiles(PydanticBaseSettingsSource):
    """Reads `NAME_FILE` for each secret `NAME`. The variable itself wins; a file that can't be read is an error."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        variable = variable_of(field_name, field)
        path = os.environ.get(f"{variable}_FILE", "")
        if not is_secret(field) or not path or os.environ.get(variable):
            return None, field_name, False
        try:
            return Path(path).read_text(encoding="utf-8").strip(), field_name, False
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise ConfigurationError(f"{variable}_FILE names a file that can't be read: {reason}") from None

    def __call__(self) -> dict[str, Any]:
        """The secrets that were given as files, by their variable (fields with an alias) or field name."""
        found: dict[str, Any] = {}
        for name, field in self.settings_cls.model_fields.items():
            value, _, _ = self.get_field_value(field, name)
            if value:
                alias = field.validation_alias
                found[str(alias.choices[0]) if isinstance(alias, AliasChoices) else name] = value
        return found


def variable_of(name: str, field: FieldInfo) -> str:
    """The environment variable of a field."""
    if isinstance(field.validation_alias, AliasChoices):
        return str(field.validation_alias.choices[0])
    return f"FULL_PASS_{name.upper()}"


def is_secret(field: FieldInfo) -> bool:
    """Whether a field is never printed and may be given as a file."""
    return "SecretStr" in str(field.annotation)


def load_settings() -> Settings:
    """Read the environment.

    Raises:
        ConfigurationError: naming each variable that is wrong, and what was expected, never what was given.
    """
    try:
        return Settings()
    except ValidationError as error:
        lines = [_readable(str(problem["loc"][0]), problem["msg"]) for problem in error.errors(include_input=False)]
        raise ConfigurationError("; ".join(lines)) from None


def _readable(location: str, message: str) -> str:
    field = Settings.model_fields.get(location)
    return f"{variable_of(location, field) if field else location}: {message}"


def required(value: Any, variable: str) -> Any:
    """The value of a setting that a command can't do without.

    Raises:
        ConfigurationError: naming the variable, when it isn't set.
    """
    if value is None:
        raise ConfigurationError(
            f"{variable} is not set. Set it in the environment ('full-pass sandbox up' prints one that works)."
        )
    return value.get_secret_value() if isinstance(value, SecretStr) else value
