"""Every endpoint of the stand-in, through the real SDK's own methods."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from typing import Any

import aiohttp
import anthropic
import jsonschema
import pytest

from sandbox.anthropic import StandInControl
from tests.integration.anthropic_client import (
    CONVERSATIONS,
    FACTS_SCHEMA,
    MODEL,
    asking,
    client_of,
    connected,
    object_of,
    text_in,
)

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]


async def test_facts_are_the_users_own_sentences_and_fit_the_schema() -> None:
    async with connected() as (_, claude):
        message = await claude.messages.create(**asking())
    facts = json.loads(text_in(message))
    jsonschema.validate(facts, FACTS_SCHEMA)
    assert message.stop_reason == "end_turn"
    assert facts["preferences"] == ["I prefer window seats on long trains."]
    assert facts["dates"] == [{"event": "My flight home is on 12 May, from Lyon.", "date": "12 May"}]
    assert facts["projects"][0]["name"] == "The Salt Road"
    assert facts["projects"][0]["description"] in CONVERSATIONS
    assert facts["decisions"][0]["decision"] == "I decided to write by hand because it slows me down."
    assert facts["beliefs"] == ["I believe good stories need silence."]


async def test_a_streamed_message_is_the_same_as_a_plain_one() -> None:
    async with connected() as (_, claude):
        plain = await claude.messages.create(**asking())
        async with claude.messages.stream(**asking()) as stream:
            streamed = await stream.get_final_message()
    assert text_in(streamed) == text_in(plain)
    assert (streamed.stop_reason, streamed.usage.input_tokens) == ("end_turn", plain.usage.input_tokens)
    assert streamed.usage.output_tokens == plain.usage.output_tokens


async def test_a_raw_stream_gives_the_events_in_the_apis_order() -> None:
    async with connected() as (_, claude):
        stream = await claude.messages.create(**asking(), stream=True)
        kinds = [event.type async for event in stream]
    assert list(dict.fromkeys(kinds)) == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]


async def test_memory_asked_for_without_a_schema_is_markdown_of_the_facts_given() -> None:
    facts = {"preferences": ["I like tea."], "projects": [], "dates": [], "beliefs": [], "decisions": []}
    async with connected() as (stand_in, claude):
        message = await claude.messages.create(**asking(f"<facts>\n{json.dumps(facts)}\n</facts>", schema=None))
        assert [entry["kind"] for entry in stand_in.requests()] == ["memory"]
    assert text_in(message).startswith("## Preferences\n- I like tea.\n\n## Projects\nNo data yet.\n")


async def test_the_count_of_count_tokens_is_the_bill_of_the_message() -> None:
    async with connected() as (_, claude):
        counted = await claude.messages.count_tokens(**{k: v for k, v in asking().items() if k != "max_tokens"})
        message = await claude.messages.create(**asking())
    assert counted.input_tokens == message.usage.input_tokens > len(CONVERSATIONS) // 5


async def test_models_are_listed_over_pages_and_found_by_id_and_alias() -> None:
    async with connected() as (_, claude):
        found = [model.id async for model in claude.models.list(limit=2)]
        by_alias = await claude.models.retrieve("claude-haiku-4-5")
        with pytest.raises(anthropic.NotFoundError):
            await claude.models.retrieve("claude-nobody")
    assert MODEL in found
    assert len(found) == len(set(found)) > 2
    assert (by_alias.id, by_alias.max_input_tokens) == (MODEL, 200_000)


async def test_an_answer_names_its_request_and_the_rate_limits() -> None:
    async with connected() as (stand_in, claude):
        response = await claude.messages.with_raw_response.create(**asking())
        entry = stand_in.requests()[0]
    assert response.headers["request-id"] == entry["request_id"]
    assert response.headers["anthropic-organization-id"]
    for name in ("requests", "tokens", "input-tokens", "output-tokens"):
        limit, remaining = (int(response.headers[f"anthropic-ratelimit-{name}-{part}"]) for part in ("limit", "remaining"))
        assert 0 < remaining < limit
        assert response.headers[f"anthropic-ratelimit-{name}-reset"].endswith("Z")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"temperature": 0.5}, "temperature"),
        ({"extra_body": {"top_p": 0.9}}, "top_p"),
        ({"extra_body": {"top_k": 5}}, "top_k"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 64_001}, "max_tokens: 64001 > 64000"),
        ({"messages": []}, "messages: at least one message is required"),
        ({"messages": [{"role": "user", "content": "  "}]}, "messages.0"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
        ({"extra_body": {"surprise": 1}}, "surprise: Extra inputs are not permitted"),
        ({"messages": [{"role": "user", "content": "word " * 160_100}]}, "prompt is too long: 200"),
        ({"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}}, "additionalProperties"),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": object_of(a={"$ref": "#/x"})}}},
            "$ref",
        ),
    ],
)
async def test_what_the_api_refuses_is_refused_and_named(changes: dict[str, Any], says: str) -> None:
    async with connected() as (stand_in, claude):
        params = {name: value for name, value in asking().items() if name not in changes} | changes
        if "temperature" in params:
            params["extra_body"] = {"temperature": params.pop("temperature")}
        with pytest.raises(anthropic.BadRequestError) as refused:
            await claude.messages.create(**params)
        assert refused.value.type == "invalid_request_error"
        assert says in str(refused.value.api_message)
        assert refused.value.request_id == stand_in.requests()[0]["request_id"]
        assert refused.value.body["request_id"] == refused.value.request_id  # type: ignore[index]


async def test_a_prompt_is_refused_just_above_the_models_context_and_not_at_it() -> None:
    async with connected() as (_, claude):
        fits = asking("word" * (200_000 - 30), schema=None)
        room = 200_000 - (await claude.messages.count_tokens(**{k: v for k, v in fits.items() if k != "max_tokens"})).input_tokens
        fits["messages"][0]["content"] += "word" * room
        assert (await claude.messages.create(**fits)).usage.input_tokens == 200_000
        fits["messages"][0]["content"] += "w"
        with pytest.raises(anthropic.BadRequestError, match="prompt is too long: 200001 tokens > 200000 maximum"):
            await claude.messages.create(**fits)


async def test_a_model_that_is_not_known_is_not_found() -> None:
    async with connected() as (_, claude):
        with pytest.raises(anthropic.NotFoundError, match="claude-nobody"):
            await claude.messages.create(**asking(model="claude-nobody"))


@pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning")
async def test_a_body_over_32_megabytes_is_too_large() -> None:
    async with connected() as (_, claude):
        with pytest.raises(anthropic.APIStatusError) as refused:
            await claude.messages.create(**asking("x" * (32 * 1024 * 1024)))
    assert (refused.value.status_code, refused.value.body["error"]["type"]) == (413, "request_too_large")  # type: ignore[index]


async def test_a_revoked_key_is_refused_and_no_key_is_ever_recorded() -> None:
    async with connected() as (stand_in, _):
        async with client_of(stand_in.url, api_key="revoked-key-of-somebody") as claude:
            with pytest.raises(anthropic.AuthenticationError) as refused:
                await claude.messages.create(**asking())
        assert refused.value.type == "authentication_error"
        (entry,) = stand_in.requests()
        assert (entry["kind"], entry["headers"]["authorization"]) == ("facts", True)
        assert "somebody" not in json.dumps(entry)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"anthropic-version": "2023-06-01"}, 401),
        ({"anthropic-version": "2023-06-01", "Authorization": "Basic abc"}, 401),
        ({"Authorization": "Bearer key"}, 400),
        ({"x-api-key": "key", "anthropic-version": "2023-06-01"}, 200),
    ],
)
async def test_credentials_and_version_are_asked_for_in_headers(headers: dict[str, str], status: int) -> None:
    async with (
        connected() as (stand_in, _),
        aiohttp.ClientSession() as session,
        session.post(f"{stand_in.url}/v1/messages", json=asking(), headers=headers) as response,
    ):
        assert response.status == status


@pytest.mark.parametrize("body", [b"{no json", b"[" * 100_000, b"", b"[]", json.dumps(asking("a lone \ud800")).encode()])
async def test_a_body_that_is_no_valid_json_object_is_refused(body: bytes) -> None:
    headers = {"x-api-key": "key", "anthropic-version": "2023-06-01"}
    async with (
        connected() as (stand_in, _),
        aiohttp.ClientSession() as session,
        session.post(f"{stand_in.url}/v1/messages", data=body, headers=headers) as response,
    ):
        assert response.status == 400
        assert (await response.json())["error"]["type"] == "invalid_request_error"


async def test_max_tokens_cuts_the_answer_and_says_so() -> None:
    async with connected() as (_, claude):
        whole = await claude.messages.create(**asking())
        cut = await claude.messages.create(**asking(max_tokens=20))
    assert (cut.stop_reason, cut.usage.output_tokens) == ("max_tokens", 20)
    assert text_in(whole).startswith(text_in(cut))


async def test_a_stop_sequence_ends_the_answer() -> None:
    async with connected() as (_, claude):
        message = await claude.messages.create(**asking("One. Two. Three.", schema=None, stop_sequences=["Tw"]))
        with pytest.raises(anthropic.BadRequestError, match="stop_sequences"):
            await claude.messages.create(**asking(stop_sequences=[" "]))
    assert (message.stop_reason, message.stop_sequence, text_in(message)) == ("stop_sequence", "Tw", "One. ")


async def test_an_answer_beyond_the_models_context_stops_there() -> None:
    async with connected() as (_, claude):
        message = await claude.messages.create(**asking("Word. " + "word" * 199_960, schema=None))
    assert message.stop_reason == "model_context_window_exceeded"
    assert message.usage.input_tokens + message.usage.output_tokens == 200_000


async def test_the_same_request_gets_the_same_answer_from_another_stand_in() -> None:
    """Tests and the demo compare answers across restarts."""
    answers = []
    for _ in range(2):
        async with connected() as (_, claude):
            answers.append(text_in(await claude.messages.create(**asking())))
    assert answers[0] == answers[1]


async def _until_asked(control: StandInControl) -> None:
    while True:
        if await control.requests("facts"):
            return
        await asyncio.sleep(0.01)


async def _fails(claude: anthropic.AsyncAnthropic) -> Exception:
    with pytest.raises(anthropic.AnthropicError) as raised:
        await claude.messages.create(**asking())
    return raised.value


async def test_the_process_answers_over_http_and_ends_on_sigterm_with_status_0() -> None:
    arguments = ("-m", "sandbox.anthropic", "--host", "127.0.0.1", "--port", "0", "--keep-requests", "2")
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(20):
            line = (await process.stdout.readline()).decode()
            url = line.removeprefix("listening on ").strip()
            control = StandInControl(url)
            await control.script([{"fault": {"kind": "status", "status": 529}}])
            async with client_of(url) as claude:
                with pytest.raises(anthropic.APIStatusError):
                    await claude.messages.create(**asking())
                for _ in range(2):
                    await claude.messages.create(**asking())
            assert [entry["number"] for entry in await control.requests()] == [2, 3]
            assert (await control.requests("facts", after=2, with_body=False))[0]["body"] is None
            summary = await control.summary()
            assert summary["kinds"]["facts"]["outcomes"] == {"200": 2, "529 status": 1}
            with pytest.raises(ValueError, match="sideways"):
                await control.script([{"fault": {"kind": "sideways"}}])
            await control.clear()
            assert (await control.summary())["requests"] == 0
            await control.script([{"fault": {"kind": "hang"}}])
            async with client_of(url) as claude, asyncio.TaskGroup() as calls:
                hanging = calls.create_task(_fails(claude))
                await _until_asked(control)
                process.send_signal(signal.SIGTERM)
                assert await process.wait() == 0
                assert type(await hanging) is anthropic.APIConnectionError
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
