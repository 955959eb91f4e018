"""A word of the user's, in every place that an error could quote it from, is looked for in every place that people look at."""

from __future__ import annotations

import asyncio
import io
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from consumer.postgres.database import Database
from consumer.postgres.migrating import upgrade
from sandbox.postgres import PostgresServer
from sandbox.stand_in import StandInServer
from tests.acceptance.exports import a_small_export, conversation
from tests.acceptance.topics import LETTERS, OUTPUTS
from tests.acceptance.worker import Worker, until
from tests.acceptance.world import World
from tests.integration.security.conftest import SecuredKafka
from tests.integration.security.webhook import a_webhook

KEY = "sk-canary-never-printed"

# What an application's own triggers and constraints may do: PostgreSQL quotes the row, or what the trigger says, in its errors.
QUOTING = """
    CREATE FUNCTION quote_it() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.memory_md LIKE '%{canary}Trigger%' THEN
            RAISE EXCEPTION 'not this: %', NEW.memory_md USING DETAIL = NEW.memory_md, HINT = NEW.memory_md;
        END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER quoting BEFORE UPDATE ON user_profiles FOR EACH ROW EXECUTE FUNCTION quote_it();
    ALTER TABLE conversation_chunks ADD CONSTRAINT quoting CHECK (content NOT LIKE '%{canary}Check%');
    ALTER TABLE conversation_chunks ADD CONSTRAINT casting CHECK (content NOT LIKE '%{canary}Cast%' OR content::int > 0);
"""


@pytest.fixture
def world(
    secured_kafka: SecuredKafka, postgres: PostgresServer, database: str, stand_in_server: StandInServer, tmp_path: Path
) -> Iterator[World]:
    async def migrate() -> None:
        migrating = Database(postgres.url(database))
        await upgrade(migrating)
        await migrating.close()

    asyncio.run(migrate())
    (tmp_path / "store").mkdir()
    kafka, prefix = secured_kafka.server.bootstrap_servers, f"canary-{uuid.uuid4().hex[:8]}-"
    settings = {
        "FULL_PASS_LOG_LEVEL": "DEBUG",
        "FULL_PASS_MAX_FAILURES": "2",
        "FULL_PASS_RETRY_BACKOFF_SECONDS": "0.05",
        "FULL_PASS_NOT_FOUND_GRACE_SECONDS": "0.2",
        "FULL_PASS_STORAGE_PATH_PATTERN": "exports/{user_id}/*",
        "ANTHROPIC_API_KEY": KEY,
    }
    world = World(kafka, postgres.url(database), stand_in_server.url, prefix, tmp_path, settings)
    world.create_topics(1)
    yield world
    world.close()


def a_zip(name: str) -> bytes:
    """A ZIP with one member of that name, which is no export."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(f"{name}/conversations.json", f'[{{"title": "{name}", "mapping": {{"{name}": ')
    return packed.getvalue()


@pytest.mark.guarantee("G9")
def test_what_drivers_stores_and_parsers_quote_is_in_no_log_event_alert_metric_or_error_column(
    world: World, postgres: PostgresServer, database: str
) -> None:
    canary = f"Zaunkoenig{uuid.uuid4().hex[:12]}"
    postgres.run_sql(QUOTING.format(canary=canary), database)
    file = f"{canary}.json"
    ends = {
        world.a_user(a_small_export(f"{canary}Trigger"), name=file): "internal",
        world.a_user([conversation(canary, f"{canary}Check", "Yes.")], name=file): "internal",
        world.a_user([conversation(canary, f"{canary}Cast", "Yes.")], name=file): "internal",
        world.a_user(name=file): "export_not_found",
        world.a_user(a_zip(canary), name=file): "export_unreadable",
        world.a_user(f"<html>{canary}</html>".encode(), name=file): "export_unreadable",
        world.a_user(f'[{{"title": "{canary}", {canary}: 1}}]'.encode(), name=file): "export_unreadable",
    }
    with a_webhook(f"{canary}Path") as (webhook, told), world.worker(FULL_PASS_ALERT_WEBHOOK_URL=webhook) as worker:
        worker.ready()
        for user in ends:
            world.publish(user)
        somebody = world.a_user(profile=False)
        for change in ({"storage_path": f"private/{canary}"}, {"storage_path": f"exports/../{canary}"}, {"user_id": canary}):
            world.publish(somebody, **change)
        world.publish(somebody, completed_at=canary, idempotency_key=f"{canary}\0")
        assert {user: world.until_ended(user)["error_code"] for user in ends} == ends
        until(lambda: len(told) == len(ends), what="everybody was told of")
        until(lambda: len(world.read(LETTERS)) == 4, what="the dead letters were written")
        places = what_is_seen(world, worker) | {"alerts": str(told)}
        assert worker.stop() == 0
        places["log"] = worker.log.read_text() + worker.printed.read_text()
    assert {place for place, text in places.items() if canary.casefold() in text.casefold()} == set()
    assert {place for place, text in places.items() if KEY in text or world.database_url.split("@")[0] in text} == set()
    assert {place for place, text in places.items() if "Traceback (most recent" in text} == set()


def what_is_seen(world: World, worker: Worker) -> dict[str, str]:
    """Each place that people look at, with what stands there; the bytes that dead letters keep are not such a place."""
    letters = [
        {name: value for name, value in seen.headers.items() if name.startswith("dead_letter_")} for seen in world.read(LETTERS)
    ]
    columns = "run_id, status, stage, error_code, error_detail, traceparent, idempotency_key"
    return {
        "metrics": worker.get("/metrics")[1],
        "readiness": worker.get("/health/ready")[1],
        "events": "\n".join(f"{seen.key!r} {seen.value!r} {seen.headers}" for seen in world.read(*OUTPUTS)),
        "dead letters": str(letters) + world.run("dead-letters", "list", "--json").out,
        "runs": world.run("runs", "list", "--json").out + world.run("status", "--json").out,
        "ledger": str(world.rows(f"SELECT {columns} FROM full_pass_runs")) + str(world.rows("SELECT * FROM full_pass_outbox")),
        "profile errors": str(world.rows("SELECT full_pass_status, full_pass_error FROM user_profiles")),
    }


def test_a_worker_listens_on_this_machine_alone_unless_told_otherwise(world: World) -> None:
    with world.worker() as worker:
        port = worker.port
        listening = [
            place.laddr for place in psutil.Process(worker.process.pid).net_connections() if place.status == psutil.CONN_LISTEN
        ]
    assert [(address.ip, address.port) for address in listening] == [("127.0.0.1", port)]
