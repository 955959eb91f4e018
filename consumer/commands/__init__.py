"""The command line, `full-pass`: a file per group, thin. What a command does lives in the room that it calls."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from consumer.commands import (
    database,
    dead_letters,
    demo,
    estimating,
    pausing,
    publishing,
    replay,
    runs,
    sandbox,
    schemas_export,
    status,
    topics,
    users,
    worker,
)
from consumer.commands.stdout import guard_stdout
from consumer.errors import ConfigurationError, FullPassError
from consumer.logs import configure_logs

app = typer.Typer(
    name="full-pass",
    help="The full-pass consumer: one quick-pass-completed event in; MEMORY, five profile sections and their events out. "
    "Settings come from the environment; see .env.example.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("worker")(worker.worker)
app.add_typer(database.app, name="db")
app.add_typer(topics.app, name="topics")
app.command("publish")(publishing.publish)
app.command("estimate")(estimating.estimate_command)
app.add_typer(replay.app, name="replay")
app.add_typer(runs.app, name="runs")
app.add_typer(dead_letters.app, name="dead-letters")
app.add_typer(users.app, name="users")
app.command("pause")(pausing.pause)
app.command("resume")(pausing.resume)
app.command("status")(status.status)
app.add_typer(schemas_export.app, name="schemas")
app.add_typer(sandbox.app, name="sandbox")
app.command("demo")(demo.demo)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"full-pass {version('full-pass-consumer')}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Take the options that stand before a command; what a command logs goes to stderr, so stdout is its answer alone.

    The libraries are kept quiet: what went wrong is said once, in the command's own line.
    """
    configure_logs("WARNING", None, libraries="CRITICAL")


def main() -> None:
    """Run the command line. Exit status: 0 done, 1 failed, 2 wrong usage or configuration; a mistake is one line on stderr."""
    guard_stdout()
    try:
        app()
    except ConfigurationError as error:
        _fail(error, 2)
    except FullPassError as error:
        _fail(error, 1)
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(error: FullPassError, status: int) -> None:
    sys.stderr.write(f"full-pass: {error}\n")
    sys.exit(status)
