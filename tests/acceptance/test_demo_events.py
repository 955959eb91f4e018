"""The demo's path: the sample export goes in by one published event; every field of what comes out is looked at."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

import schemas
from schemas.events import SECTION_NAMES, event_id_of, run_id_of
from tests.acceptance import reference
from tests.acceptance.sample_run import Passed, answers, bought_by, completion_event, header, sampled, trace_id
from tests.acceptance.topics import INPUT, Seen
from tests.acceptance.world import User, World

pytestmark = pytest.mark.guarantee("G1")
HEADERS = {
    "ce_specversion",
    "ce_id",
    "ce_source",
    "ce_type",
    "ce_subject",
    "ce_time",
    "ce_dataschema",
    "content-type",
    "traceparent",
}


def assert_cloudevent(seen: Seen, event_type: str, user: User, world: World) -> None:
    """Everything that is alike in all events of a user."""
    assert set(seen.headers) == HEADERS
    assert seen.topic == world.prefix + event_type
    assert seen.key == user.id.encode()
    assert header(seen, "ce_specversion") == "1.0"
    assert header(seen, "ce_source") == "/full-pass"
    assert header(seen, "ce_type") == event_type
    assert header(seen, "ce_subject") == user.id
    assert header(seen, "content-type") == "application/json"
    schema = json.loads((Path(schemas.__file__).parent / "json" / f"{event_type}.schema.json").read_text(encoding="utf-8"))
    assert header(seen, "ce_dataschema") == schema["$id"]
    Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(seen.data)


def test_publish_writes_one_completion_event_with_every_attribute_and_says_where(passed: Passed) -> None:
    seen = completion_event(passed)
    assert_cloudevent(seen, INPUT, passed.user, passed.world)
    assert seen.data == passed.user.event
    assert uuid.UUID(header(seen, "ce_id")).version == 5
    assert passed.published == {
        "topic": seen.topic,
        "partition": seen.partition,
        "offset": seen.offset,
        "user_id": passed.user.id,
        "idempotency_key": passed.user.key,
    }


@pytest.mark.guarantee("G5")
def test_exactly_memory_saved_and_v2_completed_come_out_in_this_order(passed: Passed) -> None:
    assert [seen.headers["ce_type"] for seen in passed.events] == [b"memory-saved", b"v2-completed"]
    assert [seen.data["profile_version"] for seen in passed.events] == [1, 2]


def test_every_field_of_memory_saved_is_what_the_specification_says(passed: Passed) -> None:
    (seen, _) = passed.events
    assert_cloudevent(seen, "memory-saved", passed.user, passed.world)
    run_id = run_id_of(passed.user.uuid, passed.user.key, 0)
    assert header(seen, "ce_id") == str(event_id_of(run_id, "memory-saved")) == str(uuid.uuid5(run_id, "memory-saved"))
    assert header(seen, "ce_time") == seen.data["saved_at"]
    assert trace_id(header(seen, "traceparent")) == trace_id(header(completion_event(passed), "traceparent"))
    assert reference.moment(seen.data["saved_at"]) == passed.run["memory_saved_at"]
    assert seen.data == {
        "user_id": passed.user.id,
        "idempotency_key": passed.user.key,
        "generation": 0,
        "run_id": str(run_id),
        "profile_version": 1,
        "memory_sha256": reference.sha256(passed.memory),
        "memory_chars": len(passed.memory),
        "fact_count": reference.fact_count(answers(passed, "facts")),
        "coverage": 1.0,
        "saved_at": seen.data["saved_at"],
    }


def test_every_field_of_v2_completed_is_what_the_specification_says(passed: Passed) -> None:
    (_, seen) = passed.events
    assert_cloudevent(seen, "v2-completed", passed.user, passed.world)
    run_id = run_id_of(passed.user.uuid, passed.user.key, 0)
    assert header(seen, "ce_id") == str(uuid.uuid5(run_id, "v2-completed"))
    assert header(seen, "ce_time") == seen.data["completed_at"]
    assert trace_id(header(seen, "traceparent")) == trace_id(header(completion_event(passed), "traceparent"))
    assert reference.moment(seen.data["completed_at"]) == passed.run["finished_at"]
    bought = bought_by(passed)
    assert seen.data == {
        "user_id": passed.user.id,
        "idempotency_key": passed.user.key,
        "generation": 0,
        "run_id": str(run_id),
        "profile_version": 2,
        "soulprint_sha256": reference.sha256(passed.profile["soulprint_text"]),
        "sections": list(SECTION_NAMES),
        "conversations_sampled": sampled(passed),
        "model": "claude-haiku-4-5-20251001",
        "usage": {
            "model_calls": len(bought),
            "input_tokens": sum(each["usage"]["input_tokens"] for each in bought),
            "output_tokens": sum(each["usage"]["output_tokens"] for each in bought),
            "cost_usd": float(passed.run["cost_usd"]),
        },
        "completed_at": seen.data["completed_at"],
    }
