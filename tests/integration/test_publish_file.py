"""Many completion events: lines of a file or a pipe, and their way onto the topic."""

from __future__ import annotations

import asyncio
import json
import os
import uuid
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from consumer.commands.event_lines import LONGEST_LINE_BYTES, MOST_REFUSALS, Refusal, Refusals, events_of, lines_of, opened
from consumer.errors import ConfigurationError
from consumer.kafka import connection, publishing
from consumer.kafka.connection import KafkaTrouble
from consumer.kafka.publishing import Publication
from consumer.kafka.storage_paths import AllowedPaths
from consumer.kafka.topics import TopicsMissing
from sandbox.kafka import KafkaServer
from schemas.events import QuickPassCompleted
from tests.integration.kafka_environment import Environment, an_environment, an_event, limit_topic

USER = str(uuid.UUID(int=7))
GOOD: dict[str, Any] = {"user_id": USER, "storage_path": "exports/ada.json", "completed_at": "2026-11-24T09:30:00Z"}
SECRET = "hunter2"


def line_of(**changes: Any) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


async def taken(
    path: Path, pattern: str = "", read: Callable[[int], None] = lambda _: None
) -> tuple[list[tuple[int, QuickPassCompleted]], list[Refusal]]:
    """Events and refusals of a file."""
    refused: list[Refusal] = []
    with opened(str(path)) as source:
        return [each async for each in events_of(source, AllowedPaths(pattern), refused.append, read)], refused


def test_lines_are_events_with_their_numbers_whatever_ends_them(tmp_path: Path) -> None:
    """A byte order mark, CRLF, blank lines and no newline at the end are how files come from other systems."""
    path, seen = tmp_path / "events.jsonl", list[int]()
    path.write_bytes(b"\xef\xbb\xbf" + line_of() + b"\r\n\r\n  \n" + line_of(idempotency_key="k ü", message_count=3, more=1))
    events, refused = asyncio.run(taken(path, read=seen.append))
    assert [(number, event.known_fields()) for number, event in events] == [
        (1, {**GOOD, "completed_at": "2026-11-24T09:30:00.000000Z"}),
        (4, {**GOOD, "completed_at": "2026-11-24T09:30:00.000000Z", "idempotency_key": "k ü", "message_count": 3}),
    ]
    assert refused == []
    assert seen == [path.stat().st_size - 3]


@pytest.mark.guarantee("G9")
@pytest.mark.parametrize(
    ("line", "reason", "named"),
    [
        (SECRET.encode(), "not_json", "JSON"),
        (b'{"user_id": "' + SECRET.encode(), "not_json", "JSON"),
        (b"\xff" + SECRET.encode(), "not_json", "UTF-8"),
        (b'["hunter2"]', "not_an_object", "object"),
        (b"{}", "missing_field", "user_id"),
        (line_of(user_id=SECRET), "invalid_field", "user_id"),
        (line_of(storage_path=f"exports/../{SECRET}"), "storage_path_invalid", "storage_path"),
        (line_of(storage_path=f"elsewhere/{SECRET}"), "storage_path_not_allowed", "STORAGE_PATH_PATTERN"),
        (line_of(completed_at=SECRET), "invalid_field", "completed_at"),
        (line_of(completed_at=(datetime.now(UTC) + timedelta(days=2)).isoformat()), "completed_at_in_future", "completed_at"),
        (line_of(idempotency_key=f"{SECRET}\n"), "invalid_field", "idempotency_key"),
        (line_of(message_count=SECRET), "invalid_field", "message_count"),
        (line_of(more=SECRET * (LONGEST_LINE_BYTES // len(SECRET))), "too_long", "bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_line_that_intake_would_refuse_is_refused_with_its_reason_and_the_next_is_taken(
    tmp_path: Path, line: bytes, reason: str, named: str
) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"\n".join((line_of(), line, line_of())))
    events, (refusal,) = asyncio.run(taken(path, "exports/**"))
    assert [number for number, _ in events] == [1, 3]
    assert (refusal.line, refusal.reason) == (2, reason)
    assert named in refusal.detail
    assert SECRET not in refusal.detail


def test_a_line_that_never_ends_takes_no_memory(tmp_path: Path) -> None:
    """A file that is no text at all has one."""
    path = tmp_path / "zeros"
    with path.open("wb") as file:
        file.truncate(50 * LONGEST_LINE_BYTES)

    async def scenario() -> None:
        with opened(str(path)) as source:
            assert [each async for each in lines_of(source.descriptor, lambda _: None)] == [(1, None)]

    asyncio.run(scenario())


def test_of_many_refusals_all_are_counted_and_the_first_are_kept() -> None:
    refusals = Refusals()
    kept = [refusals.add(Refusal(number, "not_json" if number % 2 else "too_long", "")) for number in range(2 * MOST_REFUSALS)]
    assert kept == [True] * MOST_REFUSALS + [False] * MOST_REFUSALS
    assert len(refusals.lines) == MOST_REFUSALS
    assert refusals.by_reason == {"not_json": MOST_REFUSALS, "too_long": MOST_REFUSALS}


def test_a_line_of_a_pipe_is_taken_before_the_next_one_comes() -> None:
    """`tail -f events.jsonl | full-pass publish --from-file -` publishes what is there."""

    async def scenario() -> None:
        reader, writer = os.pipe()
        lines = lines_of(reader, lambda _: None)
        try:
            async with asyncio.timeout(10):
                for number in (1, 2):
                    os.write(writer, b"a\nhalf")
                    assert await anext(lines) == (number, b"a" if number == 1 else b"halfa")
                waiting = asyncio.ensure_future(anext(lines))
                await asyncio.sleep(0)
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
        finally:
            os.close(writer)
            os.close(reader)

    asyncio.run(scenario())


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for name, said in ((str(tmp_path), "is a folder"), (str(tmp_path / "nowhere"), "No such file")):
        with pytest.raises(ConfigurationError, match=said), opened(name):
            pass


async def numbered(
    count: int, users: int, seen: Callable[[], None] = lambda: None
) -> AsyncIterator[tuple[int, QuickPassCompleted]]:
    """Events of some users in turn; the key is the number of the line."""
    ids = [uuid.uuid4() for _ in range(users)]
    for line in range(1, count + 1):
        seen()
        yield line, an_event(f"{line:06}", ids[line % users])


def test_all_events_arrive_once_and_those_of_a_user_in_order_with_few_in_flight(
    kafka: KafkaServer, database_url: str, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there are, and however many partitions: the client by itself keeps a batch for each."""
    count, at_most = 1_500, 10
    monkeypatch.setattr(publishing, "IN_FLIGHT", at_most)

    async def scenario() -> None:
        async with an_environment(kafka.bootstrap_servers, database_url, topic_prefix) as env:
            publication, waiting, counted = Publication(), list[int](), set[int]()

            def look() -> None:
                waiting.append(len(publication._in_flight))
                counted.add(publication.published)

            events = numbered(count, 50, look)
            await publication.publish_all(env.settings, events)
            assert publication.published == count
            assert max(waiting) < at_most
            assert len(counted) > 10, "what is published is known while it goes on"
            by_user: dict[bytes | None, list[str]] = {}
            for record in await env.read(env.topics.names.completed):
                by_user.setdefault(record.key, []).append(json.loads(record.value or b"")["idempotency_key"])
            assert len(by_user) == 50
            assert all(keys == sorted(keys) for keys in by_user.values())
            assert sorted(key for keys in by_user.values() for key in keys) == [f"{line:06}" for line in range(1, count + 1)]
            await refuses_everything(env)

    async def refuses_everything(env: Environment) -> None:
        await limit_topic(env, env.topics.names.completed, 100)
        publication = Publication()
        with pytest.raises(KafkaTrouble, match=r"did not take the event of line 1 \(MessageSizeTooLargeError\)$"):
            await publication.publish_all(env.settings, numbered(10, 1))
        assert publication.published == 0

    asyncio.run(scenario())


def test_without_the_topics_nothing_is_published(kafka: KafkaServer, database_url: str, topic_prefix: str) -> None:
    async def scenario() -> None:
        async with an_environment(kafka.bootstrap_servers, database_url, topic_prefix) as env:
            nowhere = env.settings.model_copy(update={"topic_prefix": "nowhere-"})
            with pytest.raises(TopicsMissing):
                await Publication().publish_all(nowhere, numbered(1, 1))

    asyncio.run(scenario())


def test_a_broker_that_dies_meanwhile_is_told_with_the_line_and_what_arrived_is_counted(
    own_kafka: KafkaServer, database_url: str, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client by itself would wait for ever."""
    publication = Publication()

    async def dying(events: AsyncIterator[tuple[int, QuickPassCompleted]]) -> AsyncIterator[tuple[int, QuickPassCompleted]]:
        async for line, event in events:
            if line == 3:
                while not publication._in_flight[0][1].done():
                    await asyncio.sleep(0.01)
            yield line, event
        own_kafka.kill()
        monkeypatch.setattr(connection, "CLOSE_SECONDS", 0.2)

    async def scenario() -> None:
        async with an_environment(own_kafka.bootstrap_servers, database_url, topic_prefix) as env:
            with pytest.raises(KafkaTrouble, match=r"the event of line [34] \(no answer in 0.5 s\)"):
                await publication.publish_all(env.settings, dying(numbered(4, 1)), patience_seconds=0.5)
            assert 1 <= publication.published <= 3

    asyncio.run(scenario())
