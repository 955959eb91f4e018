"""What visitors of a hosted database's HTTP API see of our tables, and who keeps what he had."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import uuid4

import pytest

from consumer.postgres import migrating
from consumer.postgres.application_tables import APPLICATION_TABLES
from consumer.postgres.database import Database
from sandbox.errors import SandboxError
from sandbox.postgres import PostgresServer

VISITORS = ("anon", "authenticated")
ADA, BOB = uuid4(), uuid4()
ROWS = f"""
    INSERT INTO user_profiles (user_id, memory_md) VALUES ('{ADA}', 'ada''s'), ('{BOB}', 'bob''s');
    INSERT INTO conversation_chunks VALUES ('{ADA}', 'c', 't', 'ada''s words', 1, 0, 1, 1, 'medium', false, now());
    INSERT INTO full_pass_spend VALUES (now(), 1);
"""


@dataclass(frozen=True)
class Hosted:
    """A database as Supabase hands it out: its owner is no superuser, and what is new in `public` is given to its API's roles."""

    server: PostgresServer
    name: str
    owner: str

    def sql(self, statement: str, role: str = "") -> str:
        return self.server.run_sql(f"SET ROLE {role or self.owner}; {statement}", self.name)

    def upgrade(self) -> None:
        url = self.server.url(self.name).replace("postgres:", f"{self.owner}:", 1).replace(self.password, "pw")
        asyncio.run(_upgrade(url))

    @property
    def password(self) -> str:
        return self.server.url().split("@")[0].rsplit(":", 1)[1]

    def tables(self) -> list[str]:
        """Every table in `public`."""
        return self.sql(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1"
        ).split()

    def protected(self, table: str) -> bool:
        return self.sql(f"SELECT relrowsecurity FROM pg_class WHERE oid = '{table}'::regclass") == "t"


async def _upgrade(url: str) -> None:
    database = Database(url)
    try:
        await migrating.upgrade(database)
        assert await migrating.missing_migration(database) is None
    finally:
        await database.close()


@contextmanager
def a_hosted_database(server: PostgresServer, name: str, visitors: tuple[str, ...]) -> Iterator[Hosted]:
    owner = f"owner_{uuid4().hex[:8]}"
    roles = {owner: "LOGIN PASSWORD 'pw'", **dict.fromkeys(visitors, "NOLOGIN"), f"service_{owner}": "NOLOGIN BYPASSRLS"}
    for role, attributes in roles.items():
        server.run_sql(f"CREATE ROLE {role} {attributes}")
    given = ", ".join(roles.keys() - {owner})
    try:
        server.run_sql(f"GRANT ALL ON SCHEMA public TO {', '.join(roles)}", name)
        for things in ("TABLES", "SEQUENCES"):
            server.run_sql(f"ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA public GRANT ALL ON {things} TO {given}", name)
        yield Hosted(server, name, owner)
    finally:
        for role in roles:
            server.run_sql(f"DROP OWNED BY {role} CASCADE", name)
            server.run_sql(f"DROP ROLE {role}")


@pytest.fixture
def hosted(postgres: PostgresServer, database: str) -> Iterator[Hosted]:
    with a_hosted_database(postgres, database, VISITORS) as found:
        yield found


ATTEMPTS = ("SELECT * FROM {0}", "DELETE FROM {0}", "TRUNCATE {0} CASCADE", "LOCK TABLE {0}", "INSERT INTO {0} DEFAULT VALUES")


def test_visitors_neither_see_nor_write_any_table_that_we_made(hosted: Hosted) -> None:
    """The two tables of the application included: hosted databases give what is new to everybody who has the public key."""
    hosted.upgrade()
    hosted.sql(ROWS)
    assert {table.name for table in APPLICATION_TABLES} < set(hosted.tables())
    for table in hosted.tables():
        assert hosted.protected(table), table
        for visitor in VISITORS:
            for attempt in ATTEMPTS:
                with pytest.raises(SandboxError, match="permission denied"):
                    hosted.sql(attempt.format(table), visitor)


def test_a_grant_by_mistake_shows_visitors_nothing(hosted: Hosted) -> None:
    """A click in a dashboard; row-level security is the second lock."""
    hosted.upgrade()
    hosted.sql(ROWS)
    hosted.sql(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {', '.join(VISITORS)}")
    for visitor in VISITORS:
        for table in hosted.tables():
            assert hosted.sql(f"SELECT count(*) FROM {table}", visitor) == "0", table
        with pytest.raises(SandboxError, match="violates row-level security"):
            hosted.sql(f"INSERT INTO user_profiles (user_id) VALUES ('{uuid4()}')", visitor)
        hosted.sql("UPDATE user_profiles SET memory_md = 'mine'; DELETE FROM conversation_chunks", visitor)
    assert hosted.sql("SELECT string_agg(memory_md, ' ' ORDER BY memory_md) FROM user_profiles") == "ada's bob's"
    assert hosted.sql("SELECT count(*) FROM conversation_chunks") == "1"


def test_a_person_may_be_let_see_the_own_profile_and_the_applications_service_sees_all(hosted: Hosted) -> None:
    hosted.upgrade()
    hosted.sql(ROWS)
    hosted.sql("GRANT SELECT ON user_profiles TO authenticated")
    hosted.sql(
        "CREATE POLICY own_profile ON user_profiles FOR SELECT TO authenticated USING (user_id = current_setting('my.id')::uuid)"
    )
    assert hosted.sql(f"SET my.id = '{ADA}'; SELECT memory_md FROM user_profiles", "authenticated") == "ada's"
    assert hosted.sql("SELECT count(*) FROM user_profiles", f"service_{hosted.owner}") == "2"


def test_tables_of_the_applications_keep_their_rights(hosted: Hosted) -> None:
    hosted.sql("CREATE TABLE user_profiles (user_id uuid PRIMARY KEY, email text)")
    hosted.upgrade()
    assert not hosted.protected("user_profiles")
    assert hosted.sql("SELECT count(*) FROM user_profiles", "anon") == "0"
    assert hosted.protected("conversation_chunks")


def test_without_such_visitors_a_role_that_is_granted_a_table_sees_its_rows(postgres: PostgresServer, database: str) -> None:
    """On a server of one's own the application's role must not find its tables empty without a word."""
    with a_hosted_database(postgres, database, (visitor := f"app_{uuid4().hex[:8]}",)) as hosted:
        hosted.upgrade()
        hosted.sql(ROWS)
        assert hosted.sql("SELECT count(*) FROM user_profiles", visitor) == "2"
