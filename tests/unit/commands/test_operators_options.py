"""What can't be meant by the options of `runs`, `dead-letters` and `status` is refused before anything is asked of a server."""

from __future__ import annotations

import pytest
import typer
from typer.testing import CliRunner

from consumer.commands import dead_letters, replay, runs, status
from consumer.errors import ConfigurationError

RUN = "00000001-0000-4000-8000-000000000000"
MISUSED = {
    "runs cancel --all": "--yes: expected with --all",
    "runs retry --all --status failed": "--yes: expected with --all",
    "runs retry": "RUN_ID: expected one",
    "runs cancel --status pending": "RUN_ID: expected one",
    f"runs cancel {RUN} --all": "--all: expected without RUN_IDs",
    f"runs cancel {RUN} --status running": "--all: expected with",
    f"runs retry {RUN} --limit 3": "--all: expected with",
    "runs list --since yesterday": "--since: expected ISO 8601",
    "dead-letters list --until soon": "--until: expected ISO 8601",
    "dead-letters redrive --offset 0:3 --all": "--offset: expected without",
    "dead-letters redrive --offset 3": "--offset: expected PARTITION:OFFSET",
    "dead-letters redrive --offset 0:3 --reason not_json": "--offset: expected without",
    "dead-letters redrive --offset 0:3 --limit 1": "--offset: expected without",
    f"dead-letters redrive --offset 0:{'9' * 5_000}": "--offset: expected PARTITION:OFFSET",
    "dead-letters list --since 2026-11-02 --until 2026-11-01": "--until: expected a time after --since",
    "runs list --since 2026-11-01 --until 2026-11-01": "--until: expected a time after --since",
    "replay --dry-run cancel 13": "--dry-run: expected behind 'cancel'",
    "replay --max-cost-usd 9 resume 13": "--max-cost-usd: expected behind 'resume'",
    "replay --json list": "--json: expected behind 'list'",
    "status --watch --json": "--watch: expected without --json",
}


@pytest.mark.parametrize("call", MISUSED)
def test_what_can_not_be_meant_is_refused_with_the_name_of_the_option(call: str) -> None:
    """Without a terminal: nobody is asked, and nothing is done that would have been asked about."""
    app = typer.Typer()  # without the callback of the whole command line, which would set up logs for all tests that follow
    app.add_typer(replay.app, name="replay")
    app.add_typer(runs.app, name="runs")
    app.add_typer(dead_letters.app, name="dead-letters")
    app.command("status")(status.status)
    error = CliRunner().invoke(app, call.split()).exception
    assert isinstance(error, ConfigurationError)
    assert str(error).startswith(MISUSED[call])
