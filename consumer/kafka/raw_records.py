"""Record batches taken apart by hand, where the Kafka client gives up on a whole partition.

The client reads a header's name as strict UTF-8, which Kafka does not demand; one such record would stop its partition for
good. Here a name that is not UTF-8 keeps its bytes as lone surrogates (`surrogateescape`), and a batch that can't be unpacked
becomes one record that holds the batch as it came. It takes five times as long as the client, so it is used where that fails.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from aiokafka import TopicPartition
from aiokafka.codec import gzip_decode, lz4_decode, snappy_decode, zstd_decode
from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.errors import CorruptRecordException, UnsupportedCodecError
from aiokafka.record.memory_records import MemoryRecords
from cramjam import DecompressionError

from consumer.kafka.messages import Record

UNREADABLE = (
    UnicodeDecodeError,
    UnsupportedCodecError,
    CorruptRecordException,
    DecompressionError,
    gzip.BadGzipFile,
    zlib.error,
    EOFError,
    struct.error,
    IndexError,
)
"""What the client, and what stands here, raises for bytes that it can't read."""

_UNPACK: dict[int, Callable[[bytes], bytes]] = {
    0: bytes,
    1: gzip_decode,
    2: snappy_decode,
    3: lz4_decode,
    4: zstd_decode,
}
_LENGTH = struct.Struct(">8xi")
_COUNT = struct.Struct(">57xi")
_HEADER_BYTES = 61
_OVERHEAD_BYTES = 12
_FORMAT_WITH_HEADERS = 2


@dataclass(frozen=True, slots=True)
class RawRecord:
    """A record as the client's own iterator has it. `value` is a whole batch where the batch can't be taken apart."""

    offset: int
    timestamp: int | None
    timestamp_type: int | None
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    checksum: None = None


@dataclass(frozen=True, slots=True)
class RawRecords:
    """The records of one fetch of a partition, in order. `batches` are the offsets of those that stand for a whole batch."""

    records: list[Record]
    batches: frozenset[int]
    next_offset: int

    def readable(self) -> list[Record]:
        """The records as they were produced."""
        return [record for record in self.records if record.offset not in self.batches]

    def unreadable(self) -> list[Record]:
        """A record for each batch that can't be taken apart: at its last offset, with the batch as its value."""
        return [record for record in self.records if record.offset in self.batches]


def taken_apart(partition: TopicPartition, position: int, data: bytes, aborted: Iterable[Any]) -> RawRecords:
    """What a fetch at `position` brought, without control records and without those of aborted transactions.

    Raises:
        CorruptRecordException: when a checksum is wrong: the bytes changed on their way or on the broker's disk.
    """
    batches = _Batches(data)
    reading = PartitionRecords(partition, batches, aborted, position, None, None, True, READ_COMMITTED)
    records = list(reading)
    return RawRecords(records, frozenset(batches.unreadable), reading.next_fetch_offset)


class _Batches:
    """The whole batches of a fetch, in the client's shape; the last one may have been cut off and is left out."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self.unreadable: set[int] = set()

    def has_next(self) -> bool:
        return self._end() is not None

    def next_batch(self) -> _Batch:
        begin, self._at = self._at, self._end() or len(self._data)
        return _Batch(self._data[begin : self._at], self.unreadable)

    def _end(self) -> int | None:
        if len(self._data) - self._at < _OVERHEAD_BYTES:
            return None
        end = self._at + _OVERHEAD_BYTES + int(_LENGTH.unpack_from(self._data, self._at)[0])
        return end if self._at < end <= len(self._data) else None


class _Batch:
    """The client's batch, with an iterator that stops for nothing."""

    def __init__(self, raw: bytes, unreadable: set[int]) -> None:
        self._raw = raw
        self._batch = MemoryRecords(raw).next_batch()
        self._unreadable = unreadable

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        try:
            records = list(self._records())
        except UNREADABLE:
            offset = self._batch.next_offset - 1
            self._unreadable.add(offset)
            records = [RawRecord(offset, None, None, None, self._raw, [])]
        return iter(records)

    def _records(self) -> Iterator[Any]:
        batch = self._batch
        if getattr(batch, "magic", 0) < _FORMAT_WITH_HEADERS:
            yield from batch
            return
        unpack = _UNPACK.get(batch.compression_type)
        if unpack is None:
            raise UnsupportedCodecError(f"codec {batch.compression_type}")
        cursor = _Cursor(unpack(self._raw[_HEADER_BYTES:]))
        for _ in range(_COUNT.unpack_from(self._raw)[0]):
            yield _record(cursor, batch)


class _Cursor:
    """Reads the numbers and byte strings of Kafka's record format, one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def number(self) -> int:
        """A zigzag varint."""
        shift = value = 0
        while True:
            byte = self._data[self._at]
            self._at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return (value >> 1) ^ -(value & 1)
            shift += 7

    def bytes_or_none(self) -> bytes | None:
        """A byte string with its length in front; a negative one says that there is none."""
        length = self.number()
        if length < 0:
            return None
        found = self._data[self._at : self._at + length]
        if len(found) < length:
            raise CorruptRecordException
        self._at += length
        return found


def _record(cursor: _Cursor, batch: Any) -> RawRecord:
    cursor.number()  # the record's length
    cursor.number()  # attributes, of which there are none
    timestamp = batch.first_timestamp + cursor.number()
    offset = batch.base_offset + cursor.number()
    key, value = cursor.bytes_or_none(), cursor.bytes_or_none()
    headers = [
        ((cursor.bytes_or_none() or b"").decode(errors="surrogateescape"), cursor.bytes_or_none()) for _ in range(cursor.number())
    ]
    if batch.timestamp_type:  # of the broker's clock: one time for the whole batch
        timestamp = batch.max_timestamp
    return RawRecord(offset, timestamp, batch.timestamp_type, key, value, headers)
