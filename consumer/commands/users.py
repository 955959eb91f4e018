"""`full-pass users`: what this service keeps of a user, and its end."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Annotated
from uuid import UUID

import typer

from consumer.commands.database import opened
from consumer.commands.output import AsJson, at_terminal, confirm, print_json, print_pairs
from consumer.postgres.forgetting import Erased, Forgetting
from consumer.settings import Settings, load_settings

app = typer.Typer(help="What this service keeps of a user.", no_args_is_help=True)
UserId = Annotated[UUID, typer.Argument(metavar="USER_ID", help="The user.")]

BEYOND_REACH = (
    "Kafka: completion events, and what was announced, until the topics' retention",
    "dead letters: what was published for the user and could not be taken, until that topic's retention",
    "backups of PostgreSQL, and logs and traces with the user's id",
    "the model API's own copies of what it was asked, for as long as its provider keeps them",
    "readers' caches: a prompt that a chat service keeps until it looks at profile_version again",
    "the export itself: whoever put it into the store deletes it there",
)


@app.callback()
def _group() -> None:
    """Keep `forget` a command of its own, also while it is the only one."""


@app.command()
def forget(
    user_id: UserId,
    profile: Annotated[bool, typer.Option("--profile", help="Empty MEMORY, sections and soulprint_text too.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask, also on a terminal.")] = False,
    as_json: AsJson = False,
) -> None:
    """Erase a user's runs, recorded answers, chunks and events, and take no event that was completed before now.

    A run under way is stopped and ends without an event. An event that is completed later runs like any other. What can't be
    reached from here is listed. Safe to run again; on a terminal it asks first.
    """
    if not yes and at_terminal():
        what = "runs, recorded answers, chunks and events" + (", MEMORY and sections" if profile else "")
        confirm(f"Erase {what} of user {user_id}? This can't be undone.")
    erased = asyncio.run(_forget(load_settings(), user_id, profile))
    if as_json:
        print_json({"user_id": user_id, **asdict(erased), "beyond_reach": BEYOND_REACH})
        return
    print_pairs({"user_id": user_id, **asdict(erased)})
    typer.echo("\nNot reached from here:")
    for place in BEYOND_REACH:
        typer.echo(f"- {place}")


async def _forget(settings: Settings, user_id: UUID, profile: bool) -> Erased:
    async with opened(settings) as database:
        return await Forgetting(database).forget(user_id, profile=profile)
