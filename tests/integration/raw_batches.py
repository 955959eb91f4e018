"""Record batches written byte by byte, for what a producer may send and the Kafka client would not."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.codec import gzip_encode, lz4_encode, snappy_encode, zstd_encode
from aiokafka.errors import NoError, for_code
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.util import calc_crc32c

PACK: dict[str, tuple[int, Callable[[bytes], bytes]]] = {
    "none": (0, bytes),
    "gzip": (1, gzip_encode),
    "snappy": (2, snappy_encode),
    "lz4": (3, lz4_encode),
    "zstd": (4, zstd_encode),
}
NO_TIME = -1


@dataclass(frozen=True)
class Raw:
    """A record; the names of its headers are bytes, as they are in Kafka."""

    value: bytes | None
    key: bytes | None = None
    headers: Sequence[tuple[bytes, bytes | None]] = ()


def a_batch(records: Sequence[Raw], codec: str = "none", at_ms: int = NO_TIME, damage: bytes = b"") -> bytes:
    """Records as one batch of the newest format; `damage` stands in place of the packed records, under a right checksum."""
    number, pack = PACK[codec]
    packed = damage or pack(b"".join(_record(delta, record) for delta, record in enumerate(records)))
    body = struct.pack(">hiqqqhii", number, len(records) - 1, at_ms, at_ms, -1, -1, -1, len(records)) + packed
    checked = struct.pack(">ibI", 0, 2, calc_crc32c(body)) + body
    return struct.pack(">qi", 0, len(checked)) + checked


async def send_batches(bootstrap_servers: str, topic: str, *batches: bytes, partition: int = 0) -> None:
    """Append batches, in a request each, as they are."""
    client = AIOKafkaClient(bootstrap_servers=bootstrap_servers)
    try:
        await client.bootstrap()
        await client.set_topics([topic])
        leader = client.cluster.leader_for_partition(TopicPartition(topic, partition))
        for batch in batches:
            answer = await client.send(leader, ProduceRequest(None, -1, 10_000, [(topic, [(partition, batch)])]))
            error = for_code(answer.topics[0][1][0][1])
            if error is not NoError:
                raise error
    finally:
        await client.close()


def _number(value: int) -> bytes:
    zigzag = (value << 1) ^ (value >> 63)
    found = bytearray()
    while zigzag > 0x7F:
        found.append(zigzag & 0x7F | 0x80)
        zigzag >>= 7
    return bytes([*found, zigzag])


def _text(text: bytes | None) -> bytes:
    return _number(-1) if text is None else _number(len(text)) + text


def _record(delta: int, record: Raw) -> bytes:
    headers = b"".join(_text(name) + _text(value) for name, value in record.headers)
    body = b"\0" + _number(0) + _number(delta) + _text(record.key) + _text(record.value) + _number(len(record.headers)) + headers
    return _number(len(body)) + body
