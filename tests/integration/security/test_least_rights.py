"""The rights that docs/security.md grants are enough for everything that a worker does, and one less is told by its name."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from consumer.kafka.alerts import Alerts
from consumer.kafka.broker import BrokerProbe
from consumer.kafka.connection import KafkaTrouble
from consumer.kafka.intake import Intake
from consumer.kafka.relay import Relay
from consumer.postgres import tables
from consumer.postgres.database import Database
from consumer.postgres.migrating import missing_migration, upgrade
from consumer.postgres.rights import NEEDED
from consumer.settings import Settings
from sandbox.postgres import PostgresServer
from sandbox.stand_in import StandInServer
from tests.acceptance.exports import a_small_export
from tests.acceptance.topics import INPUT, LETTERS, OUTPUTS
from tests.acceptance.worker import until
from tests.acceptance.world import World
from tests.integration.kafka_environment import Environment, a_failure, a_memory, an_environment
from tests.integration.security.acls import Acl, allow, take_back, written_in
from tests.integration.security.conftest import PASSWORD, PUBLISHER, WORKER, SecuredKafka
from tests.integration.security.read_only import can_become_nobody
from tests.integration.security.webhook import a_webhook

ROOT = Path(__file__).parents[3]
DOCUMENT = (ROOT / "docs/security.md").read_text(encoding="utf-8")
ACLS = written_in(DOCUMENT)


def statements(role: str) -> str:
    """The SQL of the document that makes the worker's role, under another name and password."""
    (block,) = (found for found in re.findall(r"```sql\n(.*?)```", DOCUMENT, re.DOTALL) if "CREATE ROLE" in found)
    return str(block).replace("full_pass_worker", role).replace("change me", PASSWORD)


@pytest.fixture
def role(postgres: PostgresServer, database: str) -> Iterator[str]:
    """A role as the document makes it, in a migrated database; its name."""
    name = f"worker_{uuid.uuid4().hex[:8]}"
    asyncio.run(with_database(postgres.url(database), upgrade))
    postgres.run_sql(statements(name), database)
    yield name
    postgres.run_sql(f"DROP OWNED BY {name}", database)
    postgres.run_sql(f"DROP ROLE {name}")


async def with_database(url: str, work: Callable[[Database], Any]) -> Any:
    database = Database(url)
    try:
        return await work(database)
    finally:
        await database.close()


def url_of(postgres: PostgresServer, database: str, role: str) -> str:
    """The database's URL for that role."""
    return re.sub(r"//[^@]*@", f"//{role}:{PASSWORD}@", postgres.url(database))


# -- everything that a worker does ---------------------------------------------------------------------------------------


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that everybody may read, with `tmp` in it, which everybody may write."""
    folder = Path(tempfile.mkdtemp(prefix="full-pass-"))
    folder.chmod(0o755)
    (folder / "tmp").mkdir()
    (folder / "tmp").chmod(0o1777)
    (folder / "store").mkdir()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def world(
    secured_kafka: SecuredKafka, postgres: PostgresServer, database: str, stand_in_server: StandInServer, public_folder: Path
) -> Iterator[World]:
    """Topics by their documented names; the test itself may do everything."""
    kafka = secured_kafka.server.bootstrap_servers
    found = World(kafka, postgres.url(database), stand_in_server.url, "", public_folder)
    found.create_topics(1)
    asyncio.run(allow(kafka, ACLS))
    yield found
    found.close()


def read_only(folder: Path) -> dict[str, str]:
    """What makes a Python process one of a container with a read-only file system; see `read_only.py`."""
    shutil.copy(Path(__file__).with_name("read_only.py"), folder / "sitecustomize.py")
    return {
        "READ_ONLY_WORKER": str(ROOT / "sandbox/unprivileged.py"),
        "PYTHONPATH": str(folder),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TMPDIR": str(folder / "tmp"),
    }


def test_a_worker_with_the_documented_rights_on_a_read_only_file_system_carries_whole_passes(
    world: World, secured_kafka: SecuredKafka, postgres: PostgresServer, database: str, role: str, public_folder: Path
) -> None:
    """A pass, a failure with its alert, a dead letter and a publication, by users, a role and a process that may do no more."""
    ca = public_folder / "ca.pem"
    shutil.copy(secured_kafka.trust.ours.certificate, ca)
    kafka = {**secured_kafka.variables("SASLTLS", "SASL_SSL", "SCRAM-SHA-256"), "KAFKA_SSL_CAFILE": str(ca)}
    confined = read_only(public_folder)
    assert_confined(world.environment(**confined), public_folder)
    with a_webhook(PASSWORD) as (webhook, told):
        secrets = {"DATABASE_URL": url_of(postgres, database, role), "KAFKA_SASL_PASSWORD": PASSWORD}
        for name, secret in {**secrets, "ANTHROPIC_API_KEY": "sk-test", "FULL_PASS_ALERT_WEBHOOK_URL": webhook}.items():
            (public_folder / name).write_text(f"{secret}\n", encoding="utf-8")
            kafka |= {name: "", f"{name}_FILE": str(public_folder / name)}
        rights = {**kafka, "FULL_PASS_CONSUMER_GROUP": "full-pass"}
        rights |= {"KAFKA_SASL_USERNAME": WORKER}
        with world.worker(**rights, **confined, FULL_PASS_LOG_LEVEL="DEBUG").ready() as worker:
            if sys.platform == "linux" and can_become_nobody():
                assert psutil.Process(worker.process.pid).uids().effective != 0
            well, empty = world.a_user(a_small_export("origami")), world.a_user([])
            publish = ("publish", "--user-id", well.id, "--storage-path", well.path, "--completed-at", well.completed_at)
            said = world.run(*publish, **{**rights, "KAFKA_SASL_USERNAME": PUBLISHER})
            assert said.status == 0, said.err
            world.publish(empty)
            world.produce([(None, b"no JSON", [])])
            try:
                ends = [world.until_ended(user)["error_code"] for user in (well, empty)]
            except AssertionError as late:
                late.add_note(worker.log.read_text())
                raise
            assert ends == [None, "export_empty"], worker.log.read_text()
            assert world.names_of(well) == ["memory-saved", "v2-completed"]
            until(lambda: told and world.read(LETTERS), what="the failure was told and the dead letter written")
            assert worker.reasons() == {}
            assert worker.get("/metrics")[1].count("full_pass_part_restarts_total{") == 0
            assert worker.stop() == 0
        operate(
            world, rights, str(world.runs(empty)[0]["run_id"]), well.id, lambda grant: postgres.run_sql(grant, database), role
        )
        seen = worker.log.read_text() + worker.printed.read_text() + said.out + said.err + str(world.read(INPUT, *OUTPUTS))
        assert PASSWORD not in seen
        assert "Traceback" not in seen


def operate(world: World, rights: dict[str, str], failed: str, user: str, grant: Callable[[str], str], role: str) -> None:
    """Let the role do an operator's work, which takes what the document says that it takes."""
    commands = {
        ("runs", "retry", failed): f"GRANT USAGE ON SEQUENCE full_pass_generation_seq TO {role}",
        ("users", "forget", user): f"GRANT INSERT, UPDATE ON full_pass_forgotten TO {role}",
        ("pause",): f"GRANT INSERT, UPDATE ON full_pass_pause TO {role}",
        ("resume",): f"GRANT DELETE ON full_pass_pause TO {role}",
    }
    for command, missing in commands.items():
        said = world.run(*command, **rights)
        assert (said.status, len(said.err.splitlines())) == (1, 1), said
        assert re.search(r"full_pass_\w+ \(SQLSTATE 42501\)", said.err)
        grant(missing)
        said = world.run(*command, **rights)
        assert said.status == 0, said.err


def assert_confined(environment: dict[str, str], folder: Path) -> None:
    """Make sure that the confinement is one, before anything is concluded from it."""
    for place, allowed in ((folder / "x", False), (folder / "tmp/x", True)):
        command = [sys.executable, "-c", f"open({str(place)!r}, 'w')"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
        assert (done.returncode == 0) == allowed, done.stderr


# -- one less ------------------------------------------------------------------------------------------------------------


def test_a_grant_too_few_is_told_by_readiness_before_a_run_meets_it(postgres: PostgresServer, database: str, role: str) -> None:
    async def main(worker: Database) -> None:
        assert await missing_migration(worker) is None
        for thing, privileges in NEEDED.items():
            kind = "SEQUENCE " if thing.endswith("_seq") else ""
            for privilege in privileges:
                postgres.run_sql(f"BEGIN; REVOKE {privilege} ON {kind}{thing} FROM {role}; COMMIT", database)
                if thing == "user_profiles":
                    column = "memory_md" if privilege == "UPDATE" else "profile_version"
                    postgres.run_sql(f"REVOKE {privilege} ({column}) ON {thing} FROM {role}", database)
                said = await missing_migration(worker) or ""
                assert said.startswith(f"our role in PostgreSQL lacks {privilege} on {thing};"), said
                assert "docs/security.md" in said
                postgres.run_sql(f"GRANT {privilege} ON {kind}{thing} TO {role}", database)
        assert await missing_migration(worker) is None

    asyncio.run(with_database(url_of(postgres, database, role), main))


def test_what_readiness_asks_for_leaves_no_table_of_ours_out() -> None:
    assert tables.metadata.tables.keys() <= NEEDED.keys()


def test_a_policy_too_few_is_told_instead_of_every_profile_being_taken_for_missing(
    postgres: PostgresServer, database: str, role: str
) -> None:
    """Row-level security hides rows without a word: every run would end as `profile_not_found`."""
    postgres.run_sql("ALTER TABLE user_profiles ENABLE ROW LEVEL SECURITY", database)
    postgres.run_sql("ALTER TABLE conversation_chunks ENABLE ROW LEVEL SECURITY", database)

    async def main(worker: Database) -> None:
        assert await missing_migration(worker) is None
        for table in (name for name in NEEDED if not name.endswith("_seq")):
            postgres.run_sql(f"ALTER POLICY {role} ON {table} TO postgres", database)
            said = await missing_migration(worker) or ""
            assert said.startswith(f"row-level security hides {table} from our role in PostgreSQL"), said
            postgres.run_sql(f"ALTER POLICY {role} ON {table} TO {role}", database)

    asyncio.run(with_database(url_of(postgres, database, role), main))


def test_a_grant_that_goes_while_the_worker_runs_is_an_outage_that_names_the_table(
    postgres: PostgresServer, database: str, role: str
) -> None:
    postgres.run_sql(f"REVOKE SELECT ON full_pass_alembic_version FROM {role}", database)

    async def main(worker: Database) -> str:
        async with worker.transaction() as transaction:
            return str(await transaction.exec_driver_sql("SELECT * FROM full_pass_alembic_version"))

    with pytest.raises(Exception, match=r"with full_pass_alembic_version \(SQLSTATE 42501\)"):
        asyncio.run(with_database(url_of(postgres, database, role), main))


def test_an_acl_too_few_is_told_by_whoever_needs_it(secured_kafka: SecuredKafka, database_url: str) -> None:
    """Each ACL of the document is taken away and given back, and the part that needs it says so instead of working."""
    kafka = secured_kafka.server.bootstrap_servers

    async def main() -> None:
        access = secured_kafka.variables("SASL", "SASL_PLAINTEXT", "SCRAM-SHA-256", KAFKA_SASL_USERNAME=WORKER)
        names = {"consumer_group": "full-pass", "alert_webhook_url": "http://127.0.0.1:1"}
        settings = Settings(**{"DATABASE_URL": database_url, **access, **names})
        async with an_environment(kafka, database_url, "", 1, **names) as env:
            await allow(kafka, ACLS)
            for acl in (each for each in ACLS if each.user == WORKER):
                await take_back(kafka, [acl])
                said = await whoever_needs(acl, env, settings)
                assert re.search(r"not visible to our Kafka user|AuthorizationFailed", said), f"{acl}: {said}"
                await allow(kafka, [acl])
            await take_back(kafka, ACLS)

    asyncio.run(main())


async def whoever_needs(acl: Acl, env: Environment, settings: Settings) -> str:
    """What readiness says, or else the part that needs the ACL."""
    async with BrokerProbe(settings) as probe:
        if (said := await probe.check()) is not None:
            return said
    await env.announce(a_memory(1), a_failure(1))
    if acl.name == "full-pass":
        part: Intake | Alerts | Relay = Intake(settings, env.ledger, env.health, env.metrics)
    elif acl.name == "full-pass-alerts" or (acl.operation, acl.name) == ("Read", "v2-failed"):
        part = Alerts(settings, env.health, env.metrics)
    else:
        part = Relay(settings, env.outbox, env.health, env.metrics)
    with pytest.raises(KafkaTrouble) as caught:
        async with asyncio.timeout(20):
            await part.run(asyncio.Event())
    return str(caught.value)
