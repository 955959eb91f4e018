"""From the topic into the ledger, on real servers."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
import uuid
from collections.abc import Callable

import pytest

from consumer.kafka.connection import KafkaTrouble, admin_client, idempotent_producer
from consumer.kafka.dead_letters import list_dead_letters
from consumer.kafka.intake import BATCH_RECORDS, Intake
from consumer.kafka.publishing import publish
from consumer.postgres.database import DatabaseUnavailable
from sandbox.kafka import KafkaServer
from sandbox.postgres import PostgresServer
from tests.integration.kafka_environment import Environment, an_environment, an_event, limit_topic, until, values_of
from tests.integration.part_process import kill_when
from tests.integration.wire import Proxy, is_kafka_request

OFFSET_COMMIT = 8
NESTED = "[" * 300 + "]" * 300


def intake_of(env: Environment) -> Intake:
    return Intake(env.settings, env.ledger, env.health, env.metrics)


async def handled(env: Environment, count: int) -> None:
    """Wait until that many messages became a run, were known, or became a dead letter, and were committed."""
    await until(lambda: count <= env.sample("messages_taken_total") + env.sample("messages_repeated_total"))
    await until(lambda: committed_all(env))


async def committed_all(env: Environment) -> bool:
    """Whether the group has committed the end of the input."""
    ends: dict[int, int] = {}
    for record in await env.read(env.topics.names.completed):
        ends[record.partition] = max(ends.get(record.partition, 0), record.offset + 1)
    return await env.committed(env.settings.consumer_group, env.topics.names.completed) == ends


@pytest.mark.guarantee("G2")
def test_an_event_becomes_one_run_however_often_it_is_delivered(kafka: KafkaServer, database_url: str, topic_prefix: str) -> None:
    async def scenario() -> None:
        async with an_environment(kafka.bootstrap_servers, database_url, topic_prefix) as env:
            event = an_event("k-1")
            async with env.running(intake_of(env)):
                for _ in range(3):
                    topic, _, _ = await publish(env.settings, event)
                    assert topic == env.topics.names.completed
                await handled(env, 3)
            (row,) = await env.rows("SELECT * FROM full_pass_runs")
            assert (row["user_id"], row["idempotency_key"], row["generation"]) == (event.user_id, "k-1", 0)
            assert (row["status"], row["completed_at"]) == ("pending", event.completed_at)
            assert json.loads(row["event"])["storage_path"] == event.storage_path
            assert env.sample("messages_taken_total") == 1
            assert env.sample("messages_repeated_total") == 2

    asyncio.run(scenario())


def test_no_message_can_stop_a_batch(kafka: KafkaServer, database_url: str, topic_prefix: str) -> None:
    """Good events around each hostile one are taken, and each hostile one that no run can be made of is a dead letter."""
    good = [an_event(f"good-{number:02}") for number in range(10)]
    odd = [r'"\u0000"', r'"\ud800"', "NaN", "1e200000", "9" * 5_000, NESTED]
    odd_values = [
        json.dumps({**an_event(f"odd-{number}").model_dump(mode="json")})[:-1].encode() + f',"unknown":{text}}}'.encode()
        for number, text in enumerate(odd)
    ]
    bad = [None, b"", b"\xff\xfe\x00", b"[" * 200_000, b"{}", b"null", b"\x00" * 100, b'{"user_id":"\\ud800"}']
    nul = an_event("k").model_dump(mode="json") | {"idempotency_key": "a\x00b"}
    bad.append(json.dumps(nul).encode())

    async def scenario() -> None:
        async with an_environment(kafka.bootstrap_servers, database_url, topic_prefix) as env:
            mixed: list[bytes | None] = []
            for pair in zip(values_of(good), odd_values + bad[:4], strict=True):
                mixed += pair
            await env.produce(*mixed, *bad[4:])
            await env.produce_empty()
            async with env.running(intake_of(env)):
                await handled(env, len(good) + len(odd))
            assert await env.keys() == sorted([f"good-{n:02}" for n in range(10)] + [f"odd-{n}" for n in range(6)])
            letters = [letter async for letter in list_dead_letters(env.settings)]
            assert len(letters) == len(bad) + 1

    asyncio.run(scenario())


def test_a_dead_letter_keeps_everything_that_the_message_had(kafka: KafkaServer, database_url: str, topic_prefix: str) -> None:
    headers: list[tuple[str, bytes | None]] = [("x", b"1"), ("x", b"\xff"), ("none", None), ("CE_Type", b"other")]

    async def scenario() -> None:
        async with an_environment(kafka.bootstrap_servers, database_url, topic_prefix, partitions=1) as env:
            await env.produce(b"\xff\x00value", headers=headers, key=b"\xfekey")
            async with env.running(intake_of(env)):
                await until(lambda: committed_all(env))
            (sent,) = await env.read(env.topics.names.completed)
            (letter,) = await env.read(env.topics.names.dead_letters)
            assert (letter.key, letter.value) == (b"\xfekey", b"\xff\x00value")
            assert list(letter.headers[: len(headers)]) == headers
            added = dict(letter.headers[len(headers) :])
            assert (added.pop("dead_letter_at") or b"").endswith(b"Z")
            assert added.pop("dead_letter_timestamp") == str(sent.timestamp).encode()
            assert added == {
                "dead_letter_reason": b"wrong_type",
                "dead_letter_detail": b"ce_type: expected quick-pass-completed",
                "dead_letter_topic": env.topics.names.completed.encode(),
                "dead_letter_partition": b"0",
                "dead_letter_offset": b"0",
            }
            (listed,) = [each async for each in list_dead_letters(env.settings)]
            place = (listed.topic, listed.source_partition, listed.source_offset)
            assert place == (env.topics.names.completed, 0, 0)
            assert (listed.reason, listed.detail) == ("wrong_type", "ce_type: expected quick-pass-completed")
            assert env.sample("messages_dead_lettered_total", reason="wrong_type") == 1

    asyncio.run(scenario())


def test_the_largest_message_that_the_topic_takes_is_taken_or_becomes_a_whole_dead_letter(
    kafka: KafkaServer, database_url: str, topic_prefix: str
) -> None:
    """A fetch returns one message at least, and a dead letter has room for the headers that it gains."""
    limit = 20_000_000
    overhead = 200

    async def scenario() -> None:
        async with an_environment(kafka.bootstrap_servers, database_url, topic_prefix, partitions=1) as env:
            await limit_topic(env, env.topics.names.completed, limit)
            await limit_topic(env, env.topics.names.dead_letters, limit + 65_536)
            event = an_event("large").model_dump_json()[:-1].encode() + b',"unknown":"'
            large = event + b"x" * (limit - overhead - len(event)) + b'"}'
            await env.produce(large, b"x" * (limit - overhead))
            async with env.running(intake_of(env)):
                await until(lambda: committed_all(env))
            assert await env.keys() == ["large"]
            (letter,) = await env.read(env.topics.names.dead_letters)
            assert letter.value == b"x" * (limit - overhead)

    asyncio.run(scenario())


def test_a_dead_letter_that_is_too_large_goes_without_its_value(kafka: KafkaServer, database_url: str, topic_prefix: str) -> None:
    value = b"x" * 900_000

    async def scenario() -> None:
        async with an_environment(kafka.bootstrap_servers, database_url, topic_prefix, partitions=1) as env:
            await limit_topic(env, env.topics.names.dead_letters, 100_000)
            await env.produce(value, b"small")
            async with env.running(intake_of(env)):
                await until(lambda: committed_all(env))
            large, small = sorted(await env.read(env.topics.names.dead_letters), key=lambda letter: letter.value or b"")
            headers = dict(large.headers)
            assert (large.key, large.value) == (b"k", None)
            assert headers["dead_letter_value_bytes"] == b"900000"
            assert headers["dead_letter_value_sha256"] == hashlib.sha256(value).hexdigest().encode()
            assert small.value == b"small"

    asyncio.run(scenario())


def test_intake_stops_before_it_commits_while_dead_letters_cannot_be_written(
    kafka: KafkaServer, database_url: str, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks rather than drops. The dead-letter topic refuses everything here: not even the headers fit."""

    async def scenario() -> None:
        async with an_environment(kafka.bootstrap_servers, database_url, topic_prefix, partitions=1) as env:
            await limit_topic(env, env.topics.names.dead_letters, 100)
            await env.produce(b"bad")
            with pytest.raises(KafkaTrouble, match="dead letters could not be written"):
                await intake_of(env).run(asyncio.Event())
            assert await env.committed(env.settings.consumer_group, env.topics.names.completed) == {}
            await limit_topic(env, env.topics.names.dead_letters, 1_000_000)
            async with env.running(intake_of(env)):
                await until(lambda: committed_all(env))
            assert len(await env.read(env.topics.names.dead_letters)) == 1

    asyncio.run(scenario())


def test_what_postgresql_refuses_is_a_dead_letter_and_the_rest_of_the_batch_is_taken(
    kafka: KafkaServer, database_url: str, topic_prefix: str
) -> None:
    """Our own checks leave nothing to refuse, so the table gets one that they don't know."""

    async def scenario() -> None:
        async with an_environment(kafka.bootstrap_servers, database_url, topic_prefix, partitions=1) as env:
            await env.rows("""
                CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                    IF new.idempotency_key LIKE 'refused%' THEN RAISE SQLSTATE '22003'; END IF; RETURN new; END $$""")
            await env.rows("CREATE TRIGGER refuse BEFORE INSERT ON full_pass_runs FOR EACH ROW EXECUTE FUNCTION refuse()")
            keys = [f"key-{number:03}" for number in range(100)]
            keys[7], keys[8], keys[70] = "refused-1", "refused-2", "refused-3"
            await env.produce(*values_of([an_event(key) for key in keys]))
            async with env.running(intake_of(env)):
                await until(lambda: committed_all(env))
            assert await env.keys() == sorted(set(keys) - {"refused-1", "refused-2", "refused-3"})
            letters = [letter async for letter in list_dead_letters(env.settings)]
            assert [letter.reason for letter in letters] == ["refused_by_database"] * 3
            assert {letter.source_offset for letter in letters} == {7, 8, 70}
            assert env.sample("messages_taken_total") == 97
            assert env.sample("messages_repeated_total") == 0

    asyncio.run(scenario())


def test_two_intakes_with_the_same_keys_in_opposite_order_do_not_deadlock(
    kafka: KafkaServer, database_url: str, topic_prefix: str
) -> None:
    """A producer's retry, or a replay beside live traffic, brings the same events to two workers at once."""
    count = BATCH_RECORDS * 2
    values = values_of([an_event(f"key-{number:05}") for number in range(count)])

    async def scenario() -> None:
        async with an_environment(kafka.bootstrap_servers, database_url, topic_prefix, partitions=2) as env:
            async with idempotent_producer(env.settings) as producer:
                for partition, ordered in enumerate((values, values[::-1])):
                    topic = env.topics.names.completed
                    await asyncio.gather(*[await producer.send(topic, v, partition=partition) for v in ordered])
            async with env.running(intake_of(env), intake_of(env)):
                await handled(env, 2 * count)
            assert len(await env.keys()) == count
            assert env.sample("messages_taken_total") == count
            assert env.sample("messages_repeated_total") >= count

    asyncio.run(scenario())


def test_events_of_an_aborted_transaction_are_never_taken(kafka: KafkaServer, database_url: str, topic_prefix: str) -> None:
    async def scenario() -> None:
        async with an_environment(kafka.bootstrap_servers, database_url, topic_prefix, partitions=1) as env:
            topic = env.topics.names.completed
            async with idempotent_producer(env.settings, transactional_id=topic_prefix) as producer:
                await producer.begin_transaction()
                await producer.send_and_wait(topic, *values_of([an_event("aborted")]))
                await producer.abort_transaction()
                async with producer.transaction():
                    await producer.send_and_wait(topic, *values_of([an_event("committed")]))
            async with env.running(intake_of(env)):
                await until(lambda: env.sample("messages_taken_total") >= 1)
            assert await env.keys() == ["committed"]

    asyncio.run(scenario())


@pytest.mark.guarantee("G1")
def test_an_event_is_taken_again_when_postgresql_went_away_before_it_was_saved(
    kafka: KafkaServer, own_postgres: PostgresServer, topic_prefix: str
) -> None:
    own_postgres.create_database("full_pass")

    async def scenario() -> None:
        async with an_environment(kafka.bootstrap_servers, own_postgres.url("full_pass"), topic_prefix) as env:
            own_postgres.kill()
            await env.produce(*values_of([an_event("k-1")]))
            with pytest.raises(DatabaseUnavailable):
                await intake_of(env).run(asyncio.Event())
            assert await env.committed(env.settings.consumer_group, env.topics.names.completed) == {}
            await asyncio.to_thread(own_postgres.start)
            async with env.running(intake_of(env)):
                await handled(env, 1)
            assert await env.keys() == ["k-1"]

    asyncio.run(scenario())


@pytest.mark.guarantee("G1")
def test_an_intake_killed_between_the_insert_and_the_commit_of_offsets_loses_nothing(
    kafka: KafkaServer, database_url: str, topic_prefix: str
) -> None:
    """The crash point between two durable effects: rows are there, offsets are not."""
    host, port = kafka.bootstrap_servers.split(":")

    async def scenario() -> None:
        async with an_environment(kafka.bootstrap_servers, database_url, topic_prefix, partitions=1) as env:
            await env.produce(*values_of([an_event(f"k-{number}") for number in range(3)]))
            commits = asyncio.Event()

            def forward(piece: bytes) -> bool:
                if is_kafka_request(OFFSET_COMMIT, piece):
                    commits.set()
                return not commits.is_set()

            async with Proxy.between(host, int(port), forward) as proxy:
                await kill_when(commits, env, "intake", KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{proxy.port}")
            assert await env.keys() == ["k-0", "k-1", "k-2"]
            assert await env.committed(env.settings.consumer_group, env.topics.names.completed) == {}
            async with env.running(intake_of(env)):
                await handled(env, 3)
            assert env.sample("messages_repeated_total") == 3

    asyncio.run(scenario())


def test_a_batch_of_thousands_never_blocks_the_event_loop_for_100_ms(
    kafka: KafkaServer, database_url: str, topic_prefix: str
) -> None:
    """Leases are renewed on the same loop. Counted in the thread's own time, so that a busy machine changes nothing."""
    unknown = b',"unknown":[' + b"1," * 4_000 + b"1]}"
    values = [value[:-1] + unknown for value in values_of([an_event(f"key-{number:05}") for number in range(2_000)])]

    async def scenario() -> None:
        async with an_environment(kafka.bootstrap_servers, database_url, topic_prefix, partitions=4) as env:
            async with idempotent_producer(env.settings) as producer:
                topic = env.topics.names.completed
                sending = [await producer.send(topic, value, partition=n % 4) for n, value in enumerate(values)]
                await asyncio.gather(*sending)
            longest = 0.0
            async with env.running(intake_of(env)):
                while env.sample("messages_taken_total") < len(values):
                    before = time.thread_time()
                    await asyncio.sleep(0)
                    longest = max(longest, time.thread_time() - before)
            assert longest < 0.1

    asyncio.run(scenario())


@pytest.mark.guarantee("G1")
def test_members_that_come_and_go_lose_no_event(kafka: KafkaServer, database_url: str, topic_prefix: str) -> None:
    """A rolling deploy: partitions change hands while thousands of records are in flight."""
    count = 6_000
    values = values_of([an_event(f"key-{number:05}") for number in range(count)])

    async def scenario() -> None:
        async with an_environment(kafka.bootstrap_servers, database_url, topic_prefix, partitions=4) as env:
            produced = asyncio.Event()

            async def produce() -> None:
                async with idempotent_producer(env.settings) as producer:
                    for at in range(0, count, 200):
                        batch = values[at : at + 200]
                        topic = env.topics.names.completed
                        await asyncio.gather(*[await producer.send(topic, v, str(uuid.uuid4()).encode()) for v in batch])
                        await asyncio.sleep(0.05)
                produced.set()

            async with asyncio.TaskGroup() as group, env.running(intake_of(env)):
                group.create_task(produce())
                while not produced.is_set():
                    async with env.running(intake_of(env)):
                        await until(is_taken_beyond(env, env.sample("messages_taken_total"), produced))
                await handled(env, count)
            assert len(await env.keys()) == count

    asyncio.run(scenario())


def is_taken_beyond(env: Environment, count: float, produced: asyncio.Event) -> Callable[[], bool]:
    return lambda: produced.is_set() or env.sample("messages_taken_total") > count


def test_a_topic_that_is_missing_is_trouble_with_the_command_that_makes_it(
    kafka: KafkaServer, database_url: str, topic_prefix: str
) -> None:
    async def scenario() -> None:
        async with an_environment(kafka.bootstrap_servers, database_url, topic_prefix) as env:
            async with admin_client(env.settings) as admin:
                await admin.delete_topics([env.topics.names.completed])
            await until(lambda: some_missing(env))
            with pytest.raises(KafkaTrouble, match="full-pass topics create"):
                await intake_of(env).run(asyncio.Event())

    async def some_missing(env: Environment) -> bool:
        return bool(await env.topics.missing())

    asyncio.run(scenario())
