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

from consumer.kafka.alerts import MOST_PER_MINUTE, SIGNATURE_HEADER, Alerts, WebhookUnavailable, alerts_group, signature
from consumer.kafka.connection import idempotent_producer
from sandbox.kafka import KafkaServer
from schemas.events import ErrorCode, V2Failed
from tests.integration.kafka_environment import Environment, a_failure, an_environment, until

SECRET = "a shared secret"


@dataclass
class Hook:
    """A webhook that remembers what it was told, and answers with the statuses of a script, then 200."""

    url: str = ""
    script: list[int] = field(default_factory=list)
    told: list[tuple[bytes, str | None]] = field(default_factory=list)

    @property
    def attempts(self) -> list[int]:
        """The numbers of the failures it was told of, in order."""
        return [json.loads(body)["event"]["attempts"] for body, _ in self.told]

    async def answer(self, request: web.Request) -> web.Response:
        self.told.append((await request.read(), request.headers.get(SIGNATURE_HEADER)))
        status = self.script.pop(0) if self.script else 200
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


def alerts_of(env: Environment) -> Alerts:
    return Alerts(env.settings, env.health, env.metrics)


async def fail(env: Environment, *failures: V2Failed | bytes) -> None:
    """Put events on `v2-failed`."""
    async with idempotent_producer(env.settings) as producer:
        for failure in failures:
            value = failure if isinstance(failure, bytes) else failure.model_dump_json().encode()
            await producer.send_and_wait(env.topics.names.failed, value, b"k")


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


def test_more_than_thirty_in_a_minute_wait_and_a_stop_does_not_wait_for_them(
    kafka: KafkaServer, database_url: str, topic_prefix: str
) -> None:
    async def scenario() -> None:
        async with an_alerted_environment(kafka, database_url, topic_prefix) as (env, hook):
            async with env.running(alerts_of(env)):
                await fail(env, *[a_failure(number) for number in range(MOST_PER_MINUTE + 5)])
                await until(lambda: committed(env, MOST_PER_MINUTE))
            assert hook.attempts == list(range(MOST_PER_MINUTE))
            async with env.running(alerts_of(env)):  # another process, another minute: nothing was lost
                await until(lambda: committed(env, MOST_PER_MINUTE + 5))
            assert hook.attempts == list(range(MOST_PER_MINUTE + 5))

    asyncio.run(scenario())
