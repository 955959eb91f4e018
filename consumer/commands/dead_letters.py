"""`full-pass dead-letters`: messages that intake could not take."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Annotated, Any

import typer

from consumer.commands.output import AsJson, print_json, print_rows
from consumer.kafka.dead_letters import list_dead_letters
from consumer.settings import Settings, load_settings

app = typer.Typer(help="Messages that no run could be made of.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep `list` a command of its own, also while it is the only one."""


@app.command("list")
def list_letters(
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most so many, the oldest first.")] = 1000,
    as_json: AsJson = False,
) -> None:
    """List place, time, reason and detail of the dead letters; never their key or value."""
    rows = asyncio.run(_list(load_settings(), limit))
    if as_json:
        print_json(rows)
    else:
        print_rows(rows, tuple(rows[0]) if rows else (), "no dead letters")


async def _list(settings: Settings, limit: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    async for letter in list_dead_letters(settings):
        rows.append(asdict(letter))
        if len(rows) == limit:
            break
    return rows
