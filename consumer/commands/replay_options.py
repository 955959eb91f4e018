"""The options of `full-pass replay`, and what they ask for."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import nullcontext
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from consumer.commands.option_values import MOST_INTEGER, places_of
from consumer.errors import ConfigurationError
from schemas.events import ErrorCode

MOST_USERS = 100_000
LEAST_PER_MINUTE = 0.01
_MOST_PER_MINUTE = 1e6
_LEAST_USD = 1e-6
_MOST_USD = 1e9


class Source(StrEnum):
    """Where events are taken from."""

    TOPIC = "topic"
    LEDGER = "ledger"


Since = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Only events whose quick pass ended then or later: ISO 8601, UTC if it names no zone."),
]
Until = Annotated[str | None, typer.Option(metavar="TIME", help="Only events whose quick pass ended before that.")]
FromOffset = Annotated[
    list[str] | None,
    typer.Option(metavar="PARTITION:OFFSET", help="Read this partition of the topic from this offset on; can be repeated."),
]
ToOffset = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PARTITION:OFFSET",
        help="Read this partition up to, and not including, this offset. Partitions that no offset names are not read then.",
    ),
]
UserIds = Annotated[list[UUID] | None, typer.Option("--user-id", metavar="UUID", help="Only this user; can be repeated.")]
UsersFrom = Annotated[
    str | None,
    typer.Option(metavar="FILE", help=f"Only these users: a UUID a line, at most {MOST_USERS:,}; - reads stdin."),
]
FromSource = Annotated[
    Source | None,
    typer.Option(
        "--source",
        help="Read the events from Kafka, or take them as the ledger knows them. Without it: the topic for offsets, and for a "
        "range of time that it reaches back to; else the ledger.",
    ),
]
OnlyFailed = Annotated[
    bool, typer.Option("--only-failed", help="Only events whose latest run failed, other than by being cancelled or superseded.")
]
ErrorCodes = Annotated[
    list[ErrorCode] | None,
    typer.Option("--error-code", metavar="CODE", help="Only events whose latest run failed with this code; can be repeated."),
]
OlderThanModel = Annotated[
    str | None, typer.Option(metavar="MODEL", help="Only events whose latest run was not made by this model.")
]
OlderThanPrompt = Annotated[
    int | None,
    typer.Option(
        metavar="VERSION",
        min=1,
        max=MOST_INTEGER,
        help="Only events whose latest run was made with prompts older than this version.",
    ),
]
AllEvents = Annotated[
    bool, typer.Option("--all-events", help="Every event of a user; else only the latest of those that are in the range.")
]
MaxCostUsd = Annotated[
    float | None,
    typer.Option(
        metavar="USD", help="Stop when the replay has spent so much; its other runs wait for 'replay resume' with a higher limit."
    ),
]
PerMinute = Annotated[
    float | None, typer.Option(metavar="RUNS", help="Let so many runs become due in a minute; else all at once.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be replayed and what it would cost, and stop.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask; needed where there is no terminal.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="End once the runs are in the ledger; don't follow them.")]


def offsets_of(option: str, given: list[str] | None) -> dict[int, int]:
    """Offsets by partition.

    Raises:
        ConfigurationError: when one can't be read, or a partition stands there twice.
    """
    found: dict[int, int] = {}
    for partition, offset in places_of(option, given):
        if partition in found:
            raise ConfigurationError(f"{option}: partition {partition} is named twice")
        found[partition] = offset
    return found


def users_of(given: list[UUID] | None, name: str | None) -> frozenset[UUID]:
    """The users of `--user-id` and of the file, of which blank lines are passed over.

    Raises:
        ConfigurationError: when the file can't be read, a line is no UUID, there are too many, or none.
    """
    users = set(given or ())
    if name is not None:
        for number, line in enumerate(_lines_of(name), 1):
            try:
                users |= {UUID(line.strip())} if line.strip() else set()
            except ValueError:
                raise ConfigurationError(f"--users-from: expected a UUID in line {number}") from None
            if len(users) > MOST_USERS:
                raise ConfigurationError(f"--users-from: expected at most {MOST_USERS:,} users; make several replays of them")
        if not users:
            raise ConfigurationError("--users-from: expected a UUID a line, there is none")
    return frozenset(users)


def _lines_of(name: str) -> Iterator[str]:
    if name == "-" and sys.stdin is None:
        raise ConfigurationError("--users-from: there is no stdin to read")
    try:
        with nullcontext(sys.stdin) if name == "-" else Path(name).open(encoding="utf-8-sig") as lines:
            yield from lines
    except OSError as error:
        raise ConfigurationError(f"--users-from: can't read {name}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"--users-from: {name} is not text") from None


def rate_of(given: float | None) -> float | None:
    """Runs in a minute. Slower than the least of them, the last run would be due when nobody lives any more.

    Raises:
        ConfigurationError: when it is out of bounds.
    """
    if given is not None and not LEAST_PER_MINUTE <= given <= _MOST_PER_MINUTE:
        raise ConfigurationError(f"--per-minute: expected {LEAST_PER_MINUTE:g} to {_MOST_PER_MINUTE:,.0f}")
    return given


def limit_of(given: float | None) -> Decimal | None:
    """Dollars, exactly as they were given.

    Raises:
        ConfigurationError: when they are out of bounds.
    """
    if given is not None and not _LEAST_USD <= given <= _MOST_USD:
        raise ConfigurationError(f"--max-cost-usd: expected a number above 0, at most {_MOST_USD:,.0f}")
    return None if given is None else Decimal(str(given))
