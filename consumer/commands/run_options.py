"""The options that say which runs: of `runs list`, `runs cancel` and `runs retry`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated
from uuid import UUID

import typer

from consumer.commands.option_values import MOST_BIGINT, range_of
from consumer.postgres.overview import RunFilter
from schemas.events import ErrorCode


class Status(StrEnum):
    """The states of a run."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"


class Stage(StrEnum):
    """The stage that a run is in, or ended in."""

    STARTING = "starting"
    READING = "reading"
    FACTS = "facts"
    MEMORY = "memory"
    SECTIONS = "sections"


RunId = Annotated[UUID, typer.Argument(metavar="RUN_ID", help="The run; see 'full-pass runs list'.")]
RunIds = Annotated[
    list[UUID] | None,
    typer.Argument(metavar="RUN_ID", help="One run or several; see 'full-pass runs list'.", show_default=False),
]
OfStatus = Annotated[Status | None, typer.Option("--status", help="Only runs in this state.")]
OfUser = Annotated[UUID | None, typer.Option("--user-id", metavar="UUID", help="Only this user's.")]
OfCodes = Annotated[
    list[ErrorCode] | None,
    typer.Option("--error-code", metavar="CODE", help="Only runs that failed last with this code; can be repeated."),
]
OfGeneration = Annotated[
    int | None,
    typer.Option(
        "--generation", min=0, max=MOST_BIGINT, metavar="NUMBER", help="Only this replay's or retry's; 0 is live traffic."
    ),
]
OfStage = Annotated[Stage | None, typer.Option("--stage", help="Only runs in this stage, or that ended in it.")]
Since = Annotated[
    str | None, typer.Option(metavar="TIME", help="Only runs created then or later: ISO 8601, UTC if it names no zone.")
]
Until = Annotated[str | None, typer.Option(metavar="TIME", help="Only runs created before that.")]
AllThatFit = Annotated[bool, typer.Option("--all", help="All runs that fit the options, instead of RUN_IDs.")]
AtMost = Annotated[int | None, typer.Option("--limit", min=1, metavar="NUMBER", help="With --all: at most so many, the oldest.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")]


def filter_of(
    status: Status | None,
    user_id: UUID | None,
    error_code: list[ErrorCode] | None,
    generation: int | None,
    stage: Stage | None,
    since: str | None,
    until: str | None,
) -> RunFilter:
    """Which runs the options ask for.

    Raises:
        ConfigurationError: when a time can't be read.
    """
    begin, end = range_of(since, until)
    return RunFilter(
        statuses=() if status is None else (status.value,),
        user_id=user_id,
        error_codes=tuple(sorted({code.value for code in error_code or ()})),
        generation=generation,
        stage=None if stage is None else stage.value,
        since=begin,
        until=end,
    )
