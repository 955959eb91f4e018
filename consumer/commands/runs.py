"""`full-pass runs`: the ledger, for people."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import typer

from consumer.commands import run_options as given
from consumer.commands.database import opened
from consumer.commands.output import AsJson, print_json, print_pairs, print_rows, say
from consumer.commands.run_story import attempts_of
from consumer.commands.run_work import Chosen, cancel_chosen, retry_chosen
from consumer.postgres.overview import EVERY_RUN, Overview, RunFilter
from consumer.postgres.retrying import Retried, retry_run
from consumer.settings import Settings, load_settings

app = typer.Typer(help="The runs in the ledger.", no_args_is_help=True)
_SHOWN = 50
_SHOWN_AS_JSON = 10_000  # as many as memory should hold when nobody asked for more
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
_NARROW_COLUMNS = ("run_id", "status", "cost_usd", "error_code", "created_at")
_TOLD_APART = {"calls", "events", "story", "attempts", "event", "held"}


@app.command("list", short_help="Runs, the newest first, by what they have to fit.")
def list_runs(  # noqa: PLR0913, PLR0917 - typer reads the options of a command from its parameters
    status: given.OfStatus = None,
    user_id: given.OfUser = None,
    error_code: given.OfCodes = None,
    generation: given.OfGeneration = None,
    stage: given.OfStage = None,
    since: given.Since = None,
    until: given.Until = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, metavar="NUMBER", help=f"At most so many, the newest; {_SHOWN}, or {_SHOWN_AS_JSON:,} with --json."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List runs, the newest first: those that fit all the options.

    On a narrow terminal some columns are left out; 'runs show' and --json have all.
    """
    which = given.filter_of(status, user_id, error_code, generation, stage, since, until)
    most = limit or (_SHOWN_AS_JSON if as_json else _SHOWN)
    rows = asyncio.run(_list(load_settings(), which, most))
    if as_json:
        print_json(rows)
    else:
        nothing = "no runs; 'full-pass publish' makes one" if which == EVERY_RUN else "no runs that fit"
        print_rows(rows, _COLUMNS, nothing, narrow=_NARROW_COLUMNS)
    if limit is None and len(rows) == most:
        say(f"the newest {most:,} are shown; --limit shows more")


@app.command("show", short_help="One run and its story: attempts, stages, calls, events.")
def show_run(run_id: given.RunId, as_json: AsJson = False) -> None:
    """Show one run and its story: attempts, their stages and how each ended; what it bought; where its events are.

    An event's partition and offset are not known where a relay stopped between Kafka's commit and its mark, and for events
    of releases that did not note them.
    """
    run = asyncio.run(_show(load_settings(), run_id))
    if as_json:
        print_json(run)
    else:
        _print_run(run)


@app.command("cancel", short_help="End one run, several, or all that fit.")
def cancel_runs(  # noqa: PLR0913, PLR0917 - typer reads the options of a command from its parameters
    run_ids: given.RunIds = None,
    all_that_fit: given.AllThatFit = False,
    status: given.OfStatus = None,
    user_id: given.OfUser = None,
    error_code: given.OfCodes = None,
    generation: given.OfGeneration = None,
    stage: given.OfStage = None,
    since: given.Since = None,
    until: given.Until = None,
    limit: given.AtMost = None,
    yes: given.Yes = False,
    as_json: AsJson = False,
) -> None:
    """End waiting and running runs as 'v2-failed: cancelled', by RUN_ID, or with --all those that fit the options.

    A run that is under way stops before it saves anything more; what it has saved and bought stays. More than one is asked
    about at a terminal, and --all needs one, or --yes. Interrupted, the same command ends the rest. A whole replay is ended by
    'replay cancel', which lets no more of its runs be made.

    Exit status: 1 when a run that was named could not be cancelled.
    """
    which = given.filter_of(status, user_id, error_code, generation, stage, since, until)
    chosen = Chosen(run_ids or (), which, all_that_fit, limit, yes)
    chosen.require_sense()
    report = asyncio.run(cancel_chosen(load_settings(), chosen))
    report.tell("cancelled", named=not all_that_fit, as_json=as_json)


@app.command("retry", short_help="Try one run again, several, or all that fit.")
def retry_runs(  # noqa: PLR0913, PLR0917 - typer reads the options of a command from its parameters
    run_ids: given.RunIds = None,
    all_that_fit: given.AllThatFit = False,
    status: given.OfStatus = None,
    user_id: given.OfUser = None,
    error_code: given.OfCodes = None,
    generation: given.OfGeneration = None,
    stage: given.OfStage = None,
    since: given.Since = None,
    until: given.Until = None,
    limit: given.AtMost = None,
    yes: given.Yes = False,
    as_json: AsJson = False,
) -> None:
    """Try failed runs again, each as a new run of the next generation; make waiting runs due now. By RUN_ID, or with --all.

    Passed over are runs that are under way or completed, wait for a stopped replay, or whose event has another run open; with
    --all also those that were superseded or have been tried again since. Recorded answers are not bought twice, the rest
    is: --all asks at a terminal, with the count, or needs --yes.

    Exit status: 1 when a run that was named could not be tried again.
    """
    which = given.filter_of(status, user_id, error_code, generation, stage, since, until)
    chosen = Chosen(run_ids or (), which, all_that_fit, limit, yes)
    chosen.require_sense()
    if len(chosen.run_ids) == 1:
        _report_one(asyncio.run(_retry(load_settings(), chosen.run_ids[0])), as_json=as_json)
        return
    report = asyncio.run(retry_chosen(load_settings(), chosen))
    report.tell("tried again", named=not all_that_fit, as_json=as_json)


def _report_one(retried: Retried, *, as_json: bool) -> None:
    if as_json:
        print_json(asdict(retried))
    elif retried.new:
        typer.echo(f"run {retried.run_id} will try it again")
    else:
        typer.echo(f"run {retried.run_id} is due now")


def _print_run(run: dict[str, Any]) -> None:
    pairs = {name: value for name, value in run.items() if name not in _TOLD_APART} | run["event"]
    print_pairs(pairs | {"due_at": "held: its replay is stopped"} if run["held"] else pairs)
    typer.echo("")
    attempts = [
        {
            "attempt": attempt["attempt"],
            "began_at": attempt["began_at"],
            "seconds": attempt["seconds"],
            "stages": {
                told["stage"]: "?" if (took := told["seconds"]) is None else f"{took:.1f} s" for told in attempt["stages"]
            },
            "ended": attempt["ended"] or "goes on",
        }
        for attempt in run["attempts"]
    ]
    print_rows(attempts, ("attempt", "began_at", "seconds", "stages", "ended"), "no attempts are told of")
    typer.echo("")
    print_rows(run["calls"], ("kind", "verdict", "answers", "input_tokens", "output_tokens", "cost_usd"), "no model calls")
    typer.echo("")
    events = [event | {"partition": event["kafka_partition"], "offset": event["kafka_offset"]} for event in run["events"]]
    print_rows(events, ("event_type", "event_id", "partition", "offset", "published_at"), "no events")


async def _list(settings: Settings, which: RunFilter, limit: int) -> list[dict[str, Any]]:
    async with opened(settings) as database:
        return await Overview(database).list_runs(which, limit)


async def _show(settings: Settings, run_id: UUID) -> dict[str, Any]:
    async with opened(settings) as database:
        run = await Overview(database).show_run(run_id)
    return run | {"attempts": [asdict(each) for each in attempts_of(run["story"], run["status"], datetime.now(UTC))]}


async def _retry(settings: Settings, run_id: UUID) -> Retried:
    async with opened(settings) as database:
        return await retry_run(database, run_id)
