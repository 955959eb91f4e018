"""The examples of the AsyncAPI document are what goes over the wire."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from consumer.kafka.messages import to_completion_message, to_message, to_new_run
from consumer.kafka.storage_paths import AllowedPaths
from consumer.postgres.outbox import OutboxRow
from schemas.documents import asyncapi
from schemas.events import Event, MemorySaved, QuickPassCompleted, V2Completed, V2Failed, event_id_of
from schemas.examples import COMPLETION, EXAMPLES, TRACEPARENT
from tests.unit.kafka.records import HandMadeRecord

MESSAGES = asyncapi()["components"]["messages"]


def example_of(event: type[Event]) -> tuple[dict[str, str], Any]:
    """Headers and data of the event's example."""
    (example,) = MESSAGES[event.event_type]["examples"]
    return example["headers"], example["payload"]


@pytest.mark.parametrize(
    ("event", "occurred"), [(MemorySaved, "saved_at"), (V2Completed, "completed_at"), (V2Failed, "failed_at")]
)
def test_an_event_that_is_sent_has_the_headers_and_the_data_of_its_example(event: type[Event], occurred: str) -> None:
    headers, data = example_of(event)
    sent = cast("MemorySaved", EXAMPLES[event])
    row = OutboxRow(
        1, event_id_of(sent.run_id, event.event_type), event.event_type, sent.user_id, sent.model_dump_json(), TRACEPARENT,
        getattr(sent, occurred),
    )  # fmt: skip
    message = to_message(row)
    assert {name: value.decode() for name, value in message.headers} == headers
    assert json.loads(message.value) == data
    assert message.key == str(COMPLETION.user_id).encode()


def test_intake_takes_the_example_of_the_completion_event() -> None:
    headers, data = example_of(QuickPassCompleted)
    record = HandMadeRecord(json.dumps(data).encode(), [(name, value.encode()) for name, value in headers.items()])
    run = to_new_run(record, AllowedPaths(""))
    assert (run.user_id, run.idempotency_key, run.completed_at) == (COMPLETION.user_id, COMPLETION.key(), COMPLETION.completed_at)
    assert json.loads(run.event) == data
    assert run.traceparent.split("-")[1] == TRACEPARENT.split("-")[1]


def test_what_publish_sends_differs_from_the_example_only_in_source_and_time() -> None:
    headers, data = example_of(QuickPassCompleted)
    message = to_completion_message(COMPLETION, TRACEPARENT)
    sent = {name: value.decode() for name, value in message.headers}
    assert json.loads(message.value) == data
    assert {name for name in sent.keys() | headers if sent.get(name) != headers.get(name)} == {"ce_source", "ce_time"}
