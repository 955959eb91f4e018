"""What a producer can put on the topic beside good events: none of it may stop intake, and none of it may get lost."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import sys
import time
import uuid
from contextlib import suppress
from typing import Any

import pytest

from consumer.errors import InvalidMessage
from consumer.kafka.connection import idempotent_producer
from consumer.kafka.intake import Intake
from consumer.kafka.messages import to_new_run
from consumer.kafka.raw_records import taken_apart
from consumer.kafka.storage_paths import AllowedPaths
from sandbox.kafka import KafkaServer
from tests.integration.kafka_environment import (
    Environment,
    an_environment,
    an_event,
    configure_topic,
    until,
    values_of,
)
from tests.integration.raw_batches import NO_TIME, PACK, Raw, a_batch, send_batches
from tests.unit.kafka.records import HandMadeRecord

ODD = b"x-caf\xe9"  # Latin-1, as an old application writes its headers


def event(key: str, *headers: tuple[bytes, bytes | None]) -> Raw:
    return Raw(values_of([an_event(key)])[0], b"k", headers)


def intake_of(env: Environment) -> Intake:
    return Intake(env.settings, env.ledger, env.health, env.metrics)


async def taken(env: Environment, *keys: str, letters: int = 0) -> None:
    """Let an intake work until all of that is durable."""

    async def all_durable() -> bool:
        return await env.keys() == sorted(keys) and sum_of_letters(env) >= letters

    async with env.running(intake_of(env)):
        await until(all_durable)


def sum_of_letters(env: Environment) -> float:
    samples = [sample for family in env.metrics.messages_dead_lettered.collect() for sample in family.samples]
    return sum(sample.value for sample in samples if sample.name.endswith("_total"))


@pytest.mark.guarantee("G1")
@pytest.mark.parametrize("codec", PACK)
def test_events_in_any_codec_are_taken_also_beside_headers_whose_names_are_not_utf_8(
    kafka: KafkaServer, database_url: str, topic_prefix: str, codec: str
) -> None:
    """The Kafka client reads neither without help; its partition would stand still for good."""

    async def scenario() -> None:
        async with an_environment(kafka.bootstrap_servers, database_url, topic_prefix, partitions=1) as env:
            topic = env.topics.names.completed
            await send_batches(
                kafka.bootstrap_servers,
                topic,
                a_batch([event("a"), event("b", (b"", b""), (b"x", None), (b"x", b"\xff"))], codec),
                a_batch([event("c"), event("d", (ODD, b"1"), (b"ce_type", b"quick-pass-completed")), event("e")], codec),
                a_batch([event("f")], codec),
            )
            await taken(env, *"abcdef")
            assert await env.committed(env.settings.consumer_group, topic) == {0: 6}
            assert env.sample("messages_repeated_total") == 0
            assert sum_of_letters(env) == 0

    asyncio.run(scenario())


def test_a_dead_letter_keeps_the_bytes_of_header_names_that_are_not_utf_8(
    kafka: KafkaServer, database_url: str, topic_prefix: str
) -> None:
    async def scenario() -> None:
        async with an_environment(kafka.bootstrap_servers, database_url, topic_prefix, partitions=1) as env:
            bad = Raw(b"no event", b"\xfe", [(ODD, b"\x00\xff"), (b"plain", None), (ODD, b"2")])
            await send_batches(kafka.bootstrap_servers, env.topics.names.completed, a_batch([event("a"), bad, event("b")]))
            await taken(env, "a", "b", letters=1)
            (letter,) = await env.read(env.topics.names.dead_letters)
            headers = list(letter.headers)
            assert (letter.key, letter.value) == (b"\xfe", b"no event")
            assert headers[:3] == [(r"x-caf\xe9", b"\x00\xff"), ("plain", None), (r"x-caf\xe9", b"2")]
            names = (dict(headers)["dead_letter_header_names"] or b"").decode().split()
            assert [bytes.fromhex(name) for name in names] == [ODD, b"plain", ODD]
            assert dict(headers)["dead_letter_offset"] == b"1"

    asyncio.run(scenario())


def test_a_name_that_is_not_utf_8_in_an_aborted_transaction_brings_nothing_of_it_to_light(
    kafka: KafkaServer, database_url: str, topic_prefix: str
) -> None:
    """What is read carefully is read as a `read_committed` reader reads, across partitions."""

    async def scenario() -> None:
        async with an_environment(kafka.bootstrap_servers, database_url, topic_prefix, partitions=2) as env:
            topic = env.topics.names.completed
            async with idempotent_producer(env.settings, transactional_id=topic_prefix) as producer:
                for key, commits in (("aborted", False), ("committed", True)):
                    await producer.begin_transaction()
                    await producer.send_and_wait(topic, *values_of([an_event(key)]), partition=0)
                    await (producer.commit_transaction() if commits else producer.abort_transaction())
            for partition in (0, 1):
                batch = a_batch([event(f"odd-{partition}", (ODD, None))])
                await send_batches(kafka.bootstrap_servers, topic, batch, partition=partition)
            await taken(env, "committed", "odd-0", "odd-1")
            assert await env.committed(env.settings.consumer_group, topic) == {0: 5, 1: 1}

    asyncio.run(scenario())


def test_odd_names_all_over_a_long_topic_lose_no_event_and_repeat_none(
    kafka: KafkaServer, database_url: str, topic_prefix: str
) -> None:
    """After the client gave up it has forgotten what it had read of other partitions."""
    partitions, batches, size = 3, 12, 60

    async def scenario() -> None:
        async with an_environment(kafka.bootstrap_servers, database_url, topic_prefix, partitions=partitions) as env:
            for partition in range(partitions):
                made = [
                    a_batch([
                        event(f"{partition}-{number}-{index}", *([(ODD, b"")] if number % 3 == partition and index == 7 else []))
                        for index in range(size)
                    ], "zstd" if number % 2 else "none")
                    for number in range(batches)
                ]  # fmt: skip
                await send_batches(kafka.bootstrap_servers, env.topics.names.completed, *made, partition=partition)
            async with env.running(intake_of(env)):
                await until(lambda: env.sample("messages_taken_total") == partitions * batches * size)
            assert env.sample("messages_repeated_total") == 0

    asyncio.run(scenario())


def test_a_batch_that_cannot_be_unpacked_is_one_dead_letter_and_blocks_nothing() -> None:
    """Brokers look into packed batches, so this can only come from a broker's own fault; its bytes are kept, whole."""
    from aiokafka import TopicPartition

    damaged = a_batch([Raw(b"1"), Raw(b"2")], "zstd", damage=b"no zstd")
    good = a_batch([Raw(b"3", headers=[(ODD, None)])])
    data = damaged + good[:7] + b"\x02" + good[8:] + good[:30]
    raw = taken_apart(TopicPartition("t", 0), 0, data, ())
    assert [(record.offset, record.value) for record in raw.unreadable()] == [(1, damaged)]
    assert [(record.offset, record.value) for record in raw.readable()] == [(2, b"3")]
    assert raw.next_offset == 3


def test_times_that_a_producer_makes_up_change_nothing(kafka: KafkaServer, database_url: str, topic_prefix: str) -> None:
    """No time, the broker's time, and an event from 2062 whose record says that it is 2062, too."""
    in_2062 = 2_916_000_000_000
    far = json.dumps({**json.loads(an_event("2062").model_dump_json()), "completed_at": "2062-05-28T00:00:00Z"})

    async def scenario() -> None:
        async with an_environment(kafka.bootstrap_servers, database_url, topic_prefix, partitions=1) as env:
            topic = env.topics.names.completed
            await configure_topic(env, topic, **{"message.timestamp.after.max.ms": str(2**62)})
            await send_batches(
                kafka.bootstrap_servers,
                topic,
                a_batch([event("no time")], at_ms=NO_TIME),
                a_batch([Raw(far.encode())], at_ms=in_2062),
                a_batch([event("in the future")], at_ms=in_2062),
                a_batch([event("long ago")], at_ms=0),
            )
            await configure_topic(env, topic, **{"message.timestamp.type": "LogAppendTime"})
            before = time.time() * 1000
            await send_batches(
                kafka.bootstrap_servers, topic, a_batch([event("broker's"), Raw(b"bad", None, [(ODD, b"")])], "lz4")
            )
            await taken(env, "no time", "in the future", "broker's", letters=3)
            letters = [dict(letter.headers) for letter in await env.read(env.topics.names.dead_letters)]
            reasons = sorted((int(letter["dead_letter_timestamp"] or 0), letter["dead_letter_reason"]) for letter in letters)
            assert reasons[0] == (0, b"completed_at_in_future")
            assert reasons[1][0] >= before - 1
            assert reasons[2] == (in_2062, b"completed_at_in_future")

    asyncio.run(scenario())


def test_headers_that_unpack_to_more_than_the_dead_letter_topic_takes_go_with_size_and_hash(
    kafka: KafkaServer, database_url: str, topic_prefix: str
) -> None:
    """A few packed kilobytes may hold megabytes of headers; waiting for a topic that takes them would block the partition."""
    headers = [(b"x" * 1_000, b"y" * 1_000)] * 1_000

    async def scenario() -> None:
        async with an_environment(kafka.bootstrap_servers, database_url, topic_prefix, partitions=1) as env:
            bad = Raw(b"no event", b"key", headers)
            await send_batches(kafka.bootstrap_servers, env.topics.names.completed, a_batch([bad, event("a")], "zstd"))
            await taken(env, "a", letters=1)
            (letter,) = await env.read(env.topics.names.dead_letters)
            found = {name: (value or b"").decode() for name, value in letter.headers}
            assert (letter.key, letter.value) == (None, None)
            assert (found["dead_letter_key_bytes"], found["dead_letter_value_bytes"]) == ("3", "8")
            assert found["dead_letter_key_sha256"] == hashlib.sha256(b"key").hexdigest()
            assert found["dead_letter_headers_bytes"] == "2000000"
            assert found["dead_letter_headers_sha256"] == hashlib.sha256(b"".join(map(b"".join, headers))).hexdigest()
            assert found["dead_letter_reason"] == "not_json"

    asyncio.run(scenario())


def test_a_value_that_unpacks_to_more_than_any_broker_takes_goes_with_size_and_hash(
    kafka: KafkaServer, database_url: str, topic_prefix: str
) -> None:
    """Brokers look at the packed size; who sends them this much unpacked is cut off without an answer, again and again."""
    value = b"\0" * (101 * 1024 * 1024)

    async def scenario() -> None:
        async with an_environment(kafka.bootstrap_servers, database_url, topic_prefix, partitions=1) as env:
            packed = a_batch([Raw(value, b"key"), event("a")], "zstd")
            assert len(packed) < 100_000
            await send_batches(kafka.bootstrap_servers, env.topics.names.completed, packed)
            await taken(env, "a", letters=1)
            (letter,) = await env.read(env.topics.names.dead_letters)
            found = {name: (value or b"").decode() for name, value in letter.headers}
            assert (letter.key, letter.value, found["dead_letter_value_bytes"]) == (b"key", None, str(len(value)))
            assert found["dead_letter_value_sha256"] == hashlib.sha256(value).hexdigest()

    asyncio.run(scenario())


def test_whatever_is_taken_postgresql_takes_and_gives_back_unchanged(
    kafka: KafkaServer, database_url: str, topic_prefix: str
) -> None:
    """Characters from all of Unicode, and the first and last times that there are."""
    seed = random.randrange(2**32)
    sys.stdout.write(f"seed {seed}\n")
    chance = random.Random(seed)
    times = ["0001-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "1970-01-01T12:00:00.000001+12:00", "2026-02-28T23:59:60Z"]

    def any_text(length: int) -> str:
        return "".join(chr(chance.choice((0x20, 0xA0, 0x2028, 0xFFFE, chance.randrange(0x11_0000)))) for _ in range(length))

    def data(number: int) -> dict[str, Any]:
        key = f"{number} {any_text(chance.randrange(190))}"
        path = f"{any_text(chance.randrange(1, 9))}/{any_text(chance.randrange(1, 9))}"
        return {
            "user_id": str(uuid.UUID(int=chance.getrandbits(128))), "storage_path": path, "completed_at": chance.choice(times),
            "idempotency_key": key, "message_count": chance.choice((0, 2**53 - 1)),
        }  # fmt: skip

    records = [HandMadeRecord(json.dumps(data(number)).encode()) for number in range(2_000)]
    taken_runs = []
    for record in records:
        with suppress(InvalidMessage):
            taken_runs.append(to_new_run(record, AllowedPaths("")))

    async def scenario() -> None:
        async with an_environment(kafka.bootstrap_servers, database_url, topic_prefix) as env:
            assert await env.ledger.accept(taken_runs) == len(taken_runs) > 200
            kept = {row["run_id"]: row for row in await env.rows("SELECT * FROM full_pass_runs")}
            for run in taken_runs:
                row = kept[run.run_id]
                assert (row["user_id"], row["idempotency_key"], row["completed_at"]) == (
                    run.user_id, run.idempotency_key, run.completed_at)  # fmt: skip
                assert json.loads(row["event"]) == json.loads(run.event)

    asyncio.run(scenario())
