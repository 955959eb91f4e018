"""`full-pass publish`: one completion event from options, or many from a file."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskProgressColumn, TimeElapsedColumn
from rich.text import Text

from consumer.commands.event_lines import MOST_REFUSALS, Refusal, Refusals, Source, events_of, opened
from consumer.commands.event_lines import to_event as event_of_line
from consumer.commands.output import AsJson, print_json, say
from consumer.errors import CommandError, ConfigurationError, InvalidMessage
from consumer.kafka.connection import KafkaTrouble
from consumer.kafka.publishing import Publication
from consumer.kafka.publishing import publish as publish_event
from consumer.kafka.storage_paths import AllowedPaths
from consumer.kafka.topics import TopicNames
from consumer.settings import Settings, load_settings
from schemas.events import QuickPassCompleted


def publish(
    user_id: Annotated[str | None, typer.Option("--user-id", help="The user, a UUID.")] = None,
    storage_path: Annotated[str | None, typer.Option("--storage-path", help="Where the export lies: bucket/key.")] = None,
    completed_at: Annotated[
        str | None, typer.Option("--completed-at", help="When the quick pass ended, ISO 8601 with zone; now if absent.")
    ] = None,
    idempotency_key: Annotated[
        str | None, typer.Option("--idempotency-key", help="Derived from the other three if absent.")
    ] = None,
    from_file: Annotated[
        str | None,
        typer.Option(
            "--from-file", metavar="FILE", help="Many events: a JSON object a line, with the fields of the event; - reads stdin."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Publish quick-pass-completed events: one from --user-id and --storage-path, or many with --from-file.

    The profile row has to be committed and the export readable before. The same values published again do nothing. Lines of a
    file that no event can be made of are reported with their numbers, the others are published, and the exit status is 1.
    """
    one = {"--user-id": user_id, "--storage-path": storage_path}
    all_four = {**one, "--completed-at": completed_at, "--idempotency-key": idempotency_key}
    given = [name for name, value in all_four.items() if value is not None]
    if from_file is not None:
        if given:
            raise ConfigurationError(f"--from-file and {given[0]} exclude each other: a line of the file holds all fields")
        _publish_file(load_settings(), from_file, as_json=as_json)
        return
    if user_id is None or storage_path is None:
        missing = next(name for name, value in one.items() if value is None)
        raise ConfigurationError(
            f"{missing} is missing: expected --user-id and --storage-path, or --from-file; see publish --help"
        )
    settings = load_settings()
    event = to_event(user_id, storage_path, completed_at or datetime.now(UTC).isoformat(), idempotency_key)
    require_acceptable(event, AllowedPaths(settings.storage_path_pattern))
    topic, partition, offset = asyncio.run(publish_event(settings, event))
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


def require_acceptable(event: QuickPassCompleted, paths: AllowedPaths) -> None:
    """Make sure that intake would make a run of it, and no dead letter.

    Raises:
        ConfigurationError: naming the option and what it expects.
    """
    try:
        event_of_line(event.model_dump_json().encode(), paths)
    except InvalidMessage as problem:
        field, _, expected = problem.detail.partition(":")
        raise ConfigurationError(f"--{field.replace('_', '-')}:{expected}") from None


_EXPECTED = {
    "user_id": "a UUID",
    "storage_path": "bucket/key, without empty, '.' or '..' segments, backslashes or control characters",
    "completed_at": "an ISO 8601 time with a zone, such as 2026-11-24T09:30:00Z",
    "idempotency_key": "1 to 200 characters without control characters",
}


def _publish_file(settings: Settings, name: str, *, as_json: bool) -> None:
    """Publish the lines of a file, and say what was refused.

    Raises:
        ConfigurationError: when the file can't be read.
        CommandError: when a line was refused.
        KafkaTrouble: when Kafka can't be reached, or stops taking events.
    """
    publication, refusals, began = Publication(), Refusals(), time.monotonic()

    def refused(refusal: Refusal) -> None:
        if refusals.add(refusal) and not as_json:
            say(f"line {refusal.line}: {refusal.reason}: {refusal.detail}")

    with opened(name) as source:
        try:
            with _progress(source, publication, refusals) as read:
                events = events_of(source, AllowedPaths(settings.storage_path_pattern), refused, read)
                asyncio.run(publication.publish_all(settings, events))
        except KeyboardInterrupt:
            say(f"stopped: {_so_far(publication)}")
            raise
        except KafkaTrouble as trouble:
            raise KafkaTrouble(f"{trouble}. {_so_far(publication)}" if publication.published else str(trouble)) from trouble
    _report(TopicNames(settings.topic_prefix).completed, publication, refusals, time.monotonic() - began, as_json=as_json)


def _so_far(publication: Publication) -> str:
    return f"{publication.published:,} events are published; for the rest publish the same again: what is there does nothing"


def _report(topic: str, publication: Publication, refusals: Refusals, seconds: float, *, as_json: bool) -> None:
    published, refused = publication.published, refusals.by_reason.total()
    if as_json:
        print_json(
            {
                "topic": topic,
                "published": published,
                "refused": refused,
                "refused_by_reason": refusals.by_reason,
                "refused_lines": [asdict(refusal) for refusal in refusals.lines],
                "seconds": round(seconds, 3),
            }
        )
    else:
        typer.echo(f"{published:,} events published to {topic} in {seconds:.1f} s")
    if refused:
        by_reason = ", ".join(f"{count:,} {reason}" for reason, count in refusals.by_reason.most_common())
        shown = f" (the first {MOST_REFUSALS:,} are shown)" if refused > MOST_REFUSALS else ""
        raise CommandError(
            f"{refused:,} of {published + refused:,} lines were refused: {by_reason}{shown}. The other {published:,} are"
            " published. Mend those lines and publish them, or all again: what is there does nothing"
        )


class _Counts(ProgressColumn):
    """What was published and what refused, as it stands when the bar is drawn."""

    def __init__(self, publication: Publication, refusals: Refusals) -> None:
        super().__init__()
        self._publication = publication
        self._refusals = refusals

    def render(self, task: Task) -> Text:
        published, refused = self._publication.published, self._refusals.by_reason.total()
        return Text(f"{published:,} published, {refused:,} refused, {published / (task.elapsed or 1):,.0f}/s")


@contextmanager
def _progress(source: Source, publication: Publication, refusals: Refusals) -> Iterator[Callable[[int], None]]:
    """A bar on stderr where that is a terminal; yields what to tell how many bytes were read."""
    console = Console(stderr=True)
    columns = (BarColumn(), TaskProgressColumn(), _Counts(publication, refusals), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=source.size_bytes)
        yield lambda total_bytes: bar.update(task, completed=total_bytes)
