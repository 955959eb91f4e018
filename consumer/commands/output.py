"""How commands speak: tables for people, one JSON document for scripts, everything else on stderr."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Mapping, Sequence
from datetime import MAXYEAR, datetime
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.console import Console
from rich.table import Table

from consumer.errors import ConfigurationError
from schemas.events import to_utc_text

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, nothing else there.")]
_WIDE_COLUMNS = 160
_TABLE_COLUMNS = 72  # with fewer, a table has no room for its columns: each row stands by itself


def to_json(document: Any) -> str:
    """The document as JSON: times in UTC with `Z`, money as numbers."""
    return json.dumps(document, default=_plain, ensure_ascii=False, indent=2)


def print_json(document: Any) -> None:
    """Write one JSON document to stdout."""
    typer.echo(to_json(document))


def say(line: str) -> None:
    """A remark for the person at the terminal, on stderr."""
    typer.echo(line, err=True)


def at_terminal() -> bool:
    """Whether a person can be asked."""
    return sys.stdin is not None and sys.stdin.isatty()


def confirm(question: str) -> None:
    """Ask on stderr; Ctrl-C is an answer at once, also where the question is asked on an event loop.

    Raises:
        typer.Abort: for a no, for Ctrl-C, and where stdin has come to its end.
    """
    # asyncio's own handler only cancels the task that waits here for an answer, which it would notice after the answer.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        typer.confirm(question, abort=True, err=True)
    finally:
        signal.signal(signal.SIGINT, before)


def require_yes(question: str) -> None:
    """Ask on stderr, and go on only with a yes from stdin.

    Raises:
        ConfigurationError: when nobody is there to answer.
        typer.Abort: for a no, and for Ctrl-C.
    """
    nobody = ConfigurationError("--yes: expected, since nobody answers on stdin; --dry-run stops before the question")
    if sys.stdin is None:
        raise nobody
    try:
        confirm(question)
    except typer.Abort:
        if at_terminal():
            raise
        say("")
        raise nobody from None


def print_rows(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str], nothing: str, *, narrow: Sequence[str] | None = None
) -> None:
    """A table of the rows, or the sentence `nothing`. `narrow` are the columns for a terminal that has no room for all."""
    if not rows:
        typer.echo(nothing)
        return
    console = _console()
    if narrow is not None and console.width < _WIDE_COLUMNS:
        columns = narrow
    if console.width < _TABLE_COLUMNS:
        for row in rows:
            console.print(pairs_table({column: row[column] for column in columns}), "")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column.endswith("_id"))
    for row in rows:
        table.add_row(*(readable(row[column]) for column in columns))
    console.print(table)


def print_pairs(pairs: Mapping[str, Any]) -> None:
    """One value a line, behind its name."""
    _console().print(pairs_table(pairs))


def pairs_table(pairs: Mapping[str, Any]) -> Table:
    """The same, to be shown by someone else."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in pairs.items():
        table.add_row(name, readable(value))
    return table


def _console() -> Console:
    """As wide as the terminal; wide enough for ids and times where the output is a pipe."""
    console = Console(markup=False, emoji=False, highlight=False, soft_wrap=False)
    return console if console.is_terminal else Console(markup=False, emoji=False, highlight=False, width=200)


def readable(value: Any) -> str:
    """The value as people read it: times to the second, money to the hundredth of a cent, nothing as a dash; what would move a
    terminal's cursor or turn its text around is spelled out."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):  # PostgreSQL's infinity is the driver's last moment
        return "held" if value.year == MAXYEAR else value.strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, float | Decimal):
        return f"{value:.4f}".rstrip("0").rstrip(".")
    if isinstance(value, dict):
        return ", ".join(f"{name} {readable(item)}" for name, item in value.items()) or "–"
    return "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in str(value))


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return to_utc_text(value)
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Decimal):
        return float(value)
    raise TypeError(f"{type(value).__name__} has no JSON form here")
