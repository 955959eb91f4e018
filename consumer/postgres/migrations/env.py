"""Runs migrations on the connection that `migrating` gives, or, under the `alembic` command, on DATABASE_URL."""

from __future__ import annotations

import asyncio
import os
import sys

from alembic import context
from sqlalchemy import Connection

from consumer.postgres import tables
from consumer.postgres.application_tables import OwnerNeeded
from consumer.postgres.database import Database
from consumer.postgres.migrating import VERSION_TABLE, is_ours, prepare


def migrate_on(connection: Connection) -> None:
    """Run what was asked for on this connection, in its transaction."""
    context.configure(
        connection=connection,
        target_metadata=[tables.metadata, tables.application_metadata],
        version_table=VERSION_TABLE,
        include_object=is_ours,
    )
    with context.begin_transaction():
        context.run_migrations()


async def migrate_by_environment() -> None:
    """Connect by DATABASE_URL, as every command does."""
    database = Database(os.environ["DATABASE_URL"])
    try:
        async with database.transaction() as connection:
            await connection.run_sync(prepare)
            await connection.run_sync(migrate_on)
    except OwnerNeeded as error:
        sys.stdout.write("\n".join([*error.statements, ""]))
        raise
    finally:
        await database.close()


given: Connection | None = context.config.attributes.get("connection")
if given is not None:
    migrate_on(given)
else:
    asyncio.run(migrate_by_environment())
