"""Dead letters go back to the input topic as the messages that they were (design, "Dead letters").

What is still wrong becomes a dead letter again; what was taken before has its run, and gets no other.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy

from consumer.errors import InvalidReason
from consumer.kafka.connection import REQUEST_TIMEOUT_MS, KafkaTrouble, idempotent_producer
from consumer.kafka.messages import Headers, Record
from consumer.kafka.refusals import what_is_denied
from consumer.kafka.topics import TopicNames, Topics
from consumer.settings import Settings

IN_FLIGHT = 500
_PATIENCE_SECONDS = REQUEST_TIMEOUT_MS / 1000
_BATCH_BYTES = 16_384
_OURS = "dead_letter_"


class NotRedrivable(Exception):
    """The message can't be had back from its dead letter; says why."""


@dataclass(frozen=True, slots=True)
class Original:
    """A message as it was. `partition` is where it lay. Header names that are not UTF-8 have their bytes as lone surrogates."""

    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers

    def sha256(self) -> bytes:
        """Equal for messages that are equal in all their parts."""
        parts = (self.partition, self.key, self.value, list(self.headers))
        return hashlib.sha256(repr(parts).encode()).digest()

    @property
    def is_usual(self) -> bool:
        """Whether the client sends it as it is: with a key or a value, and with header names in UTF-8."""
        return (self.key is not None or self.value is not None) and all(_is_utf8(name) for name, _ in self.headers)


@dataclass(frozen=True, slots=True)
class Redriven:
    """Where a dead letter lies, and where its message is now; None and why, where it could not be sent."""

    partition: int
    offset: int
    to_partition: int | None = None
    to_offset: int | None = None
    why_not: str | None = None


def original_of(letter: Record, topic: str) -> Original:
    """The message that the record of the dead-letter topic was, before it came there from `topic`.

    Raises:
        NotRedrivable: when part of it is not there, or it never was one message of that topic.
    """
    ours = {name: (value or b"").decode(errors="replace") for name, value in letter.headers if name.startswith(_OURS)}
    if f"{_OURS}reason" not in ours:
        raise NotRedrivable("it is no dead letter of this service: the header dead_letter_reason is missing")
    if ours[f"{_OURS}reason"] == InvalidReason.UNREADABLE_BATCH:
        raise NotRedrivable("it is a whole batch that nobody could unpack; the publisher has to send its messages again")
    for part in ("value", "key", "headers"):
        if (size := ours.get(f"{_OURS}{part}_bytes")) is not None:
            raise NotRedrivable(f"it was kept without its {part} of {size} bytes, which was too large; publish the event again")
    if ours.get(f"{_OURS}topic") != topic:
        raise NotRedrivable(f"it did not come from {topic}")
    partition = ours.get(f"{_OURS}partition", "")
    return Original(int(partition) if partition.isdecimal() else 0, letter.key, letter.value, _own_headers(letter.headers))


def _own_headers(headers: Headers) -> Headers:
    """The message's own, with their names as they were: those in front of ours, which begin at the last `dead_letter_reason`."""
    begin = max(at for at, (name, _) in enumerate(headers) if name == f"{_OURS}reason")
    own = list(headers[:begin])
    if own and own[-1][0] == f"{_OURS}header_names":
        _, names = own.pop()
        try:
            raw = [bytes.fromhex(name).decode(errors="surrogateescape") for name in (names or b"").decode().split(" ")]
            own = [(name, value) for name, (_, value) in zip(raw, own, strict=True)]
        except ValueError:
            raise NotRedrivable("the names of its headers in dead_letter_header_names can't be read") from None
    return [(name, value) for name, value in own if not name.startswith(_OURS)]


class Redriver:
    """Sends messages back to the input topic, each to the partition where it lay, in the order given."""

    def __init__(self, producer: AIOKafkaProducer, topic: str, partitions: Sequence[int]) -> None:
        self._producer = producer
        self._topic = topic
        self._partitions = partitions
        self._in_flight: deque[tuple[Record, asyncio.Future[Any]]] = deque()
        self.redriven: list[Redriven] = []

    @classmethod
    @asynccontextmanager
    async def connect(cls, settings: Settings) -> AsyncIterator[Redriver]:
        """Connect for the length of the block, at the end of which all is acknowledged; `redriven` says how it went.

        Raises:
            TopicsMissing: when the input topic isn't there.
            KafkaTrouble: when Kafka can't be reached or refuses a message; those before it may have been sent.
        """
        topic = TopicNames(settings.topic_prefix).completed
        await Topics(settings).require(topic)
        async with idempotent_producer(settings) as producer:
            redriver = cls(producer, topic, sorted(await producer.partitions_for(topic)))
            yield redriver
            await redriver.settle()

    async def send(self, letter: Record) -> None:
        """Send what the letter was, or note why not. At most `IN_FLIGHT` wait for their acknowledgement."""
        try:
            original = original_of(letter, self._topic)
        except NotRedrivable as why:
            self.redriven.append(Redriven(letter.partition, letter.offset, why_not=str(why)))
            return
        try:
            self._in_flight.append((letter, await self._sent(original)))
        except MessageSizeTooLargeError:
            self._note_too_large(letter)
        except KafkaError as error:
            raise self._trouble(error) from error
        if len(self._in_flight) >= IN_FLIGHT:
            await self.settle(IN_FLIGHT // 2)

    async def settle(self, left: int = 0) -> None:
        """Wait until no more than so many are on their way."""
        while len(self._in_flight) > left:
            letter, sent = self._in_flight[0]
            try:
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    place = await asyncio.shield(sent)
            except MessageSizeTooLargeError:
                self._note_too_large(letter)
            except (KafkaError, TimeoutError) as error:
                raise self._trouble(error) from error
            else:
                self.redriven.append(Redriven(letter.partition, letter.offset, place.partition, place.offset))
            self._in_flight.popleft()

    async def _sent(self, message: Original) -> asyncio.Future[Any]:
        """On its way, with the time of now: its own may be older than the topic's retention."""
        partition = message.partition if message.partition in self._partitions else self._partitions[0]
        if message.is_usual:
            headers = list(message.headers)
            sent: asyncio.Future[Any] = await self._producer.send(
                self._topic, message.value, message.key, partition=partition, headers=headers
            )
            return sent
        batch = _BatchOfRawNames()
        headers = [(_RawName(name), value) for name, value in message.headers]
        batch.append(timestamp=None, key=message.key, value=message.value, headers=headers)
        batched: asyncio.Future[Any] = await self._producer.send_batch(batch, self._topic, partition=partition)
        return batched

    def _note_too_large(self, letter: Record) -> None:
        why = f"it is larger than {self._topic} takes; see max.message.bytes"
        self.redriven.append(Redriven(letter.partition, letter.offset, why_not=why))

    def _trouble(self, error: Exception) -> KafkaTrouble:
        sent = sum(each.why_not is None for each in self.redriven)
        why = what_is_denied(error) or f"Kafka did not take a message ({type(error).__name__})"
        return KafkaTrouble(f"{why}; {sent:,} were sent before it, and none is taken twice")


def _is_utf8(name: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in name)


class _RawName(str):
    """A header's name that is written as the bytes that it was read from."""

    __slots__ = ()

    def encode(self, encoding: str = "utf-8", errors: str = "surrogateescape") -> bytes:
        """The bytes."""
        del errors
        return super().encode(encoding, "surrogateescape")


class _BatchOfRawNames(BatchBuilder):  # type: ignore[misc]  # the client is untyped
    """One record that the client's own builder refuses: its compiled one takes names in UTF-8 alone, its Python one any."""

    def __init__(self) -> None:
        super().__init__(_BATCH_BYTES, 0)
        self._builder = _DefaultRecordBatchBuilderPy(
            2, 0, is_transactional=0, producer_id=-1, producer_epoch=-1, base_sequence=0, batch_size=_BATCH_BYTES
        )

    def _set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
        self._builder.set_producer_state(producer_id, producer_epoch, base_sequence)
