"""The gate with the real SDK on the wire: what each way of failing becomes, and what is bought."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from uuid import UUID

import pytest

from consumer.claude.api import Api, Message, to_text
from consumer.claude.gate import TRIES, persevere
from consumer.claude.pace import Call, Pace
from consumer.claude.requests import Request
from consumer.claude.trouble import Trouble
from consumer.errors import FinalError, OperatorTrouble, Outage
from consumer.metrics import Metrics
from consumer.settings import Settings
from sandbox.anthropic import StandIn
from schemas.events import ErrorCode
from tests.integration.raw_server import raw_server

RUN = UUID(int=1)
SECRET = "my therapist is Dr Quince"
REQUEST = Request("memory", "Write it down.", f"I told nobody that {SECRET}.", 200)
BACKOFF_SECONDS = 0.01
TIMEOUT_SECONDS = 5.0


def settings_for(url: str, **changes: Any) -> Settings:
    named: dict[str, Any] = {"ANTHROPIC_API_KEY": "sk-ant-test", "ANTHROPIC_BASE_URL": url}
    return Settings(**{**named, "model_timeout_seconds": TIMEOUT_SECONDS, "model_concurrency": 4, **changes})


@asynccontextmanager
async def an_api(url: str, **changes: Any) -> AsyncIterator[Api]:
    api = Api(settings_for(url, **changes))
    try:
        yield api
    finally:
        await api.close()


@dataclass(frozen=True)
class Buyer:
    """One run's way to the model without the record: Pace and the wire."""

    api: Api
    pace: Pace

    async def buy(self, request: Request = REQUEST) -> Message:
        async def once(call: Call) -> Message | Trouble:
            outcome = await self.api.create(request)
            if isinstance(outcome, Message):
                self.pace.succeeded(call)
            return outcome

        return await persevere(self.pace, RUN, BACKOFF_SECONDS, once)


@asynccontextmanager
async def a_buyer(rules: list[dict[str, Any]], **changes: Any) -> AsyncIterator[tuple[Buyer, StandIn]]:
    async with StandIn() as stand_in, an_api(stand_in.url, **changes) as api:
        await stand_in.script(rules)
        yield Buyer(api, Pace(4, BACKOFF_SECONDS, Metrics())), stand_in


def rule(kind: str, times: int | None = 1, **fault: Any) -> dict[str, Any]:
    return {"times": times, "fault": {"kind": kind, **fault}}


def status(code: int, times: int | None = 1, **fault: Any) -> dict[str, Any]:
    return rule("status", times, status=code, **fault)


PASSING = {
    **{f"status {code}": status(code) for code in (408, 409, 429, 500, 502, 503, 504, 529)},
    "429 with a time to come back at": status(429, headers={"retry-after": "0.05"}),
    "a reset connection": rule("reset"),
    "a body that was cut": rule("truncated_body", cut="body"),
    "JSON that was cut": rule("truncated_body", cut="json"),
    "HTML with status 200": rule("html"),
    "garbage with status 200": rule("garbage"),
}


@pytest.mark.parametrize("name", PASSING)
def test_what_may_pass_is_tried_again_within_the_call(name: str) -> None:
    async def main() -> None:
        async with a_buyer([PASSING[name]]) as (buyer, stand_in):
            assert to_text((await buyer.buy()).content)
            assert len(stand_in.requests()) == 2
            assert buyer.pace.is_open

    asyncio.run(main())


@pytest.mark.parametrize("name", PASSING)
def test_what_does_not_pass_is_an_outage_that_shuts_pace_and_quotes_nothing(name: str) -> None:
    async def main() -> None:
        async with a_buyer([{**PASSING[name], "times": None}]) as (buyer, stand_in):
            with pytest.raises(Outage) as caught:
                await buyer.buy()
            assert not isinstance(caught.value, OperatorTrouble)
            assert caught.value.code is ErrorCode.MODEL_UNAVAILABLE
            assert caught.value.retry_after_seconds is not None
            assert not buyer.pace.is_open
            assert len(stand_in.requests()) == 3
            assert SECRET not in str(caught.value)
            with pytest.raises(Outage):
                await buyer.buy()
            assert len(stand_in.requests()) == 3

    asyncio.run(main())


def test_a_call_that_hangs_ends_at_its_deadline() -> None:
    async def main() -> None:
        async with a_buyer([rule("hang")], model_timeout_seconds=0.3) as (buyer, _):
            outcome = await buyer.api.create(REQUEST)
            assert isinstance(outcome, Trouble)
            assert outcome.slow
            assert "0.3 s" in outcome.what
            assert await buyer.buy()

    asyncio.run(main())


def test_an_answer_that_trickles_in_ends_at_its_deadline_too() -> None:
    """Every read is quick then, so the client's own timeout never fires; the deadline is on the whole call."""

    async def main() -> None:
        async with raw_server(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n" + b" " * 900, seconds_a_byte=0.02) as url:
            async with an_api(url, model_timeout_seconds=0.3) as api, asyncio.timeout(3):
                outcome = await api.create(REQUEST)
            assert isinstance(outcome, Trouble)
            assert outcome.slow

    asyncio.run(main())


def test_a_call_that_fails_while_others_succeed_gives_up_by_itself() -> None:
    async def main() -> None:
        mine = {**rule("reset", None), "match": {"contains": SECRET}}
        async with a_buyer([mine]) as (buyer, stand_in):
            other = Request("memory", "Write it down.", "I like tea.", 200)
            tried = 0

            async def once(call: Call) -> Message | Trouble:
                nonlocal tried
                tried += 1
                outcome = await buyer.api.create(REQUEST)
                await buyer.buy(other)
                return outcome

            with pytest.raises(Outage):
                await persevere(buyer.pace, RUN, BACKOFF_SECONDS, once)
            assert tried == TRIES
            assert buyer.pace.is_open
            assert len(stand_in.requests()) == 2 * TRIES

    asyncio.run(main())


OPERATORS = {
    "a refused key": (status(401, None), "ANTHROPIC_API_KEY"),
    "a key without permission": (status(403, None), "ANTHROPIC_API_KEY"),
    "an account that has to pay": (status(402, None), "account"),
    "an empty account": (rule("credit", None), "account"),
    "a spend limit": (
        status(400, None, message="You have reached your specified API usage limits. You will regain access on …"),
        "account",
    ),
    "a model that the key may not use": (status(403, None), "FULL_PASS_MODEL"),
    "a model with shorter answers": (
        status(400, None, message="max_tokens: 8192 > 4096, which is the maximum allowed number of output tokens for …"),
        "FULL_PASS_MODEL",
    ),
    "a model without structured output": (
        status(400, None, message="output_config.format: structured outputs are not supported by this model"),
        "FULL_PASS_MODEL",
    ),
    "a model that thinks otherwise": (
        status(400, None, message='"thinking.type.disabled" is not supported for this model.'),
        "FULL_PASS_MODEL",
    ),
    "an unknown model": (status(404, None, message="model: claude-haiku-4-5-20251001"), "FULL_PASS_MODEL"),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_operator_trouble_shuts_pace_after_one_call_and_names_what_to_look_at(name: str) -> None:
    async def main() -> None:
        fault, named = OPERATORS[name]
        async with a_buyer([fault]) as (buyer, stand_in):
            with pytest.raises(OperatorTrouble, match=named) as caught:
                await buyer.buy()
            assert caught.value.code is ErrorCode.MODEL_UNAVAILABLE
            assert named in str(buyer.pace.reason)
            assert len(stand_in.requests()) == 1

    asyncio.run(main())


def test_the_probe_opens_pace_again_once_the_operator_has_acted() -> None:
    async def main() -> None:
        async with a_buyer([status(401)]) as (buyer, _):
            with pytest.raises(OperatorTrouble):
                await buyer.buy()
            await asyncio.sleep(buyer.pace.reopens_in_seconds or 0)
            buyer.pace.begin_probe(RUN)
            assert await buyer.buy()
            assert buyer.pace.is_open

    asyncio.run(main())


def test_a_429_that_names_only_when_its_limit_is_whole_again_holds_every_call_back_until_then() -> None:
    async def main() -> None:
        at = (datetime.now(UTC) + timedelta(seconds=30)).isoformat()
        headers = {"anthropic-ratelimit-requests-remaining": "0", "anthropic-ratelimit-requests-reset": at}
        async with a_buyer([status(429, headers=headers)]) as (buyer, _):
            outcome = await buyer.api.create(REQUEST)
            assert isinstance(outcome, Trouble)
            assert outcome.crowded
            assert outcome.retry_after_seconds == pytest.approx(30, abs=3)

    asyncio.run(main())


@pytest.mark.parametrize("name", ["seconds", "date"])
def test_a_retry_after_of_a_429_holds_every_call_back_and_narrows(name: str) -> None:
    async def main() -> None:
        moment = datetime.now(UTC) + timedelta(seconds=30)
        value = "30" if name == "seconds" else format_datetime(moment, usegmt=True)
        async with a_buyer([status(429, headers={"retry-after": value})]) as (buyer, stand_in):
            buying = [asyncio.ensure_future(buyer.buy(Request("memory", "Write.", f"{n}", 9))) for n in range(6)]
            async with asyncio.timeout(10):
                while buyer.pace.width != 2:
                    await asyncio.sleep(0.01)
                while len(stand_in.requests()) != 4:
                    await asyncio.sleep(0.01)
            await asyncio.wait(buying, timeout=0.2)
            assert len(stand_in.requests()) == 4  # what was in flight; not one more
            for task in buying:
                task.cancel()
            await asyncio.wait(buying)

    asyncio.run(main())


def test_rate_limit_headers_of_an_answer_narrow_what_follows_before_there_is_a_429() -> None:
    async def main() -> None:
        headers = {"anthropic-ratelimit-requests-remaining": "2"}
        async with StandIn() as stand_in, an_api(stand_in.url) as api:
            await stand_in.script([rule("latency", headers=headers)])
            outcome = await api.create(REQUEST)
            assert isinstance(outcome, Message)
            assert outcome.allowance is not None
            assert outcome.allowance.calls == 2

    asyncio.run(main())


@pytest.mark.guarantee("G9")
@pytest.mark.parametrize(("code", "kind"), [(400, "invalid_request_error"), (413, "request_too_large"), (422, None)])
def test_a_request_that_the_api_will_never_take_ends_the_run_without_quoting_it(code: int, kind: str | None) -> None:
    async def main() -> None:
        fault = status(code, None, message=f"messages.0.content: {SECRET!r} is not valid")
        async with a_buyer([fault]) as (buyer, stand_in):
            with pytest.raises(FinalError) as caught:
                await buyer.buy()
            assert caught.value.code is ErrorCode.MODEL_REJECTED
            assert f"status {code}" in caught.value.detail
            assert (kind or "status") in caught.value.detail
            assert stand_in.requests()[0]["request_id"] in caught.value.detail
            assert SECRET not in caught.value.detail
            assert caught.value.__cause__ is None
            assert buyer.pace.is_open
            assert len(stand_in.requests()) == 1

    asyncio.run(main())


@pytest.mark.guarantee("G9")
def test_an_error_type_that_the_api_does_not_have_is_not_passed_on() -> None:
    async def main() -> None:
        async with a_buyer([status(400, None, error_type=SECRET)]) as (buyer, _):
            with pytest.raises(FinalError) as caught:
                await buyer.buy()
            assert SECRET not in caught.value.detail

    asyncio.run(main())


@pytest.mark.guarantee("G9")
def test_no_log_line_quotes_a_request_even_if_the_sdk_was_told_to_log_everything(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """ANTHROPIC_LOG=debug sets these levels when the SDK is imported."""

    async def main() -> None:
        caplog.set_level(logging.DEBUG, "anthropic")
        caplog.set_level(logging.DEBUG)
        async with a_buyer([status(500)]) as (buyer, _):
            await buyer.buy()
        assert SECRET not in caplog.text

    asyncio.run(main())


def test_the_key_of_the_record_is_the_hash_of_what_goes_over_the_wire() -> None:
    """The body is compared with what arrived: the SDK adds nothing that the hash does not cover."""

    async def main() -> None:
        async with a_buyer([]) as (buyer, stand_in):
            schema = {"type": "object", "properties": {"x": {"type": "string"}}, "required": ["x"], "additionalProperties": False}
            request = Request("facts", "Extract.", "User: I like tea — 茶.", 300, schema)
            await buyer.buy(request)
            [arrived] = stand_in.requests()
            assert arrived["body"] == request.body(buyer.api.model)
            assert arrived["headers"]["x-stainless-retry-count"] == "0"

    asyncio.run(main())


def test_tokens_are_counted_by_the_api_without_a_call_being_bought() -> None:
    async def main() -> None:
        async with a_buyer([]) as (buyer, stand_in):
            counted = await buyer.api.count_tokens(REQUEST)
            message = await buyer.buy()
            assert counted == message.input_tokens
            assert "max_tokens" not in stand_in.requests("count_tokens")[0]["body"]

    asyncio.run(main())


ODD_REPLIES = {
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "not modified": b"HTTP/1.1 304 Not Modified\r\ncontent-length: 0\r\n\r\n",
    "no HTTP at all": b"SSH-2.0-OpenSSH_9.6\r\n",
    "an empty body": b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    "null": b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 4\r\n\r\nnull",
    "bytes that are no text": b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 4\r\n\r\n\xff\xfe\x00{",
    "a false content-encoding": b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n{}",
    "a redirect to itself": b"HTTP/1.1 307 Temporary Redirect\r\nlocation: /v1/messages\r\ncontent-length: 0\r\n\r\n",
    "a nest of a hundred thousand lists": b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n" + b"[" * 100_000,
    "an error with odd parts": b'HTTP/1.1 500 X\r\ncontent-length: 49\r\n\r\n{"error": {"type": ["x"], "message": {}, "a": 1}}',
    "nothing": b"",
}


@pytest.mark.parametrize("name", ODD_REPLIES)
def test_whatever_else_answers_there_is_trouble_and_no_surprise(name: str) -> None:
    async def main() -> None:
        async with raw_server(ODD_REPLIES[name]) as url, an_api(url) as api:
            outcome = await api.create(REQUEST)
            assert isinstance(outcome, Trouble), outcome
            assert not outcome.operator
            counted = await api.count_tokens(REQUEST)
            assert isinstance(counted, Trouble), counted

    asyncio.run(main())


def test_nobody_listening_is_trouble() -> None:
    async def main() -> None:
        server = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        server.close()
        await server.wait_closed()
        async with an_api(url) as api:
            outcome = await api.create(REQUEST)
            assert isinstance(outcome, Trouble)
            assert url not in outcome.what

    asyncio.run(main())
