"""`full-pass dead-letters`: messages that intake could not take, and their way back."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import asdict
from typing import Annotated, Any

import typer

from consumer.commands.option_values import MOST_INTEGER, places_of, range_of
from consumer.commands.output import AsJson, at_terminal, confirm, print_json, print_rows
from consumer.errors import CommandError, ConfigurationError, InvalidReason
from consumer.kafka.dead_letters import EVERY_LETTER, LetterFilter, listed, read_dead_letters
from consumer.kafka.redriving import NotRedrivable, Redriven, Redriver, original_of
from consumer.kafka.topics import TopicNames
from consumer.settings import Settings, load_settings

app = typer.Typer(help="Messages that no run could be made of.", no_args_is_help=True)
_COLUMNS = ("partition", "offset", "at", "topic", "source_partition", "source_offset", "reason", "detail")
_NARROW_COLUMNS = ("partition", "offset", "at", "reason", "detail")
_SAME = "it is the same message as a dead letter before it, as one that came back is"
_NO_LETTER = "there is no dead letter at that place"

Reasons = Annotated[
    list[InvalidReason] | None,
    typer.Option("--reason", metavar="CODE", help="Only those with this reason, such as not_json; can be repeated."),
]
Since = Annotated[
    str | None, typer.Option(metavar="TIME", help="Only those written then or later: ISO 8601, UTC if it names no zone.")
]
Until = Annotated[str | None, typer.Option(metavar="TIME", help="Only those written before that.")]
Partitions = Annotated[
    list[int] | None,
    typer.Option(
        "--partition",
        min=0,
        max=MOST_INTEGER,
        metavar="NUMBER",
        help="Only on this partition of the dead-letter topic; can be repeated.",
    ),
]


@app.command("list", short_help="Where they are, where they came from, and why.")
def list_letters(
    reason: Reasons = None,
    since: Since = None,
    until: Until = None,
    partition: Partitions = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most so many, the oldest first.")] = 1000,
    as_json: AsJson = False,
) -> None:
    """List place, time, reason and detail of the dead letters that fit all the options; never their key or value.

    On a narrow terminal it leaves out where they came from; --json has all.
    """
    which = _filter_of(reason, since, until, partition)
    rows = asyncio.run(_list(load_settings(), which, limit))
    if as_json:
        print_json(rows)
    else:
        print_rows(rows, _COLUMNS, "no dead letters", narrow=_NARROW_COLUMNS)


@app.command("redrive", short_help="Send them back to the input topic.")
def redrive_letters(  # noqa: PLR0913, PLR0917 - typer reads the options of a command from its parameters
    offset: Annotated[
        list[str] | None,
        typer.Option(metavar="PARTITION:OFFSET", help="This dead letter, by its place in 'dead-letters list'; can be repeated."),
    ] = None,
    all_that_fit: Annotated[bool, typer.Option("--all", help="All of them, as without any option.")] = False,
    reason: Reasons = None,
    since: Since = None,
    until: Until = None,
    partition: Partitions = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="NUMBER", help="At most so many, the oldest first.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent and what can't be; send nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Send dead letters back to the input topic as the messages that they were: value, key, headers and partition.

    Takes those that are named by --offset, or that fit the other options; without any, all. Asks first, at a terminal. A message
    that is still wrong becomes a dead letter again. Redriving twice does nothing twice: intake takes an event once, by its
    idempotency key. The dead letters stay where they are until their topic forgets them.

    Not sent, and named with the reason, are those that were kept without their value since it was too large, and batches that
    nobody could unpack.

    Exit status: 1 when one that was named by --offset could not be sent.
    """
    which = _filter_of(reason, since, until, partition)
    named = _places_of(offset)
    if named and (which != EVERY_LETTER or all_that_fit or limit is not None):
        raise ConfigurationError(
            "--offset: expected without --all, --limit and the options that choose by reason, time, partition"
        )
    which = LetterFilter(places=frozenset(named)) if named else which
    ask = not (yes or dry_run) and at_terminal()
    report = asyncio.run(_redrive(load_settings(), which, limit, named, dry_run=dry_run, ask=ask))
    _tell(report, as_json=as_json)
    if named and report["not_redriven"]:
        raise CommandError(f"{len(report['not_redriven']):,} of {len(named):,} dead letters can't be redriven")


def _filter_of(
    reason: list[InvalidReason] | None, since: str | None, until: str | None, partition: list[int] | None
) -> LetterFilter:
    begin, end = range_of(since, until)
    return LetterFilter(
        reasons=tuple(reason or ()),
        since=begin,
        until=end,
        partitions=tuple(partition or ()),
    )


def _places_of(given: list[str] | None) -> list[tuple[int, int]]:
    return list(dict.fromkeys(places_of("--offset", given)))


async def _list(settings: Settings, which: LetterFilter, limit: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    async with aclosing(read_dead_letters(settings, which)) as letters:
        async for letter in letters:
            rows.append(asdict(listed(letter)))
            if len(rows) == limit:
                break
    return rows


async def _redrive(
    settings: Settings, which: LetterFilter, limit: int | None, named: Sequence[tuple[int, int]], *, dry_run: bool, ask: bool
) -> dict[str, Any]:
    """Look first, and send in a second reading what was found in the first: what comes back meanwhile is not sent once more."""
    redrivable, refused = await _looked_at(settings, which, limit)
    found = redrivable | {(each.partition, each.offset) for each in refused}
    refused += [Redriven(*place, why_not=_NO_LETTER) for place in named if place not in found]
    sent: list[Redriven] = []
    if redrivable and not dry_run:
        if ask:
            count = len(redrivable)
            confirm(f"Redrive {count:,} dead letter{'s' * (count != 1)}?")
        async with Redriver.connect(settings) as redriver:
            async for letter in read_dead_letters(settings, LetterFilter(places=redrivable)):
                await redriver.send(letter)
        sent = redriver.redriven
    return {
        "dry_run": dry_run,
        "redrivable": len(redrivable),
        "redriven": [_place(each) for each in sent if each.why_not is None],
        "not_redriven": [_refusal(each) for each in [*refused, *sent] if each.why_not is not None],
    }


async def _looked_at(settings: Settings, which: LetterFilter, limit: int | None) -> tuple[set[tuple[int, int]], list[Redriven]]:
    topic = TopicNames(settings.topic_prefix).completed
    redrivable: set[tuple[int, int]] = set()
    refused: list[Redriven] = []
    seen: set[bytes] = set()
    async with aclosing(read_dead_letters(settings, which)) as letters:
        async for letter in letters:
            place = (letter.partition, letter.offset)
            try:
                digest = original_of(letter, topic).sha256()
            except NotRedrivable as why:
                refused.append(Redriven(*place, why_not=str(why)))
            else:
                if digest in seen:
                    refused.append(Redriven(*place, why_not=_SAME))
                else:
                    redrivable.add(place)
                seen.add(digest)
            if len(redrivable) + len(refused) == limit:
                break
    return redrivable, refused


def _place(sent: Redriven) -> dict[str, Any]:
    return {name: value for name, value in asdict(sent).items() if name != "why_not"}


def _refusal(sent: Redriven) -> dict[str, Any]:
    return {"partition": sent.partition, "offset": sent.offset, "why": sent.why_not}


def _tell(report: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(report)
        return
    if report["dry_run"]:
        typer.echo(f"{report['redrivable']:,} would be redriven, {len(report['not_redriven']):,} can't be")
    else:
        typer.echo(f"{len(report['redriven']):,} redriven, {len(report['not_redriven']):,} not")
    for why, count in Counter(each["why"] for each in report["not_redriven"]).most_common():
        places = [f"{each['partition']}:{each['offset']}" for each in report["not_redriven"] if each["why"] == why]
        typer.echo(f"  {', '.join(places[:5])}{f' and {count - 5:,} more' if count > 5 else ''}: {why}")
