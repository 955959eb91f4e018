"""From `v2-failed` to a webhook, on a real Kafka and a real HTTP server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from consumer.kafka.alerts import Alerts, alerts_group
from consumer.kafka.connection import admin_client, idempotent_producer
from consumer.kafka.webhook import MOST_PER_MINUTE, SIGNATURE_HEADER, WebhookUnavailable, signature
from sandbox.kafka import KafkaServer
from schemas.events import ErrorCode, V2Failed
from tests.integration.kafka_environment import Environment, a_failure, an_environment, until

SECRET = "a shared secret"


@dataclass
class Hook:
    """A webhook that remembers what it was told, and answers with the statuses of a script, then the one of `always`."""

    url: str = ""
    script: list[int] = field(default_factory=list)
    always: int = 200
    told: list[tuple[bytes, str | None]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    taken: list[Any] = field(default_factory=list)

    @property
    def attempts(self) -> list[int]:
        """The numbers of the failures it was told of, in order."""
        return [json.loads(body)["event"]["attempts"] for body, _ in self.told]

    @property
    def summaries(self) -> list[Any]:
        """The summaries that it took, in order."""
        return [body["summary"] for body in self.taken if "summary" in body]

    @property
    def covered(self) -> int:
        """How many failures the messages that it took tell or count."""
        return sum(body["summary"]["count"] if "summary" in body else 1 for body in self.taken)

    async def answer(self, request: web.Request) -> web.Response:
        self.times.append(asyncio.get_running_loop().time())
        self.told.append((await request.read(), request.headers.get(SIGNATURE_HEADER)))
        status = self.script.pop(0) if self.script else self.always
        if status == 200:
            self.taken.append(json.loads(self.told[-1][0]))
        return web.Response(status=status, headers={"Location": "/elsewhere"} if status == 302 else {})


@asynccontextmanager
async def a_hook(*script: int) -> AsyncIterator[Hook]:
    hook = Hook(script=list(script))
    app = web.Application()
    app.router.add_route("*", "/{anything:.*}", hook.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    hook.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook?token=secret"
    try:
        yield hook
    finally:
        await runner.cleanup()


@asynccontextmanager
async def an_alerted_environment(
    kafka: KafkaServer, database_url: str, prefix: str, *script: int, **changes: Any
) -> AsyncIterator[tuple[Environment, Hook]]:
    async with a_hook(*script) as hook:
        named: dict[str, Any] = {"alert_webhook_url": hook.url, "alert_webhook_secret": SECRET, **changes}
        async with an_environment(kafka.bootstrap_servers, database_url, prefix, partitions=1, **named) as env:
            yield env, hook


def alerts_of(env: Environment, minute_seconds: float = 60) -> Alerts:
    return Alerts(env.settings, env.health, env.metrics, minute_seconds)


async def fail(env: Environment, *failures: V2Failed | bytes) -> None:
    """Put events on `v2-failed`, all at once."""
    async with idempotent_producer(env.settings) as producer:
        values = [each if isinstance(each, bytes) else each.model_dump_json().encode() for each in failures]
        await asyncio.gather(*[await producer.send(env.topics.names.failed, value, b"k") for value in values])


async def expire(env: Environment, before: int) -> None:
    """Remove what stands before that offset on `v2-failed`, as retention does."""
    async with admin_client(env.settings) as admin:
        await admin.delete_records({TopicPartition(env.topics.names.failed, 0): RecordsToDelete(before_offset=before)})


async def committed(env: Environment, offset: int) -> bool:
    return await env.committed(alerts_group(env.settings), env.topics.names.failed) == {0: offset}


def test_each_failure_is_told_once_with_a_signature_over_the_body(
    kafka: KafkaServer, database_url: str, topic_prefix: str
) -> None:
    async def scenario() -> None:
        async with an_alerted_environment(kafka, database_url, topic_prefix) as (env, hook):
            async with env.running(alerts_of(env)):
                await fail(env, a_failure(1), a_failure(2))
                await until(lambda: committed(env, 2))
            assert hook.attempts == [1, 2]
            assert all(signed == signature(body, SECRET) for body, signed in hook.told)
            assert env.sample("alerts_total", outcome="sent") == 2

    asyncio.run(scenario())


def test_without_a_secret_nothing_is_signed(kafka: KafkaServer, database_url: str, topic_prefix: str) -> None:
    async def scenario() -> None:
        async with an_alerted_environment(kafka, database_url, topic_prefix, alert_webhook_secret=None) as (env, hook):
            async with env.running(alerts_of(env)):
                await fail(env, a_failure(1))
                await until(lambda: committed(env, 1))
            assert [signed for _, signed in hook.told] == [None]

    asyncio.run(scenario())


def test_superseded_and_cancelled_runs_and_what_is_no_event_are_passed_over(
    kafka: KafkaServer, database_url: str, topic_prefix: str
) -> None:
    async def scenario() -> None:
        async with an_alerted_environment(kafka, database_url, topic_prefix) as (env, hook):
            async with env.running(alerts_of(env)):
                passed = [a_failure(n, code) for n, code in enumerate((ErrorCode.SUPERSEDED, ErrorCode.CANCELLED))]
                await fail(env, *passed, b"no event", b"\xff", a_failure(9))
                await until(lambda: committed(env, 5))
            assert hook.attempts == [9]
            assert env.sample("alerts_total", outcome="invalid") == 2

    asyncio.run(scenario())


def test_a_new_group_begins_at_the_end_of_the_topic_as_it_is_when_the_worker_is_ready(
    kafka: KafkaServer, database_url: str, topic_prefix: str
) -> None:
    """Switching alerts on must not tell of last year's failures, nor miss the first one of now."""

    async def scenario() -> None:
        async with an_alerted_environment(kafka, database_url, topic_prefix) as (env, hook):
            await fail(env, a_failure(1), a_failure(2))
            async with env.running(alerts_of(env)):
                pass
            await fail(env, a_failure(3))
            async with env.running(alerts_of(env)):
                await until(lambda: committed(env, 3))
            assert hook.attempts == [3]

    asyncio.run(scenario())


@pytest.mark.parametrize("status", [500, 503, 408, 429])
def test_an_alert_that_failed_is_sent_again_after_a_restart(
    kafka: KafkaServer, database_url: str, topic_prefix: str, status: int
) -> None:
    async def scenario() -> None:
        async with an_alerted_environment(kafka, database_url, topic_prefix, status) as (env, hook):
            async with env.running(alerts_of(env)):
                pass
            await fail(env, a_failure(1), a_failure(2))
            with pytest.raises(WebhookUnavailable, match=f"answered {status}"):
                await alerts_of(env).run(asyncio.Event())
            async with env.running(alerts_of(env)):
                await until(lambda: committed(env, 2))
            assert hook.attempts == [1, 1, 2]

    asyncio.run(scenario())


@pytest.mark.parametrize("status", [400, 404, 410, 302])
def test_an_alert_that_is_refused_for_good_holds_up_no_other(
    kafka: KafkaServer, database_url: str, topic_prefix: str, status: int
) -> None:
    async def scenario() -> None:
        async with an_alerted_environment(kafka, database_url, topic_prefix, status) as (env, hook):
            async with env.running(alerts_of(env)):
                await fail(env, a_failure(1), a_failure(2))
                await until(lambda: committed(env, 2))
            assert hook.attempts == [1, 2]
            assert env.sample("alerts_total", outcome="refused") == 1

    asyncio.run(scenario())


@pytest.mark.guarantee("G9")
def test_a_webhook_that_is_gone_is_trouble_that_does_not_name_its_address(
    kafka: KafkaServer, database_url: str, topic_prefix: str
) -> None:
    """Webhook addresses are credentials: whoever knows one can post."""

    async def scenario() -> None:
        changes = {"alert_webhook_url": "http://127.0.0.1:1/token-in-the-path"}
        async with an_alerted_environment(kafka, database_url, topic_prefix, **changes) as (env, _):
            async with env.running(alerts_of(env)):
                pass
            await fail(env, a_failure(1))
            with pytest.raises(WebhookUnavailable) as caught:
                await alerts_of(env).run(asyncio.Event())
            assert "token" not in str(caught.value)
            assert caught.value.__cause__ is None

    asyncio.run(scenario())


def a_burst(count: int, first: int = 0) -> list[V2Failed]:
    """Failures of a user each, every third of them `internal` and every second in `facts`."""
    codes = (ErrorCode.INTERNAL, ErrorCode.EXPORT_EMPTY, ErrorCode.EXPORT_EMPTY)
    stages = ("facts", "reading")
    return [
        a_failure(number, codes[number % 3]).model_copy(update={"stage": stages[number % 2]})
        for number in range(first, first + count)
    ]


def test_a_stop_does_not_wait_for_what_the_limit_holds_back_and_loses_nothing(
    kafka: KafkaServer, database_url: str, topic_prefix: str
) -> None:
    async def scenario() -> None:
        async with an_alerted_environment(kafka, database_url, topic_prefix) as (env, hook):
            async with env.running(alerts_of(env)):
                await fail(env, *a_burst(MOST_PER_MINUTE + 5))
                await until(lambda: committed(env, MOST_PER_MINUTE))
            assert hook.attempts == list(range(MOST_PER_MINUTE))
            async with env.running(alerts_of(env)):  # another process, another minute: nothing was lost
                await until(lambda: committed(env, MOST_PER_MINUTE + 5))
            assert hook.attempts == list(range(MOST_PER_MINUTE + 5))

    asyncio.run(scenario())


def test_what_the_limit_holds_back_is_summed_up_in_one_message(kafka: KafkaServer, database_url: str, topic_prefix: str) -> None:
    """Two hundred failures at once are one trouble: late single messages about it bury the next one."""

    async def scenario() -> None:
        async with an_alerted_environment(kafka, database_url, topic_prefix) as (env, hook):
            minute, failures = 2.0, a_burst(200)
            async with env.running(alerts_of(env, minute)):
                await fail(env, *failures)
                await until(lambda: committed(env, 200))
                await fail(env, a_failure(200))
                await until(lambda: committed(env, 201))
            assert [body["event"]["attempts"] for body in hook.taken if "event" in body] == [*range(MOST_PER_MINUTE), 200]
            (summary,) = hook.summaries
            rest = failures[MOST_PER_MINUTE:]
            assert (summary["count"], summary["users"], summary["users_capped"]) == (170, 170, False)
            assert summary["by_error_code"] == {"export_empty": 113, "internal": 57}
            assert summary["by_stage"] == {"facts": 85, "reading": 85}
            assert summary["run_ids"] == [str(failure.run_id) for failure in rest[:10]]
            told_at = hook.times
            assert min(later - sooner for sooner, later in zip(told_at, told_at[MOST_PER_MINUTE:], strict=False)) > minute * 0.9
            assert all(signed == signature(body, SECRET) for body, signed in hook.told)

    asyncio.run(scenario())


def test_what_was_held_back_is_committed_only_once_the_webhook_took_the_summary(
    kafka: KafkaServer, database_url: str, topic_prefix: str
) -> None:
    async def scenario() -> None:
        async with an_alerted_environment(kafka, database_url, topic_prefix, *[200] * MOST_PER_MINUTE, 503) as (env, hook):
            async with env.running(alerts_of(env)):
                pass
            await fail(env, *a_burst(80))
            with pytest.raises(WebhookUnavailable, match="answered 503"):
                await alerts_of(env, 0.7).run(asyncio.Event())
            assert "summary" in json.loads(hook.told[-1][0])
            assert await committed(env, MOST_PER_MINUTE)
            async with env.running(alerts_of(env, 0.5)):
                await until(lambda: committed(env, 80))
            assert hook.covered == 80

    asyncio.run(scenario())


def test_a_webhook_that_is_away_for_long_loses_nothing_and_is_not_flooded_when_it_is_back(
    kafka: KafkaServer, database_url: str, topic_prefix: str
) -> None:
    """The calls that failed count for the limit, so whoever comes back after an outage hears a summary, not a flood."""

    async def scenario() -> None:
        async with an_alerted_environment(kafka, database_url, topic_prefix) as (env, hook):
            alerts = alerts_of(env, 1.0)
            async with env.running(alerts):
                pass
            hook.always = 503
            await fail(env, *a_burst(60))
            for _ in range(3):
                with pytest.raises(WebhookUnavailable):
                    await alerts.run(asyncio.Event())
            hook.always = 200
            async with env.running(alerts):
                await until(lambda: committed(env, 60))
            assert hook.covered == 60
            assert len(hook.summaries) == 1

    asyncio.run(scenario())


def test_a_webhook_that_failed_is_a_reason_until_it_took_something(
    kafka: KafkaServer, database_url: str, topic_prefix: str
) -> None:
    """While calls wait for their minute nobody asks the webhook; readiness must not say that all is well meanwhile."""

    async def scenario() -> None:
        async with an_alerted_environment(kafka, database_url, topic_prefix, *[200] * (MOST_PER_MINUTE - 1), 503) as (env, hook):
            alerts = alerts_of(env, 1.0)
            async with env.running(alerts):
                pass
            await fail(env, *a_burst(60))
            with pytest.raises(WebhookUnavailable):
                await alerts.run(asyncio.Event())
            async with env.running(alerts):
                assert hook.covered == 60
                await until(lambda: committed(env, 60))

    asyncio.run(scenario())


def test_a_worker_to_which_nothing_is_left_to_tell_is_well_although_the_webhook_failed(
    kafka: KafkaServer, database_url: str, topic_prefix: str
) -> None:
    """Its partitions may have gone to another one, who told the failure."""

    async def scenario() -> None:
        async with an_alerted_environment(kafka, database_url, topic_prefix, 503) as (env, _):
            alerts = alerts_of(env)
            async with env.running(alerts):
                pass
            await fail(env, a_failure(1))
            with pytest.raises(WebhookUnavailable):
                await alerts.run(asyncio.Event())
            async with env.running(alerts_of(env)):
                await until(lambda: committed(env, 1))
            async with env.running(alerts):
                assert env.health.ready

    asyncio.run(scenario())


def test_failures_that_are_held_back_when_the_group_rebalances_are_told_by_whoever_reads_them_then(
    kafka: KafkaServer, database_url: str, topic_prefix: str
) -> None:
    """A rebalance sets positions back to what is committed; counting on would count those failures twice, or skip them."""

    async def scenario() -> None:
        async with an_alerted_environment(kafka, database_url, topic_prefix) as (env, hook):
            first, second = alerts_of(env, 4.0), alerts_of(env, 4.0)
            async with env.running(first):
                await fail(env, *a_burst(90))
                await until(lambda: committed(env, MOST_PER_MINUTE))
                async with env.running(second):
                    await until(lambda: committed(env, 90))
            assert hook.covered == 90

    asyncio.run(scenario())


def test_what_is_held_back_is_told_before_a_position_that_retention_removed_is_given_up(
    kafka: KafkaServer, database_url: str, topic_prefix: str
) -> None:
    """The new position is committed, and with it everything before it, so nothing before it may still wait for the webhook.

    Records of an open transaction are there and not handed out yet, so that retention can overtake a reader that is up to date.
    """

    async def scenario() -> None:
        async with an_alerted_environment(kafka, database_url, topic_prefix) as (env, hook):
            async with env.running(alerts_of(env, 2.0)):
                await fail(env, *a_burst(MOST_PER_MINUTE + 5))
                await until(lambda: committed(env, MOST_PER_MINUTE))
                async with idempotent_producer(env.settings, f"{topic_prefix}open") as producer, producer.transaction():
                    for failure in a_burst(3, first=100):
                        await producer.send_and_wait(env.topics.names.failed, failure.model_dump_json().encode(), b"k")
                    await expire(env, MOST_PER_MINUTE + 7)
                    await until(lambda: committed(env, MOST_PER_MINUTE + 7))
                    assert hook.covered == MOST_PER_MINUTE + 5
                await until(lambda: hook.covered == MOST_PER_MINUTE + 6)
            assert env.sample("messages_missed_total") == 2

    asyncio.run(scenario())
