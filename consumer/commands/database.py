"""`full-pass db`, and the connection that every command with a question to the ledger opens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import typer

from consumer.commands.output import AsJson, print_json
from consumer.postgres import migrating
from consumer.postgres.application_tables import OwnerNeeded
from consumer.postgres.database import Database
from consumer.settings import Settings, load_settings, required

app = typer.Typer(help="The tables in PostgreSQL.", no_args_is_help=True)


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Database]:
    """PostgreSQL at DATABASE_URL, for the length of a command."""
    database = Database(required(settings.database_url, "DATABASE_URL"), settings.lease_seconds)
    try:
        yield database
    finally:
        await database.close()


@app.callback()
def _group() -> None:
    """Keep `upgrade` a command of its own, also while it is the only one."""


@app.command()
def upgrade(as_json: AsJson = False) -> None:
    """Migrate to the newest revision; safe to run again, and beside another Alembic history.

    Where this role may not alter the application's tables, prints the statements for their owner and exits with 1.
    """
    try:
        revision = asyncio.run(_upgrade(load_settings()))
    except OwnerNeeded as error:
        if as_json:
            print_json({"revision": None, "statements": error.statements})
        else:
            typer.echo("\n".join(error.statements))
        raise
    if as_json:
        print_json({"revision": revision})
    else:
        typer.echo(f"the database is at revision {revision}")


async def _upgrade(settings: Settings) -> str:
    async with opened(settings) as database:
        return await migrating.upgrade(database)
