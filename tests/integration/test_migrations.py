"""`db upgrade` on every kind of database that it may find, and the way back."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection

from consumer.errors import CommandError
from consumer.postgres import migrating, tables
from consumer.postgres.database import Database
from sandbox.errors import SandboxError
from sandbox.postgres import PostgresServer

ROOT = Path(__file__).parents[2]
OWN = {
    *("full_pass_runs", "full_pass_outbox", "full_pass_model_calls", "full_pass_spend", "full_pass_forgotten"),
    *("full_pass_replays", "full_pass_pause"),
}
SEQUENCES = ("full_pass_generation_seq", "full_pass_outbox_id_seq")
FOUND = """
    CREATE TABLE user_profiles (user_id uuid PRIMARY KEY, email text NOT NULL, soul_md text);
    CREATE TABLE conversation_chunks (id bigserial PRIMARY KEY, user_id uuid, content text, mine integer DEFAULT 3);
    INSERT INTO user_profiles VALUES ('00000000-0000-0000-0000-000000000001', 'ada', '{}');
    INSERT INTO conversation_chunks (user_id, content) VALUES ('00000000-0000-0000-0000-000000000001', 'old');
"""


class Place:
    """A database, and SQL on it as its superuser."""

    def __init__(self, server: PostgresServer, name: str) -> None:
        self._server = server
        self._name = name
        self.url = server.url(name)

    def sql(self, statement: str) -> str:
        return self._server.run_sql(statement, self._name)

    def url_of(self, role: str, password: str) -> str:
        parts = urlsplit(self.url)
        return urlunsplit(parts._replace(netloc=f"{role}:{password}@{parts.hostname}:{parts.port}"))

    def tables(self) -> set[str]:
        return set(self.sql("SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace").split())

    def columns(self, table: str) -> list[str]:
        return self.sql(
            f"SELECT attname FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attnum > 0 AND NOT attisdropped"
        ).split()


@pytest.fixture
def place(postgres: PostgresServer, database: str) -> Place:
    return Place(postgres, database)


@pytest.fixture
def role(postgres: PostgresServer, place: Place) -> Iterator[str]:
    """A role that owns nothing, removed with what it was given."""
    name = f"worker_{uuid4().hex[:8]}"
    place.sql(f"CREATE ROLE {name} LOGIN PASSWORD 'pw'")
    yield name
    place.sql(f"DROP OWNED BY {name}")
    postgres.run_sql(f"DROP ROLE {name}")


def with_database(url: str, work: Callable[[Database], Any]) -> Any:
    async def main() -> Any:
        database = Database(url)
        try:
            return await work(database)
        finally:
            await database.close()

    return asyncio.run(main())


def upgrade(url: str) -> str:
    return str(with_database(url, migrating.upgrade))


def downgrade(url: str) -> None:
    with_database(url, migrating.downgrade)


def full_pass(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "consumer", *arguments],
        env={**os.environ, "DATABASE_URL": url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_an_empty_database_gets_all_tables_and_a_second_time_nothing(place: Place) -> None:
    assert upgrade(place.url) == upgrade(place.url) == "full_pass_0002"
    assert place.tables() == OWN | {"user_profiles", "conversation_chunks", "full_pass_alembic_version"}


def test_another_alembic_history_is_left_alone(place: Place) -> None:
    place.sql("CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)")
    place.sql("INSERT INTO alembic_version VALUES ('theirs')")
    upgrade(place.url)
    downgrade(place.url)
    assert place.sql("SELECT version_num FROM alembic_version") == "theirs"


def test_models_and_migrations_say_the_same(place: Place) -> None:
    upgrade(place.url)

    def differences(connection: Connection) -> list[Any]:
        options = {
            "include_object": migrating.is_ours,
            "compare_server_default": True,
            "compare_type": True,
            "version_table": migrating.VERSION_TABLE,
        }
        context = MigrationContext.configure(connection, opts=options)
        return list(compare_metadata(context, [tables.metadata, tables.application_metadata]))  # type: ignore[arg-type]  # it takes several

    async def compare(database: Database) -> list[Any]:
        async with database.engine.connect() as connection:
            return await connection.run_sync(differences)

    assert with_database(place.url, compare) == []


def test_found_tables_gain_what_is_missing_and_keep_their_rows_and_columns(place: Place) -> None:
    place.sql(FOUND)
    upgrade(place.url)
    assert set(place.columns("user_profiles")) == {"email", *tables.user_profiles.columns.keys()}
    assert set(place.columns("conversation_chunks")) == {"id", "mine", *tables.conversation_chunks.columns.keys()}
    assert place.sql("SELECT email, soul_md, memory_md, profile_version FROM user_profiles") == "ada|{}||0"
    assert place.sql("SELECT id, content, mine, title FROM conversation_chunks") == "1|old|3|"


def test_a_downgrade_removes_what_was_added_and_nothing_that_was_found(place: Place) -> None:
    place.sql(FOUND)
    upgrade(place.url)
    place.sql("UPDATE user_profiles SET profile_version = 7")
    downgrade(place.url)
    assert place.tables() == {"user_profiles", "conversation_chunks", "full_pass_alembic_version"}
    assert place.columns("user_profiles") == ["user_id", "email", "soul_md", "profile_version"]
    assert place.columns("conversation_chunks") == ["id", "user_id", "content", "mine"]
    assert place.sql("SELECT email, profile_version FROM user_profiles") == "ada|7"
    assert upgrade(place.url) == "full_pass_0002"


def test_a_downgrade_never_drops_the_two_tables_even_where_this_service_made_them(place: Place) -> None:
    upgrade(place.url)
    place.sql("INSERT INTO user_profiles (user_id, memory_md) VALUES ('00000000-0000-0000-0000-000000000001', 'kept')")
    downgrade(place.url)
    assert place.sql("SELECT memory_md FROM user_profiles") == "kept"
    assert not place.tables() & OWN


@pytest.mark.parametrize("hidden", [False, True], ids=["plain", "row-level security"])
def test_a_role_that_owns_nothing_gets_statements_for_the_owner_and_they_suffice(place: Place, role: str, hidden: bool) -> None:
    place.sql(FOUND)
    if hidden:
        place.sql(
            "ALTER TABLE user_profiles ENABLE ROW LEVEL SECURITY; ALTER TABLE conversation_chunks ENABLE ROW LEVEL SECURITY"
        )
    url = place.url_of(role, "pw")
    refused = full_pass(url, "db", "upgrade")
    assert (refused.returncode, len(refused.stderr.splitlines())) == (1, 1)
    assert "Traceback" not in refused.stderr
    assert not place.tables() & OWN
    place.sql(refused.stdout)
    done = full_pass(url, "db", "upgrade")
    assert (done.returncode, done.stdout) == (0, "the database is at revision full_pass_0002\n")

    async def as_worker(database: Database) -> None:
        async with database.transaction() as transaction:
            await transaction.exec_driver_sql("UPDATE user_profiles SET memory_md = 'new'")
            await transaction.exec_driver_sql("DELETE FROM conversation_chunks")
            await transaction.exec_driver_sql(
                "INSERT INTO conversation_chunks (user_id, content) VALUES ('00000000-0000-0000-0000-000000000001', 'new')"
            )

    with_database(url, as_worker)
    assert place.sql("SELECT memory_md FROM user_profiles") == "new"
    assert place.sql("SELECT content FROM conversation_chunks") == "new"


def test_tables_that_are_complete_need_no_owner(place: Place, role: str) -> None:
    upgrade(place.url)
    downgrade(place.url)
    place.sql(f"GRANT CREATE, USAGE ON SCHEMA public TO {role}; GRANT ALL ON user_profiles, conversation_chunks TO {role}")
    place.sql("DROP TABLE full_pass_alembic_version")
    assert upgrade(place.url_of(role, "pw")) == "full_pass_0002"


def test_a_table_that_is_in_use_is_waited_for(place: Place) -> None:
    """Two seconds at a time: a lock that is queued for longer would hold up the application's own traffic behind it."""
    place.sql(FOUND)
    holder = threading.Thread(
        target=place.sql, args=("BEGIN; LOCK TABLE user_profiles IN ACCESS SHARE MODE; SELECT pg_sleep(3); COMMIT",)
    )
    holder.start()
    deadline = time.monotonic() + 5
    while place.sql("SELECT count(*) FROM pg_locks WHERE relation = 'user_profiles'::regclass") == "0":
        assert time.monotonic() < deadline
    assert upgrade(place.url) == "full_pass_0002"
    holder.join()


def test_two_upgrades_at_once_do_no_harm(place: Place) -> None:
    async def both() -> list[str]:
        first, second = Database(place.url), Database(place.url)
        try:
            return list(await asyncio.gather(migrating.upgrade(first), migrating.upgrade(second)))
        finally:
            await asyncio.gather(first.close(), second.close())

    assert asyncio.run(both()) == ["full_pass_0002"] * 2


def test_a_table_of_that_name_without_users_is_refused(place: Place) -> None:
    place.sql("CREATE TABLE user_profiles (id integer)")
    with pytest.raises(CommandError, match="user_profiles exists without the column user_id"):
        upgrade(place.url)


def test_visitors_of_a_hosted_database_see_none_of_our_tables(place: Place, postgres: PostgresServer) -> None:
    visitors = ("anon", "authenticated")
    for visitor in visitors:
        place.sql(f"CREATE ROLE {visitor}")
    try:
        for things in ("TABLES", "SEQUENCES"):
            place.sql(f"ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON {things} TO anon, authenticated")
        upgrade(place.url)
        for table in (*OWN, migrating.VERSION_TABLE):
            assert place.sql(f"SELECT relrowsecurity FROM pg_class WHERE relname = '{table}'") == "t"
            for visitor in visitors:
                with pytest.raises(SandboxError, match="permission denied"):
                    place.sql(f"SET ROLE {visitor}; SELECT * FROM {table}")
        for visitor in visitors:
            for sequence in SEQUENCES:
                with pytest.raises(SandboxError, match="permission denied"):
                    place.sql(f"SET ROLE {visitor}; SELECT nextval('{sequence}')")
    finally:
        for visitor in visitors:
            place.sql(f"DROP OWNED BY {visitor}")
            postgres.run_sql(f"DROP ROLE {visitor}")


def test_a_role_of_the_database_sees_none_of_our_tables_although_public_is_granted_what_is_new(place: Place, role: str) -> None:
    for things in ("TABLES", "SEQUENCES"):
        place.sql(f"ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON {things} TO PUBLIC")
    upgrade(place.url)
    place.sql(f"GRANT USAGE ON SCHEMA public TO {role}")
    for question in (*(f"SELECT * FROM {table}" for table in OWN), *(f"SELECT nextval('{each}')" for each in SEQUENCES)):
        with pytest.raises(SandboxError, match="permission denied"):
            place.sql(f"SET ROLE {role}; {question}")


def test_the_alembic_command_goes_both_ways(place: Place) -> None:
    for arguments, left in ((("upgrade", "head"), OWN), (("downgrade", "base"), set())):
        done = subprocess.run(
            [sys.executable, "-m", "alembic", *arguments],
            cwd=ROOT,
            env={**os.environ, "DATABASE_URL": place.url},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert place.tables() & OWN == left


def test_a_database_that_is_behind_is_told_by_its_revision_and_the_command(place: Place) -> None:
    missing = with_database(place.url, migrating.missing_migration)
    assert missing == "the database is at revision none, expected full_pass_0002: run 'full-pass db upgrade'"
    upgrade(place.url)
    assert with_database(place.url, migrating.missing_migration) is None


def test_a_revision_from_the_future_is_worked_with(place: Place) -> None:
    """While a new version is rolled out, the old one runs on beside it."""
    upgrade(place.url)
    place.sql("UPDATE full_pass_alembic_version SET version_num = 'full_pass_9999'")
    assert with_database(place.url, migrating.missing_migration) is None
