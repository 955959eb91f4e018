"""Where secrets might be printed: refused connections, settings, errors of drivers."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from consumer.postgres.database import Database
from consumer.settings import Settings, is_secret, variable_of
from tests.acceptance.worker import until
from tests.acceptance.world import World
from tests.integration.security.conftest import PASSWORD, USER, SecuredKafka

WRONG = "wr0ng-never-printed"
SECRETS = tuple(variable_of(name, field) for name, field in Settings.model_fields.items() if is_secret(field))


@pytest.fixture
def refused(secured_kafka: SecuredKafka, package_database_url: str, tmp_path: Path) -> Iterator[World]:
    """An environment whose passwords, both of them, are wrong."""
    kafka = secured_kafka.variables("SASLTLS", "SASL_SSL", "SCRAM-SHA-512", KAFKA_SASL_PASSWORD=WRONG)
    wrong_url = re.sub(r":[^:@]*@", f":{WRONG}@", package_database_url)
    world = World(kafka["KAFKA_BOOTSTRAP_SERVERS"], wrong_url, "http://127.0.0.1:1", "", tmp_path, settings=kafka)
    yield world
    world.close()


@pytest.mark.guarantee("G9")
def test_wrong_passwords_are_told_in_a_line_and_waited_for_and_nowhere_printed(refused: World) -> None:
    """By each command, and by a worker, which stays up: whoever mends the password finds it at work."""
    nobody = str(uuid.uuid4())
    kafka, postgres = "Kafka at KAFKA_BOOTSTRAP_SERVERS refuses KAFKA_SASL_USERNAME", "PostgreSQL at DATABASE_URL refuses"
    commands = {
        ("topics", "create"): kafka,
        ("publish", "--user-id", nobody, "--storage-path", "a/b"): kafka,
        ("dead-letters", "list"): kafka,
        ("status", "--json"): postgres,
        ("db", "upgrade"): postgres,
    }
    with refused.worker(FULL_PASS_LOG_LEVEL="DEBUG") as worker, ThreadPoolExecutor(2) as pool:
        for (command, words), said in zip(commands.items(), pool.map(lambda each: refused.run(*each), commands), strict=True):
            assert (said.status, len(said.err.splitlines())) == (1, 1), (command, said)
            assert words in said.err
            assert (said.out != "") == (command[0] == "status"), (command, said)  # which has a place for what it can't reach
            assert WRONG not in said.out + said.err
        until(lambda: {"kafka", "database"} <= worker.reasons().keys(), what="the worker said why it is not ready")
        until(lambda: kafka in worker.reasons()["kafka"] and postgres in worker.reasons()["database"], what="and said it well")
        seen = worker.get("/health/ready")[1] + worker.get("/metrics")[1]
        assert worker.stop() == 0
    seen += worker.log.read_text() + worker.printed.read_text()
    assert not [secret for secret in (WRONG, PASSWORD) if secret in seen]
    assert "Traceback" not in seen


@pytest.mark.guarantee("G9")
def test_a_certificate_that_is_missing_is_a_mistake_and_exits_with_2(secured_kafka: SecuredKafka, tmp_path: Path) -> None:
    kafka = secured_kafka.variables("MTLS", "SSL", KAFKA_SSL_CERTFILE=str(tmp_path / "nowhere"))
    world = World(kafka["KAFKA_BOOTSTRAP_SERVERS"], "postgresql://u@127.0.0.1:1/x", "", "", tmp_path, settings=kafka)
    said = world.run("topics", "create")
    assert (said.status, len(said.err.splitlines())) == (2, 1)
    assert "KAFKA_SSL_CERTFILE, KAFKA_SSL_KEYFILE: expected a readable PEM pair" in said.err
    world.close()


@pytest.mark.guarantee("G9")
def test_settings_print_no_secret_in_any_form(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in SECRETS:
        monkeypatch.setenv(variable, PASSWORD)
    settings = Settings()
    assert all(getattr(settings, name).get_secret_value() == PASSWORD for name in named_secrets())
    forms = [
        repr(settings),
        str(settings),
        f"{settings}",
        settings.model_dump_json(),
        str(settings.model_dump()),
        str(dict(settings)),
    ]
    assert not [form for form in forms if PASSWORD in form]
    with pytest.raises(AttributeError) as caught:
        settings.nonsense  # type: ignore[attr-defined]  # noqa: B018 - its message is what is looked at
    assert PASSWORD not in str(caught.value)


def named_secrets() -> list[str]:
    """The fields that hold secrets."""
    return [name for name, field in Settings.model_fields.items() if is_secret(field)]


@pytest.mark.guarantee("G9")
def test_an_error_of_the_driver_holds_no_value_of_the_statement(database_url: str) -> None:
    """As the traceback of a command that meets what nobody thought of would show it."""

    async def main() -> None:
        database = Database(database_url)
        try:
            with pytest.raises(DBAPIError) as caught:
                async with database.transaction() as transaction:
                    await transaction.execute(text("SELECT no_such_function(CAST(:memory AS text))"), {"memory": USER * 3})
            assert "no_such_function" in str(caught.value)
            assert USER * 3 not in str(caught.value)
            assert USER * 3 not in repr(caught.value)
        finally:
            await database.close()

    asyncio.run(main())
