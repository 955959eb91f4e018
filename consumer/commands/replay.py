"""`full-pass replay`: events that were taken before, run again as a new generation."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from decimal import Decimal
from typing import Annotated, Any

import typer

from consumer.commands import replay_options as given
from consumer.commands.database import opened
from consumer.commands.option_values import MOST_BIGINT, moment_of
from consumer.commands.output import AsJson, print_json, print_pairs, print_rows, require_yes, say
from consumer.commands.replay_figures import Figures
from consumer.commands.replay_screen import cancelling_bar, dollars, outcome_line, readable_figures, spent_of
from consumer.commands.replay_work import Progress, Taken, follow, refill, replay_of, require_sense
from consumer.errors import CommandError, ConfigurationError, FullPassError
from consumer.postgres.cancelling import cancel_runs
from consumer.postgres.criteria import Criteria
from consumer.postgres.replays import Replay, Replays
from consumer.settings import Settings, load_settings

app = typer.Typer(
    invoke_without_command=True,
    subcommand_metavar="[list|show|resume|cancel]",
)
Generation = Annotated[
    int, typer.Argument(metavar="GENERATION", min=1, max=MOST_BIGINT, help="The replay; see 'full-pass replay list'.")
]
_COLUMNS = ("generation", "state", "source", "runs", "completed", "failed", "open", "held", "spent", "created_at")
_CANCELLED_AT_ONCE = 100


@app.callback()
def replay(  # noqa: PLR0913, PLR0917 - typer reads the options of a command from its parameters
    context: typer.Context,
    since: given.Since = None,
    until: given.Until = None,
    from_offset: given.FromOffset = None,
    to_offset: given.ToOffset = None,
    user_id: given.UserIds = None,
    users_from: given.UsersFrom = None,
    source: given.FromSource = None,
    only_failed: given.OnlyFailed = False,
    error_code: given.ErrorCodes = None,
    older_than_model: given.OlderThanModel = None,
    older_than_prompt: given.OlderThanPrompt = None,
    all_events: given.AllEvents = False,
    max_cost_usd: given.MaxCostUsd = None,
    per_minute: given.PerMinute = None,
    dry_run: given.DryRun = False,
    yes: given.Yes = False,
    no_wait: given.NoWait = False,
    as_json: AsJson = False,
) -> None:
    """Run events again that were taken before, as a new generation: behind live users, and within a limit of dollars.

    Takes the latest event of each user that fits all the options; without any, of every user. Says how many users and runs, and
    about how many calls, tokens, dollars and hours it will be, and asks. Then makes the runs and follows them to their end, which
    can be left with Ctrl-C at any moment: workers go on, and hold the limit, without this command.

    A key that has a run open is passed over and counted, and so is an event that intake has still to take. Filters look at
    the latest run of the event that has ended. Interrupted before all runs are made, the same command again, or 'replay
    resume', makes the rest: no run is made twice.

    Exit status: 0 when all runs have ended (or --no-wait, --dry-run), 1 when the limit stopped it or it was cancelled.
    """
    if context.invoked_subcommand is not None:
        _require_no_option(context)
        return
    criteria = Criteria(
        source=None if source is None else source.value,
        since=moment_of("--since", since),
        until=moment_of("--until", until),
        from_offsets=given.offsets_of("--from-offset", from_offset),
        to_offsets=given.offsets_of("--to-offset", to_offset),
        user_ids=given.users_of(user_id, users_from),
        all_events=all_events,
        per_minute=given.rate_of(per_minute),
        only_failed=only_failed,
        error_codes=tuple(sorted(set(error_code or ()))),
        older_than_model=older_than_model,
        older_than_prompt=older_than_prompt,
    )
    require_sense(criteria)
    limit = given.limit_of(max_cost_usd)
    asking = _Asking(dry_run=dry_run, yes=yes, as_json=as_json, limit=limit)
    progress = Progress()
    figures, taken, ended = _interruptible(_start(load_settings(), criteria, asking, progress, no_wait=no_wait), progress)
    _report_start(figures, taken, ended, dry_run=dry_run, as_json=as_json)


@app.command("list", short_help="The replays, the newest first.")
def list_replays(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many, the newest.")] = 50, as_json: AsJson = False
) -> None:
    """List replays, the newest first: state, runs by how they stand, and what they have spent of their limit."""
    found = asyncio.run(_list(load_settings(), limit))
    if as_json:
        print_json([_document(each) for each in found])
    else:
        rows = [_document(each) | {"spent": spent_of(each), "state": each.standing.replace("_", " ")} for each in found]
        print_rows(rows, _COLUMNS, "no replays; 'full-pass replay --dry-run' says what one would take")


@app.command("show", short_help="One replay: selection, runs, spend.")
def show_replay(generation: Generation, as_json: AsJson = False) -> None:
    """Show one replay: what it selects, how its runs stand, and what it has spent."""
    document = _document(asyncio.run(_show(load_settings(), generation)))
    if as_json:
        print_json(document)
        return
    selection = document.pop("selection")
    print_pairs(document | {name: value for name, value in selection.pop("asked").items() if value})
    print_pairs({name: value for name, value in selection.items() if name in {"source_reason", "as_of"}})


@app.command("resume", short_help="Make what is missing, raise the limit, follow.")
def resume_replay(
    generation: Generation,
    max_cost_usd: given.MaxCostUsd = None,
    no_wait: given.NoWait = False,
    as_json: AsJson = False,
) -> None:
    """Go on with a replay: make the runs that an interruption left out, raise a spent limit, and follow it again.

    Runs that were held when the limit was spent are due again, at the replay's rate.
    """
    progress = Progress(generation)
    limit = given.limit_of(max_cost_usd)
    ended = _interruptible(_resume(load_settings(), generation, limit, progress, no_wait=no_wait), progress)
    if as_json:
        print_json(_document(ended))
    _report_end(ended, as_json=as_json)


@app.command("cancel", short_help="End a replay and its open runs.")
def cancel_replay(generation: Generation, as_json: AsJson = False) -> None:
    """End a replay: no run of it starts any more, and each that is open ends as `v2-failed: cancelled`.

    What has ended stays as it is. Interrupted, the same command ends the rest.
    """
    ended = asyncio.run(_cancel(load_settings(), generation))
    if as_json:
        print_json(_document(ended))
    else:
        typer.echo(f"replay {generation} is cancelled: {outcome_line(ended)}")


def _require_no_option(context: typer.Context) -> None:
    """Options of `replay` in front of one of its subcommands would be taken for it and do nothing: `--dry-run cancel 13`.

    Raises:
        ConfigurationError: naming the first of them.
    """
    for option in context.command.params:
        source = context.get_parameter_source(option.name or "")
        if source is not None and source.name == "COMMANDLINE":
            raise ConfigurationError(f"{option.opts[0]}: expected behind '{context.invoked_subcommand}'; nothing was done")


class _Asking:
    """Shows the figures, and asks whether to go on."""

    def __init__(self, *, dry_run: bool, yes: bool, as_json: bool, limit: Decimal | None) -> None:
        self._dry_run, self._yes, self._as_json = dry_run, yes, as_json
        self.limit = limit

    def __call__(self, figures: Figures, taken: Taken) -> bool:
        if not self._as_json:
            print_pairs(readable_figures(figures, taken.document()))
        if self._dry_run or figures.runs == 0:
            return not self._dry_run
        if not self._yes:
            limit = "" if self.limit is None else f", {dollars(self.limit)} at most"
            users = f"{figures.users:,} user" + "s" * (figures.users != 1)
            require_yes(f"Replay {users} for about {dollars(figures.cost_usd)}{limit}?")
        return True


def _interruptible(work: Any, progress: Progress) -> Any:
    """Run to the end; Ctrl-C, or trouble in the middle, says what goes on without the command."""
    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        say(_what_goes_on(progress))
        raise
    except FullPassError:
        if progress.generation is not None and not progress.filled:
            say(_what_goes_on(progress))
        raise


def _what_goes_on(progress: Progress) -> str:
    number = progress.generation
    if number is None:
        return "stopped: nothing was begun"
    if progress.filled:
        return (
            f"replay {number} goes on without this command: 'full-pass replay show {number}' says how it stands, "
            f"'full-pass replay resume {number}' follows it again, 'full-pass replay cancel {number}' ends it"
        )
    return (
        f"stopped while the runs of replay {number} were made: 'full-pass replay resume {number}', or the same command "
        f"again, makes the rest; 'full-pass replay cancel {number}' ends those that are there"
    )


async def _start(
    settings: Settings, criteria: Criteria, asking: _Asking, progress: Progress, *, no_wait: bool
) -> tuple[Figures, Taken, Replay | None]:
    async with opened(settings) as database:
        figures, taken = await replay_of(settings, database, criteria, asking.limit, progress, asking)
        if progress.generation is None:
            return figures, taken, None
        say(f"replay {progress.generation}: its runs are in the ledger")
        ended = await (Replays(database).show(progress.generation) if no_wait else follow(database, progress.generation))
        return figures, taken, ended


async def _resume(settings: Settings, generation: int, limit: Decimal | None, progress: Progress, *, no_wait: bool) -> Replay:
    async with opened(settings) as database:
        replay = await Replays(database).resume(generation, limit)
        if replay.filled_at is None:
            await refill(settings, database, replay, progress)
        progress.filled = True
        return await (Replays(database).show(generation) if no_wait else follow(database, generation))


async def _cancel(settings: Settings, generation: int) -> Replay:
    async with opened(settings) as database:
        replays = Replays(database)
        if (await replays.show(generation)).standing == "completed":
            raise CommandError(f"replay {generation} is completed: no run of it is open")
        await replays.cancel(generation)
        with cancelling_bar((await replays.show(generation)).open) as told:
            while run_ids := await replays.open_runs(generation, _CANCELLED_AT_ONCE):
                await cancel_runs(database, run_ids, f"replay {generation} was cancelled by an operator")
                told(len(run_ids))
        return await replays.show(generation)


async def _list(settings: Settings, limit: int) -> list[Replay]:
    async with opened(settings) as database:
        return await Replays(database).newest(limit)


async def _show(settings: Settings, generation: int) -> Replay:
    async with opened(settings) as database:
        return await Replays(database).show(generation)


def _report_start(figures: Figures, taken: Taken, ended: Replay | None, *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        estimate = taken.document() | figures.document()
        print_json(
            estimate | {"dry_run": True} if dry_run else {**({} if ended is None else _document(ended)), "estimate": estimate}
        )
    if ended is not None:
        _report_end(ended, as_json=as_json)
    elif not (dry_run or as_json):
        typer.echo("nothing to replay")


def _report_end(ended: Replay, *, as_json: bool) -> None:
    """Say how it stands.

    Raises:
        CommandError: when its budget is spent, or it was cancelled.
    """
    if not as_json:
        typer.echo(f"replay {ended.generation} is {ended.standing.replace('_', ' ')}: {outcome_line(ended)}")
    if ended.standing == "budget_spent":
        raise CommandError(
            f"replay {ended.generation} has spent its budget, {dollars(ended.cost_usd)} of {dollars(ended.max_cost_usd)}; "
            f"{ended.open:,} runs wait. 'full-pass replay resume {ended.generation} --max-cost-usd …' goes on with a higher limit"
        )
    if ended.standing == "cancelled":
        raise CommandError(f"replay {ended.generation} was cancelled")


def _document(replay: Replay) -> dict[str, Any]:
    derived = {"state": replay.standing, "runs": replay.runs, "open": replay.open}
    return asdict(replay) | derived | {"held": replay.pending if replay.state == "budget_spent" else replay.held}
