"""Dead letters: messages that no run can be made of, kept as they came (design, "Dead letters")."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from consumer.errors import InvalidMessage
from consumer.kafka.connection import REQUEST_TIMEOUT_MS, KafkaTrouble, connection_options, idempotent_producer, started
from consumer.kafka.messages import Headers, Record
from consumer.kafka.reading import partitions_of, until_its_end
from consumer.kafka.topics import TopicNames, TopicsMissing, missing_reason
from consumer.settings import Settings
from schemas.events import to_utc_text

ACKNOWLEDGED_WITHIN_SECONDS = 20.0
# Above its `socket.request.max.bytes` (100 MiB) a broker hangs up without a word, and the client would try again for ever.
_BROKERS_TAKE_BYTES = 99 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message and why no run can be made of it."""

    record: Record
    problem: InvalidMessage


@dataclass(frozen=True, slots=True)
class ListedDeadLetter:
    """A dead letter as an operator may see it: where it lies, where it came from, when and why; never key or value."""

    partition: int
    offset: int
    at: str
    topic: str
    source_partition: int | None
    source_offset: int | None
    reason: str
    detail: str


class DeadLetters:
    """Writes dead letters, acknowledged by all replicas before anything else happens."""

    def __init__(self, producer: AIOKafkaProducer, topic: str) -> None:
        self._producer = producer
        self._topic = topic

    @classmethod
    @asynccontextmanager
    async def connect(cls, settings: Settings) -> AsyncIterator[DeadLetters]:
        """Connect for the length of the block.

        Raises:
            KafkaTrouble: when the brokers can't be reached.
        """
        async with idempotent_producer(settings) as producer:
            yield cls(producer, TopicNames(settings.topic_prefix).dead_letters)

    async def bury(self, letters: Sequence[DeadLetter]) -> None:
        """Write all letters; when it returns they are durable.

        Raises:
            KafkaTrouble: when one could not be written; some may have been, and are written again with the batch.
        """
        try:
            async with asyncio.timeout(ACKNOWLEDGED_WITHIN_SECONDS):
                await asyncio.gather(*(self._write(letter) for letter in letters))
        except (KafkaError, TimeoutError) as error:
            raise KafkaTrouble(
                f"dead letters could not be written to {self._topic} ({type(error).__name__}); intake waits rather than drops"
            ) from error

    async def _write(self, letter: DeadLetter) -> None:
        """Whole if the topic takes it, else without its value, else without key and headers too, with their sizes and hashes."""
        record, ours = letter.record, _headers_of(letter)
        own = _names_as_text(record.headers)
        try:
            await self._send(record, record.key, record.value, [*own, *ours])
        except MessageSizeTooLargeError:
            ours += _measured("value", record.value)
            try:
                await self._send(record, record.key, None, [*own, *ours])
            except MessageSizeTooLargeError:
                ours += _measured("key", record.key) + _measured("headers", _joined(record.headers))
                await self._send(record, None, None, ours)

    async def _send(self, record: Record, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        """Send with the time of now: the record's own may be older than the topic's retention."""
        if len(value or b"") + len(key or b"") + len(_joined(headers)) > _BROKERS_TAKE_BYTES:
            raise MessageSizeTooLargeError
        if value is not None or key is not None:
            await self._producer.send_and_wait(self._topic, value, key, headers=headers)
            return
        # `send` refuses a record with neither key nor value, which Kafka allows.
        batch = self._producer.create_batch()
        batch.append(timestamp=None, key=None, value=None, headers=headers)
        partitions = sorted(await self._producer.partitions_for(self._topic))
        partition = partitions[record.partition % len(partitions)]
        await (await self._producer.send_batch(batch, self._topic, partition=partition))


def _headers_of(letter: DeadLetter) -> list[tuple[str, bytes | None]]:
    """Our headers, which stand behind the record's own; a reader takes the last of a name."""
    record = letter.record
    ours = {
        "reason": letter.problem.reason,
        "detail": letter.problem.detail,
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": "" if record.timestamp is None else record.timestamp,
        "at": to_utc_text(datetime.now(UTC)),
    }
    return [(f"dead_letter_{name}", str(value).encode()) for name, value in ours.items()]


def _names_as_text(headers: Headers) -> list[tuple[str, bytes | None]]:
    r"""The record's own headers. A name that is not UTF-8 is written with `\xff` for the bytes that are not.

    The client sends no other names; all the names as they were then stand in `dead_letter_header_names`, hexadecimal, in order.
    """
    own = [(name.encode(errors="surrogateescape"), value) for name, value in headers]
    as_text = [(name.decode(errors="backslashreplace"), value) for name, value in own]
    if any(name.encode() != raw for (name, _), (raw, _) in zip(as_text, own, strict=True)):
        as_text.append(("dead_letter_header_names", " ".join(raw.hex() for raw, _ in own).encode()))
    return as_text


def _joined(headers: Headers) -> bytes:
    return b"".join(name.encode(errors="surrogateescape") + (value or b"") for name, value in headers)


def _measured(name: str, content: bytes | None) -> list[tuple[str, bytes | None]]:
    """Size and SHA-256 of what a dead letter goes without; nothing where there was nothing."""
    if content is None:
        return []
    digest = hashlib.sha256(content).hexdigest()
    return [(f"dead_letter_{name}_bytes", str(len(content)).encode()), (f"dead_letter_{name}_sha256", digest.encode())]


@dataclass(frozen=True, slots=True)
class LetterFilter:
    """Which dead letters: those that fit all that is given.

    `since` and `until`, which is exclusive, are of when they were written. `places` are partition and offset on their own topic.
    """

    reasons: Collection[str] = ()
    since: datetime | None = None
    until: datetime | None = None
    partitions: Collection[int] = ()
    places: Collection[tuple[int, int]] | None = None

    def reads(self, partition: int) -> bool:
        """Whether anything of this partition can fit."""
        if self.places is not None and all(partition != there for there, _ in self.places):
            return False
        return not self.partitions or partition in self.partitions

    def fits(self, record: Record) -> bool:
        """Whether this one does, of a partition that is read."""
        if self.places is not None and (record.partition, record.offset) not in self.places:
            return False
        if self.reasons and listed(record).reason not in self.reasons:
            return False
        written_at = datetime.fromtimestamp(max(0, record.timestamp or 0) / 1000, UTC)
        return (self.since is None or written_at >= self.since) and (self.until is None or written_at < self.until)


EVERY_LETTER = LetterFilter()


async def list_dead_letters(settings: Settings, which: LetterFilter = EVERY_LETTER) -> AsyncIterator[ListedDeadLetter]:
    """The dead letters that Kafka has now, partition by partition, oldest first; leaves no trace in any group.

    Raises:
        TopicsMissing: when there is no dead-letter topic.
        KafkaTrouble: when the brokers can't be reached or stop answering.
    """
    async with aclosing(read_dead_letters(settings, which)) as letters:
        async for letter in letters:
            yield listed(letter)


async def read_dead_letters(settings: Settings, which: LetterFilter) -> AsyncGenerator[Record, None]:
    """The same as they lie there, with key, value and all headers."""
    topic = TopicNames(settings.topic_prefix).dead_letters
    consumer = AIOKafkaConsumer(
        **connection_options(settings),
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        request_timeout_ms=REQUEST_TIMEOUT_MS,
    )
    try:
        await started(consumer, settings)
        if topic not in await consumer.topics():
            raise TopicsMissing(missing_reason((topic,)))
        for partition in await partitions_of(consumer, topic):
            if which.reads(partition.partition):
                async for record in until_its_end(consumer, partition):
                    if which.fits(record):
                        yield record
    except (KafkaError, TimeoutError) as error:
        raise KafkaTrouble(f"Kafka stopped answering ({type(error).__name__})") from error
    finally:
        await consumer.stop()


def listed(record: Record) -> ListedDeadLetter:
    """What an operator may see of a record of the dead-letter topic."""
    headers: dict[str, Any] = dict(record.headers)

    def text(name: str) -> str:
        value = (headers.get(f"dead_letter_{name}") or b"").decode(errors="replace")
        return "".join(char if char.isprintable() else "\ufffd" for char in value)

    def number(name: str) -> int | None:
        digits = text(name)
        return int(digits) if digits.isdecimal() and len(digits) < 20 else None

    return ListedDeadLetter(
        partition=record.partition,
        offset=record.offset,
        at=text("at"),
        topic=text("topic"),
        source_partition=number("partition"),
        source_offset=number("offset"),
        reason=text("reason"),
        detail=text("detail"),
    )
