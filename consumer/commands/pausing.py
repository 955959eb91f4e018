"""`full-pass pause` and `full-pass resume`: an operator's hand on all executors at once."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from consumer.commands.database import opened
from consumer.commands.output import AsJson, print_json
from consumer.postgres.pause import REASON_MAX_CHARS, Pause, Paused
from consumer.settings import Settings, load_settings
from schemas.events import to_utc_text


def _one_line(reason: str | None) -> str | None:
    """The reason stands in readiness, logs and `status`: one line, not a long one."""
    if reason is not None and (not reason.isprintable() or len(reason) > REASON_MAX_CHARS):
        raise typer.BadParameter(f"expected one line of at most {REASON_MAX_CHARS} characters")
    return reason or None


def pause(
    reason: Annotated[
        str | None, typer.Option(metavar="TEXT", callback=_one_line, help="Why, for whoever looks at readiness or 'status'.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Stop all executors: they hand back what they hold, without a failure counted, and claim nothing.

    Model calls that were in flight are broken off and bought again afterwards. Intake, relay and alerts go on: events are still
    taken, and nothing is lost. Safe to run again; another reason takes the place of the first.
    """
    paused, new = asyncio.run(_pause(load_settings(), reason))
    if as_json:
        print_json({"paused": True, "new": new, "paused_at": paused.paused_at, "reason": paused.reason})
    else:
        typer.echo(f"{'' if new else 'it was paused already: '}{paused}")


def resume(as_json: AsJson = False) -> None:
    """Let the executors go on, at once. Safe to run again."""
    over = asyncio.run(_resume(load_settings()))
    if as_json:
        print_json({"paused": False, "was_paused": over is not None, "paused_at": over and over.paused_at})
    elif over is None:
        typer.echo("it was not paused; the executors work")
    else:
        typer.echo(f"the executors go on; they were paused since {to_utc_text(over.paused_at)}")


async def _pause(settings: Settings, reason: str | None) -> tuple[Paused, bool]:
    async with opened(settings) as database:
        return await Pause(database).pause(reason)


async def _resume(settings: Settings) -> Paused | None:
    async with opened(settings) as database:
        return await Pause(database).resume()
