"""`full-pass db upgrade`: Alembic, in a version table of its own so that it lives beside another history."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, text

from consumer.errors import CommandError
from consumer.postgres import tables
from consumer.postgres.application_tables import require_owner
from consumer.postgres.database import Database, DatabaseUnavailable, sqlstate
from consumer.postgres.rights import missing_rights

if TYPE_CHECKING:
    from alembic.config import Config

VERSION_TABLE = "full_pass_alembic_version"
LOCK_TIMEOUT_SECONDS = 2
LOCK_TRIES = 30
_LOCK_NOT_AVAILABLE = "55P03"


async def upgrade(database: Database, revision: str = "head") -> str:
    """Migrate to `revision` and return the revision reached.

    Locks on an application's table are waited for two seconds at a time, so that its own traffic is never queued behind us
    for longer.

    Raises:
        OwnerNeeded: with the statements that the owner of the application's tables has to run.
        CommandError: when a table stays locked.
        DatabaseUnavailable: when PostgreSQL is away.
    """
    from alembic import command  # noqa: PLC0415 - a tenth of a second that only those who migrate should wait for

    await _migrate(database, lambda config: command.upgrade(config, revision))
    return await current_revision(database) or ""


async def downgrade(database: Database, revision: str = "base") -> None:
    """Remove what this service created; raises as `upgrade` does."""
    from alembic import command  # noqa: PLC0415 - as above

    await _migrate(database, lambda config: command.downgrade(config, revision))


async def current_revision(database: Database) -> str | None:
    """The revision that the database is at; None without one."""
    async with database.transaction() as transaction:
        if (await transaction.execute(text(f"SELECT to_regclass('{VERSION_TABLE}')"))).scalar_one() is None:
            return None
        revision = (await transaction.execute(text(f"SELECT version_num FROM {VERSION_TABLE}"))).scalar_one_or_none()
    return None if revision is None else str(revision)


async def missing_migration(database: Database) -> str | None:
    """Why the schema can't be worked with, or None: its revision, or what our role may not do with it.

    A revision that we don't know is a newer one, which stays compatible.

    Raises:
        DatabaseUnavailable: when PostgreSQL is away.
    """
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - as above

    if (lacking := await missing_rights(database)) is not None:
        return lacking  # first: without them the revision can't be seen
    revision = await current_revision(database)
    scripts = ScriptDirectory.from_config(_config(None))
    head = scripts.get_current_head()
    known = {script.revision for script in scripts.walk_revisions()}
    if revision is None or (revision in known and revision != head):
        return f"the database is at revision {revision or 'none'}, expected {head}: run 'full-pass db upgrade'"
    return None


def is_ours(_object: Any, name: str | None, kind: str, _reflected: bool, _compare_to: Any) -> bool:
    """Which tables a comparison of models and database looks at."""
    return kind != "table" or (name in tables.metadata.tables or name in tables.application_metadata.tables)


async def _migrate(database: Database, work: Any) -> None:
    for _ in range(LOCK_TRIES):
        try:
            await _migrate_once(database, work)
        except DatabaseUnavailable as error:
            if error.__cause__ is None or sqlstate(error.__cause__) != _LOCK_NOT_AVAILABLE:
                raise
            await asyncio.sleep(0.2)
        else:
            return
    raise CommandError("the application's tables stayed locked for a minute; try again when its long transactions are over")


async def _migrate_once(database: Database, work: Any) -> None:
    async with database.transaction() as connection:
        await connection.run_sync(prepare)
        await connection.run_sync(lambda synchronous: work(_config(synchronous)))


def prepare(connection: Connection) -> None:
    """What comes first in the transaction of a migration: one at a time, short waits for locks, and the right to do it.

    Raises:
        OwnerNeeded: before anything is changed.
    """
    connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_SECONDS}s'"))
    connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('full-pass migrations'))"))
    require_owner(connection)


def _config(connection: Connection | None) -> Config:
    from alembic.config import Config  # noqa: PLC0415 - as above

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    return config
