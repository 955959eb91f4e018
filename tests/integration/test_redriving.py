"""Dead letters go back as the messages that they were, whatever they were."""

from __future__ import annotations

import asyncio
from typing import Any

from consumer.errors import InvalidMessage, InvalidReason
from consumer.kafka.connection import idempotent_producer
from consumer.kafka.dead_letters import EVERY_LETTER, DeadLetter, DeadLetters, LetterFilter, read_dead_letters
from consumer.kafka.intake import Intake
from consumer.kafka.messages import Record
from consumer.kafka.redriving import Redriven, Redriver
from sandbox.kafka import KafkaServer
from tests.integration.kafka_environment import Environment, an_environment, limit_topic, until
from tests.integration.raw_batches import Raw, a_batch, send_batches
from tests.unit.kafka.records import HandMadeRecord

ODD = b"x-caf\xe9"  # Latin-1, as an old application writes its headers
WHOLE = (
    Raw(b"no event", b"\xfe", [(ODD, b"\x00\xff"), (b"plain", None), (ODD, b"2")]),
    Raw(b"no event either", None, [(b"a", b"1"), (b"a", b"2"), (b"dead_letters", b"not ours")]),
    Raw(None, None, [(b"x", b"y")]),
    Raw(None, b"key"),
    Raw(b"[]", b"key", [(b"content-type", b"application/json")]),
)


async def letters_of(env: Environment, which: LetterFilter = EVERY_LETTER) -> list[Record]:
    return [letter async for letter in read_dead_letters(env.settings, which)]


async def bury(env: Environment, count: int) -> list[Record]:
    """Let intake work until there are so many dead letters."""

    async def there() -> bool:
        samples = [sample for family in env.metrics.messages_dead_lettered.collect() for sample in family.samples]
        return sum(sample.value for sample in samples if sample.name.endswith("_total")) >= count

    async with env.running(Intake(env.settings, env.ledger, env.health, env.metrics)):
        await until(there)
    return await letters_of(env)


async def redrive(env: Environment, letters: list[Record]) -> list[Redriven]:
    async with Redriver.connect(env.settings) as redriver:
        for letter in letters:
            await redriver.send(letter)
    return redriver.redriven


def as_it_was(letter: Record) -> Any:
    """What a dead letter has of its message; the names that were not UTF-8 as the bytes that they were."""
    named = dict(letter.headers).get("dead_letter_header_names")
    own = [header for header in letter.headers if not header[0].startswith("dead_letter_")]
    return letter.key, letter.value, own, named


def test_each_message_goes_back_with_its_key_value_headers_and_partition_and_is_buried_again_as_the_same(
    kafka: KafkaServer, database_url: str, topic_prefix: str
) -> None:
    async def scenario() -> None:
        async with an_environment(kafka.bootstrap_servers, database_url, topic_prefix, partitions=2) as env:
            batches = [a_batch([each]) for each in WHOLE]
            await send_batches(kafka.bootstrap_servers, env.topics.names.completed, *batches, partition=1)
            buried = await bury(env, len(WHOLE))
            order = sorted(buried, key=lambda letter: int(dict(letter.headers)["dead_letter_offset"] or b""))
            sent = await redrive(env, order)
            assert [(each.to_partition, each.to_offset) for each in sent] == [(1, len(WHOLE) + at) for at in range(len(WHOLE))]
            assert {each.why_not for each in sent} == {None}
            everything = await bury(env, 2 * len(WHOLE))
            again = {(dict(letter.headers)["dead_letter_offset"] or b"").decode(): letter for letter in everything}
            for first, redriven in zip(order, sent, strict=True):
                assert as_it_was(again[str(redriven.to_offset)]) == as_it_was(first)
            names = (dict(order[0].headers)["dead_letter_header_names"] or b"").decode()
            assert [bytes.fromhex(name) for name in names.split()] == [ODD, b"plain", ODD]

    asyncio.run(scenario())


def test_what_is_not_whole_stays_where_it_is_and_says_why(kafka: KafkaServer, database_url: str, topic_prefix: str) -> None:
    async def scenario() -> None:
        async with an_environment(kafka.bootstrap_servers, database_url, topic_prefix, partitions=1) as env:
            topic = env.topics.names.completed
            await limit_topic(env, topic, 2000)
            large = HandMadeRecord(b"x" * 3_000, key=b"k", topic=topic)
            batch = HandMadeRecord(b"x", key=b"k", topic=topic)
            async with DeadLetters.connect(env.settings) as grave:
                await grave.bury([DeadLetter(large, InvalidMessage(InvalidReason.NOT_JSON, "expected JSON"))])
                await grave.bury(
                    [DeadLetter(batch, InvalidMessage(InvalidReason.UNREADABLE_BATCH, "the value is the whole batch"))]
                )
            reason, at_topic = ("dead_letter_reason", b"not_json"), ("dead_letter_topic", topic.encode())
            async with idempotent_producer(env.settings) as producer:
                for headers in (
                    [reason, at_topic, ("dead_letter_value_bytes", b"104857600")],
                    [],
                    [reason, ("dead_letter_topic", b"elsewhere")],
                    [("dead_letter_header_names", b"zz"), reason, at_topic],
                ):
                    await producer.send_and_wait(env.topics.names.dead_letters, b"?", b"k", headers=headers)
            sent = sorted(await redrive(env, await letters_of(env)), key=lambda each: each.offset)
            assert [each.why_not and each.why_not.split(";")[0] for each in sent] == [
                f"it is larger than {topic} takes",
                "it is a whole batch that nobody could unpack",
                "it was kept without its value of 104857600 bytes, which was too large",
                "it is no dead letter of this service: the header dead_letter_reason is missing",
                f"it did not come from {topic}",
                "the names of its headers in dead_letter_header_names can't be read",
            ]
            assert await env.read(topic) == []

    asyncio.run(scenario())
