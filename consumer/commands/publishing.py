"""`full-pass publish`."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Annotated

import typer
from pydantic import ValidationError

from consumer.commands.output import AsJson, print_json
from consumer.errors import ConfigurationError
from consumer.kafka.publishing import publish as publish_event
from consumer.settings import load_settings
from schemas.events import QuickPassCompleted


def publish(
    user_id: Annotated[str, typer.Option("--user-id", help="The user, a UUID.")],
    storage_path: Annotated[str, typer.Option("--storage-path", help="Where the export lies: bucket/key.")],
    completed_at: Annotated[
        str | None, typer.Option("--completed-at", help="When the quick pass ended, ISO 8601 with zone; now if absent.")
    ] = None,
    idempotency_key: Annotated[
        str | None, typer.Option("--idempotency-key", help="Derived from the other three if absent.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Publish one quick-pass-completed event.

    The profile row has to be committed and the export readable before. The same four values published again do nothing.
    """
    event = to_event(user_id, storage_path, completed_at or datetime.now(UTC).isoformat(), idempotency_key)
    topic, partition, offset = asyncio.run(publish_event(load_settings(), event))
    if as_json:
        print_json(
            {"topic": topic, "partition": partition, "offset": offset, "user_id": event.user_id, "idempotency_key": event.key()}
        )
    else:
        typer.echo(f"published to {topic}, partition {partition}, offset {offset}; idempotency key {event.key()}")


def to_event(user_id: str, storage_path: str, completed_at: str, idempotency_key: str | None) -> QuickPassCompleted:
    """The event, held to the same rules that intake holds it to.

    Raises:
        ConfigurationError: naming the option and what it expects.
    """
    values = {"user_id": user_id, "storage_path": storage_path, "completed_at": completed_at, "idempotency_key": idempotency_key}
    try:
        event = QuickPassCompleted.model_validate(values)
        event.completed_at.astimezone(UTC)
    except ValidationError as error:
        field = str(error.errors(include_input=False)[0]["loc"][0])
        raise ConfigurationError(f"--{field.replace('_', '-')}: expected {_EXPECTED[field]}") from None
    except OverflowError:
        raise ConfigurationError("--completed-at: expected a time between the years 1 and 9999 in UTC") from None
    return event


_EXPECTED = {
    "user_id": "a UUID",
    "storage_path": "bucket/key, without empty, '.' or '..' segments, backslashes or control characters",
    "completed_at": "an ISO 8601 time with a zone, such as 2026-11-24T09:30:00Z",
    "idempotency_key": "1 to 200 characters without control characters",
}
