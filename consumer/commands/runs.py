"""`full-pass runs`: the ledger, for people."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

import typer

from consumer.commands.database import opened
from consumer.commands.output import AsJson, print_json, print_pairs, print_rows
from consumer.postgres.overview import Overview
from consumer.settings import Settings, load_settings

app = typer.Typer(help="The runs in the ledger.", no_args_is_help=True)
_COLUMNS = (
    "run_id",
    "user_id",
    "generation",
    "status",
    "stage",
    "attempt",
    "cost_usd",
    "error_code",
    "created_at",
    "finished_at",
)
RunId = Annotated[UUID, typer.Argument(metavar="RUN_ID", help="The run; see 'full-pass runs list'.")]


class Status(StrEnum):
    """The states of a run."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"


@app.command("list")
def list_runs(
    status: Annotated[Status | None, typer.Option(help="Only runs in this state.")] = None,
    user_id: Annotated[UUID | None, typer.Option(help="Only this user's.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many, the newest.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List runs, the newest first."""
    rows = asyncio.run(_list(load_settings(), None if status is None else status.value, user_id, limit))
    if as_json:
        print_json(rows)
    else:
        print_rows(rows, _COLUMNS, "no runs; 'full-pass publish' makes one")


@app.command("show")
def show_run(run_id: RunId, as_json: AsJson = False) -> None:
    """Show one run: its row, what it bought and what it announced."""
    run = asyncio.run(_show(load_settings(), run_id))
    if as_json:
        print_json(run)
        return
    print_pairs({name: value for name, value in run.items() if name not in {"calls", "events"}})
    typer.echo("")
    print_rows(run["calls"], ("kind", "verdict", "answers", "input_tokens", "output_tokens", "cost_usd"), "no model calls")
    typer.echo("")
    print_rows(run["events"], ("event_type", "event_id", "occurred_at", "published_at"), "no events")


@app.command("retry")
def retry_run(run_id: RunId, as_json: AsJson = False) -> None:
    """Try a failed run again, as a new run of the next generation; make a waiting run due now."""
    again, new = asyncio.run(_retry(load_settings(), run_id))
    if as_json:
        print_json({"run_id": again, "new": new})
    elif new:
        typer.echo(f"run {again} will try it again")
    else:
        typer.echo(f"run {again} is due now")


async def _list(settings: Settings, status: str | None, user_id: UUID | None, limit: int) -> list[dict[str, Any]]:
    async with opened(settings) as database:
        return await Overview(database).list_runs(status=status, user_id=user_id, limit=limit)


async def _show(settings: Settings, run_id: UUID) -> dict[str, Any]:
    async with opened(settings) as database:
        return await Overview(database).show_run(run_id)


async def _retry(settings: Settings, run_id: UUID) -> tuple[UUID, bool]:
    async with opened(settings) as database:
        return await Overview(database).retry(run_id)
