"""Message Batches of the stand-in, through the real SDK's own methods."""

from __future__ import annotations

import asyncio
from typing import Any

import anthropic
import pytest
from anthropic import AsyncAnthropic
from anthropic.types.messages import MessageBatch

from tests.integration.anthropic_client import asking, connected, text_in

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]


def requests_of(*texts: str) -> Any:
    return [{"custom_id": f"pack-{index}", "params": asking(f"User: {text}")} for index, text in enumerate(texts)]


def result_rule(contains: str, result: str, **options: Any) -> dict[str, Any]:
    return {"match": {"contains": contains}, "fault": {"kind": "batch_result", "result": result, **options}}


async def ended(claude: AsyncAnthropic, batch: MessageBatch) -> MessageBatch:
    async with asyncio.timeout(10):
        while batch.processing_status != "ended":
            await asyncio.sleep(0.01)
            batch = await claude.messages.batches.retrieve(batch.id)
    return batch


async def results_of(claude: AsyncAnthropic, batch: MessageBatch) -> dict[str, Any]:
    return {line.custom_id: line.result async for line in await claude.messages.batches.results(batch.id)}


async def test_one_batch_holds_succeeded_errored_expired_and_canceled_results() -> None:
    rules = [result_rule("two", "errored", message="scripted"), result_rule("three", "expired"), result_rule("four", "canceled")]
    async with connected(batch_seconds=0.05) as (stand_in, claude):
        await stand_in.script(rules)
        batch = await claude.messages.batches.create(requests=requests_of("I like one.", "two", "three", "four"))
        assert (batch.processing_status, batch.request_counts.processing, batch.results_url) == ("in_progress", 4, None)
        batch = await ended(claude, batch)
        results = await results_of(claude, batch)
    assert [result.type for result in results.values()] == ["succeeded", "errored", "expired", "canceled"]
    counts = batch.request_counts
    assert (counts.succeeded, counts.errored, counts.expired, counts.canceled, counts.processing) == (1, 1, 1, 1, 0)
    assert "I like one." in text_in(results["pack-0"].message)
    assert results["pack-0"].message.usage.service_tier == "batch"
    assert (results["pack-1"].error.error.type, results["pack-1"].error.error.message) == ("api_error", "scripted")


async def test_a_cancelled_batch_ends_with_canceled_results_but_for_what_had_succeeded() -> None:
    async with connected(batch_seconds=0.3) as (stand_in, claude):
        await stand_in.script([result_rule("one", "succeeded")])
        batch = await claude.messages.batches.create(requests=requests_of("I like one.", "two"))
        cancelling = await claude.messages.batches.cancel(batch.id)
        assert (cancelling.processing_status, cancelling.cancel_initiated_at is None) == ("canceling", False)
        results = await results_of(claude, await ended(claude, batch))
    assert [result.type for result in results.values()] == ["succeeded", "canceled"]


async def test_an_item_that_the_api_refuses_is_errored_and_the_others_are_answered() -> None:
    """The API looks at the parameters of a batch only while it works on it."""
    requests = requests_of("I like one.", "two")
    requests[1]["params"]["model"] = "claude-nobody"
    async with connected(batch_seconds=0) as (_, claude):
        results = await results_of(claude, await claude.messages.batches.create(requests=requests))
    assert [result.type for result in results.values()] == ["succeeded", "errored"]
    assert results["pack-1"].error.error.type == "not_found_error"


async def test_faults_of_answers_show_in_the_items_of_a_batch() -> None:
    rules: list[dict[str, Any]] = [
        {"match": {"kind": "facts", "contains": "one"}, "fault": {"kind": "refusal"}},
        {"match": {"kind": "facts", "contains": "two"}, "fault": {"kind": "status", "status": 529}},
    ]
    async with connected(batch_seconds=0) as (stand_in, claude):
        await stand_in.script(rules)
        results = await results_of(claude, await claude.messages.batches.create(requests=requests_of("one", "two")))
        bought = [entry for entry in stand_in.requests("facts") if entry["batch_id"]]
    assert results["pack-0"].message.stop_reason == "refusal"
    assert results["pack-1"].error.error.type == "overloaded_error"
    assert [(entry["custom_id"], entry["outcome"]["status"]) for entry in bought] == [("pack-0", 200), ("pack-1", 529)]


async def test_batches_are_listed_newest_first_and_can_be_deleted_once_they_ended() -> None:
    async with connected(batch_seconds=0.1) as (_, claude):
        made = [await claude.messages.batches.create(requests=requests_of("one")) for _ in range(3)]
        listed = [batch.id async for batch in claude.messages.batches.list(limit=2)]
        assert listed == [batch.id for batch in reversed(made)]
        with pytest.raises(anthropic.BadRequestError):
            await claude.messages.batches.delete(made[2].id)
        await ended(claude, made[2])
        deleted = await claude.messages.batches.delete(made[2].id)
        assert (deleted.id, deleted.type) == (made[2].id, "message_batch_deleted")
        with pytest.raises(anthropic.NotFoundError):
            await claude.messages.batches.retrieve(made[2].id)


async def test_results_are_not_to_be_had_before_the_end() -> None:
    async with connected(batch_seconds=60) as (_, claude):
        batch = await claude.messages.batches.create(requests=requests_of("one"))
        with pytest.raises(anthropic.AnthropicError, match="results_url"):
            await claude.messages.batches.results(batch.id)


@pytest.mark.parametrize("custom_ids", [("same", "same"), ("white space", "b"), ("", "b"), ("x" * 65, "b")])
async def test_custom_ids_have_to_be_unique_and_plain(custom_ids: tuple[str, str]) -> None:
    requests = requests_of("one", "two")
    for request, custom_id in zip(requests, custom_ids, strict=True):
        request["custom_id"] = custom_id
    async with connected() as (_, claude):
        with pytest.raises(anthropic.BadRequestError, match="custom_id"):
            await claude.messages.batches.create(requests=requests)


async def test_creating_a_batch_can_be_made_to_fail() -> None:
    async with connected() as (stand_in, claude):
        await stand_in.script([{"match": {"kind": "batch", "contains": "two"}, "fault": {"kind": "status", "status": 500}}])
        await claude.messages.batches.create(requests=requests_of("one"))
        with pytest.raises(anthropic.InternalServerError):
            await claude.messages.batches.create(requests=requests_of("one", "two"))
