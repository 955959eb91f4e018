"""Every scripted fault, as the SDK shows it."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import anthropic
import httpx2
import jsonschema
import pytest

from sandbox.anthropic import StandIn, StandInControl
from tests.integration.anthropic_client import FACTS_SCHEMA, asking, connected, text_in

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]


def rule(kind: str, **options: Any) -> dict[str, Any]:
    return {"match": {"kind": "facts"}, "fault": {"kind": kind, **options}}


async def until_recorded(stand_in: StandIn, **wanted: Any) -> dict[str, Any]:
    """The first request with these values, as soon as there is one."""
    async with asyncio.timeout(10):
        while True:
            for entry in stand_in.requests():
                if all(entry[name] == value for name, value in wanted.items()):
                    return entry
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (400, anthropic.BadRequestError, "invalid_request_error"),
        (401, anthropic.AuthenticationError, "authentication_error"),
        (403, anthropic.PermissionDeniedError, "permission_error"),
        (404, anthropic.NotFoundError, "not_found_error"),
        (413, anthropic.APIStatusError, "request_too_large"),
        (429, anthropic.RateLimitError, "rate_limit_error"),
        (500, anthropic.InternalServerError, "api_error"),
        (503, anthropic.APIStatusError, "api_error"),
        (529, anthropic.APIStatusError, "overloaded_error"),
    ],
)
async def test_a_scripted_status_is_the_sdks_error_once(status: int, error: type[Exception], kind: str) -> None:
    async with connected() as (stand_in, claude):
        await stand_in.script([rule("status", status=status, message="scripted", headers={"retry-after": 7})])
        with pytest.raises(error) as raised:
            await claude.messages.create(**asking())
        assert isinstance(raised.value, anthropic.APIStatusError)
        assert (raised.value.status_code, raised.value.type) == (status, kind)
        assert raised.value.response.headers["retry-after"] == "7"
        assert raised.value.api_message == "scripted"
        assert text_in(await claude.messages.create(**asking()))
        first, second = stand_in.requests()
    assert (first["outcome"], first["completed"]) == ({"status": status, "fault": "status"}, True)
    assert second["outcome"] == {"status": 200, "fault": None}


async def test_an_empty_account_is_a_400_that_names_the_credit_balance() -> None:
    async with connected() as (stand_in, claude):
        await stand_in.script([rule("credit")])
        with pytest.raises(anthropic.BadRequestError, match="Your credit balance is too low to access the Anthropic API"):
            await claude.messages.create(**asking())


@pytest.mark.parametrize("stream", [False, True])
async def test_a_reset_is_a_connection_error(stream: bool) -> None:
    async with connected() as (stand_in, claude):
        await stand_in.script([rule("reset")])
        with pytest.raises(anthropic.APIConnectionError) as raised:
            await claude.messages.create(**asking(), stream=stream)
        assert not isinstance(raised.value, anthropic.APITimeoutError)
        (entry,) = stand_in.requests()
    assert (entry["outcome"], entry["completed"]) == ({"status": None, "fault": "reset"}, False)


async def raw_answer(stand_in: StandIn) -> bytes:
    """Everything that comes back on the socket for a facts request."""
    body = json.dumps(asking()).encode()
    head = f"POST /v1/messages HTTP/1.1\r\nHost: x\r\nx-api-key: k\r\nanthropic-version: v\r\nContent-Length: {len(body)}\r\n\r\n"
    host, port = stand_in.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(head.encode() + body)
        return await reader.read()
    finally:
        writer.close()


async def test_a_reset_is_a_tcp_reset_and_no_orderly_end() -> None:
    """Clients and proxies treat the two differently."""
    async with connected() as (stand_in, _):
        await stand_in.script([rule("reset")])
        with pytest.raises(ConnectionResetError):
            await raw_answer(stand_in)


async def test_a_truncated_body_promises_more_bytes_than_come() -> None:
    async with connected() as (stand_in, _):
        await stand_in.script([rule("truncated_body")])
        head, _, body = (await raw_answer(stand_in)).partition(b"\r\n\r\n")
    (promised,) = [int(line.split(b":")[1]) for line in head.splitlines() if line.lower().startswith(b"content-length")]
    assert promised == 2 * len(body) + promised % 2 > 0


async def test_a_request_that_the_api_refuses_anyway_spends_no_fault() -> None:
    async with connected() as (stand_in, claude):
        await stand_in.script([rule("status", status=500)])
        with pytest.raises(anthropic.BadRequestError):
            await claude.messages.create(**asking(max_tokens=0))
        with pytest.raises(anthropic.InternalServerError):
            await claude.messages.create(**asking())


async def test_a_hang_lasts_until_the_client_goes_and_was_never_completed() -> None:
    async with connected() as (stand_in, claude):
        await stand_in.script([rule("hang")])
        with pytest.raises(anthropic.APITimeoutError):
            await claude.messages.create(**asking(), timeout=0.2)
        entry = await until_recorded(stand_in, kind="facts")
    assert (entry["outcome"], entry["completed"]) == ({"status": None, "fault": "hang"}, False)


async def test_a_client_that_goes_while_it_waits_has_seen_no_complete_answer() -> None:
    """The record is how a test of a killed worker tells which calls were in flight."""
    async with connected(latency_seconds=0.3) as (stand_in, claude):
        call = asyncio.ensure_future(claude.messages.create(**asking()))
        await until_recorded(stand_in, kind="facts")
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await claude.messages.create(**asking())
        assert [entry["completed"] for entry in stand_in.requests()] == [False, True]
        assert stand_in.summary()["kinds"]["facts"]["outcomes"] == {"200": 1, "open": 1}


async def test_a_body_shorter_than_promised_is_an_error_and_no_message() -> None:
    async with connected() as (stand_in, claude):
        await stand_in.script([rule("truncated_body")])
        with pytest.raises(anthropic.APIConnectionError):
            await claude.messages.create(**asking())
        assert stand_in.requests()[0]["completed"] is False


async def test_a_json_cut_in_half_is_an_error_and_no_message() -> None:
    async with connected() as (stand_in, claude):
        await stand_in.script([rule("truncated_body", cut="json")])
        with pytest.raises(json.JSONDecodeError):
            await claude.messages.create(**asking())
        assert stand_in.requests()[0]["completed"] is False


async def test_a_stream_that_breaks_off_ends_without_a_message_stop() -> None:
    async with connected() as (stand_in, claude):
        await stand_in.script([rule("truncated_body")])
        kinds: set[str] = set()

        async def read() -> None:
            stream = await claude.messages.create(**asking(), stream=True)
            async for event in stream:
                kinds.add(event.type)

        with pytest.raises(httpx2.TransportError):
            await read()
        assert "message_start" in kinds
        assert "message_stop" not in kinds


async def test_an_error_inside_a_stream_is_the_sdks_status_error() -> None:
    async with connected() as (stand_in, claude):
        await stand_in.script([rule("stream_error")])
        with pytest.raises(anthropic.APIStatusError) as raised:
            async with claude.messages.stream(**asking()) as stream:
                await stream.get_final_message()
        assert raised.value.type == "overloaded_error"


async def test_html_with_status_200_is_no_message() -> None:
    async with connected() as (stand_in, claude):
        await stand_in.script([rule("html")])
        answer: Any = await claude.messages.create(**asking())
        assert isinstance(answer, str)
        assert answer.startswith("<!DOCTYPE html>")


async def test_json_of_another_shape_with_status_200_is_a_message_without_content() -> None:
    async with connected() as (stand_in, claude):
        await stand_in.script([rule("garbage")])
        answer: Any = await claude.messages.create(**asking())
        assert getattr(answer, "content", None) is None
        assert getattr(answer, "usage", None) is None


async def test_a_scripted_max_tokens_stops_in_the_middle_and_bills_all_of_them() -> None:
    async with connected() as (stand_in, claude):
        await stand_in.script([rule("max_tokens")])
        message = await claude.messages.create(**asking())
        assert (message.stop_reason, message.usage.output_tokens) == ("max_tokens", 2_000)
        with pytest.raises(json.JSONDecodeError):
            json.loads(text_in(message))


@pytest.mark.parametrize("stream", [False, True])
async def test_a_refusal_has_no_content(stream: bool) -> None:
    async with connected() as (stand_in, claude):
        await stand_in.script([rule("refusal")])
        if stream:
            async with claude.messages.stream(**asking()) as events:
                message: anthropic.types.Message = await events.get_final_message()
        else:
            message = await claude.messages.create(**asking())
        assert (message.stop_reason, message.content) == ("refusal", [])
        assert message.stop_details is not None


async def test_invalid_json_ends_like_a_good_answer_and_is_none() -> None:
    async with connected() as (stand_in, claude):
        await stand_in.script([rule("invalid_json")])
        message = await claude.messages.create(**asking())
        assert message.stop_reason == "end_turn"
        with pytest.raises(json.JSONDecodeError):
            json.loads(text_in(message))


async def test_a_wrong_schema_is_json_that_lacks_fields() -> None:
    async with connected() as (stand_in, claude):
        await stand_in.script([rule("wrong_schema")])
        message = await claude.messages.create(**asking())
        assert message.stop_reason == "end_turn"
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(json.loads(text_in(message)), FACTS_SCHEMA)


async def test_a_scripted_text_is_the_answer() -> None:
    async with connected() as (stand_in, claude):
        await stand_in.script([rule("text", text='{"any": 1}')])
        assert text_in(await claude.messages.create(**asking())) == '{"any": 1}'


async def test_latency_comes_before_the_answer() -> None:
    async with connected() as (stand_in, claude):
        await stand_in.script([rule("latency", seconds=0.3)])
        before = time.monotonic()
        assert text_in(await claude.messages.create(**asking()))
        assert time.monotonic() - before >= 0.3


async def test_an_answer_can_be_given_other_rate_limit_headers() -> None:
    async with connected() as (stand_in, claude):
        await stand_in.script([rule("latency", headers={"anthropic-ratelimit-requests-remaining": 0})])
        response = await claude.messages.with_raw_response.create(**asking())
        assert response.headers["anthropic-ratelimit-requests-remaining"] == "0"
        assert (await response.parse()).stop_reason == "end_turn"


async def test_rules_choose_by_text_model_and_turn() -> None:
    rules = [
        {"match": {"contains": "Salt Road"}, "skip": 1, "times": None, "fault": {"kind": "text", "text": "salt"}},
        {"match": {"kind": "facts", "model": "claude-opus-4-5-20251101"}, "times": 1, "fault": {"kind": "text", "text": "opus"}},
    ]
    async with connected() as (stand_in, claude):
        control = StandInControl(stand_in.url)
        await control.script(rules)
        told = [text_in(await claude.messages.create(**asking())) for _ in range(3)]
        assert [text == "salt" for text in told] == [False, True, True]
        other = asking("User: I like tea.", model="claude-opus-4-5-20251101")
        told = [text_in(await claude.messages.create(**other)) for _ in range(2)]
        assert [text == "opus" for text in told] == [True, False]
        await control.clear_script()
        assert text_in(await claude.messages.create(**asking())) != "salt"


async def test_a_fault_of_count_tokens_leaves_messages_alone() -> None:
    async with connected() as (stand_in, claude):
        await stand_in.script([{"match": {"kind": "count_tokens"}, "fault": {"kind": "status", "status": 500}}])
        assert text_in(await claude.messages.create(**asking()))
        with pytest.raises(anthropic.InternalServerError):
            await claude.messages.count_tokens(**{k: v for k, v in asking().items() if k != "max_tokens"})
