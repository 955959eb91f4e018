"""`full-pass topics`."""

from __future__ import annotations

import asyncio
import re
from typing import Annotated

import typer

from consumer.commands.option_values import MOST_BIGINT
from consumer.commands.output import AsJson, print_json
from consumer.errors import ConfigurationError
from consumer.kafka.topics import Topics
from consumer.settings import load_settings

app = typer.Typer(help="The five topics in Kafka.", no_args_is_help=True)
_UNITS_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


@app.callback()
def _group() -> None:
    """Keep `create` a command of its own, also while it is the only one."""


@app.command()
def create(
    partitions: Annotated[int, typer.Option(min=1, max=100_000, help="Partitions of each topic that is made.")] = 6,
    replication_factor: Annotated[int, typer.Option(min=-1, max=1_000, help="Replicas of each; -1: the brokers' default.")] = -1,
    retention: Annotated[
        str | None,
        typer.Option(help="How long records are kept, such as 7d, 12h or -1 for ever; the brokers' default if absent."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Create the topics that are missing; existing ones are left alone."""
    if replication_factor == 0:
        raise ConfigurationError("--replication-factor: expected 1 or more, or -1 for the brokers' default")
    topics = Topics(load_settings())
    created = asyncio.run(topics.create(partitions, replication_factor, to_milliseconds(retention)))
    if as_json:
        print_json({"created": list(created), "existing": [name for name in topics.names.all() if name not in created]})
        return
    for name in topics.names.all():
        typer.echo(f"{name}: {'created' if name in created else 'was there'}")


def to_milliseconds(retention: str | None) -> int | None:
    """`7d` and its like in milliseconds; -1 for ever.

    Raises:
        ConfigurationError: for anything else.
    """
    if retention is None:
        return None
    if retention == "-1":
        return -1
    match = re.fullmatch(r"([0-9]{1,15})\s*(ms|s|m|h|d)?", retention)
    if match is None:
        raise ConfigurationError("--retention: expected a number and ms, s, m, h or d, such as 7d, or -1")
    milliseconds = int(match[1]) * _UNITS_MS[match[2] or "ms"]
    if milliseconds > MOST_BIGINT:
        raise ConfigurationError("--retention: expected a time that Kafka can count; -1 keeps records for ever")
    return milliseconds
