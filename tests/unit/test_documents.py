"""The published contract: generated from the models, committed, and true of what is sent."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import yaml
from jsonschema import Draft202012Validator, FormatChecker, ValidationError

from schemas.documents import asyncapi, documents, json_schema, schema_file
from schemas.events import EVENTS, SECTION_NAMES, ErrorCode, Event, MemorySaved, QuickPassCompleted, Usage, V2Completed, V2Failed
from schemas.examples import example_headers

FOLDER = Path(__file__).parents[2] / "schemas"
AT = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)
OF_A_RUN: dict[str, Any] = {"user_id": UUID(int=1), "idempotency_key": "key", "generation": 0, "run_id": UUID(int=2)}
EXAMPLES: dict[type[Event], Event] = {
    QuickPassCompleted: QuickPassCompleted(user_id=UUID(int=1), storage_path="exports/ada.json", completed_at=AT),
    MemorySaved: MemorySaved(
        **OF_A_RUN, profile_version=1, memory_sha256="0" * 64, memory_chars=9, fact_count=3, coverage=0.95, saved_at=AT
    ),
    V2Completed: V2Completed(
        **OF_A_RUN,
        profile_version=2,
        soulprint_sha256="f" * 64,
        sections=list(SECTION_NAMES),
        conversations_sampled=7,
        model="claude-haiku-4-5-20251001",
        usage=Usage(model_calls=3, input_tokens=100, output_tokens=20, cost_usd=None),
        completed_at=AT,
    ),
    V2Failed: V2Failed(
        **OF_A_RUN,
        profile_version=None,
        error_code=ErrorCode.EXPORT_EMPTY,
        error_detail="nothing in it",
        stage="reading",
        attempts=1,
        memory_saved=False,
        failed_at=AT,
    ),
}


def validator(event: type[Event]) -> Draft202012Validator:
    return Draft202012Validator(json_schema(event), format_checker=FormatChecker())


@pytest.mark.parametrize("name", documents())
def test_a_committed_document_is_what_the_models_say(name: str) -> None:
    assert (FOLDER / name).read_text(encoding="utf-8") == documents()[name], "run 'full-pass schemas export'"


def test_nothing_else_is_committed_beside_them() -> None:
    assert {f"json/{path.name}" for path in (FOLDER / "json").iterdir()} == {name for name in documents() if "/" in name}


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.event_type)
def test_a_schema_is_a_schema_and_an_event_as_it_is_sent_fits_it(event: type[Event]) -> None:
    Draft202012Validator.check_schema(json_schema(event))
    validator(event).validate(json.loads(EXAMPLES[event].model_dump_json()))


@pytest.mark.parametrize("event", [MemorySaved, V2Completed, V2Failed], ids=lambda event: event.event_type)
def test_readers_may_rely_on_every_field_of_an_event_that_is_sent(event: type[Event]) -> None:
    data = json.loads(EXAMPLES[event].model_dump_json())
    assert set(json_schema(event)["required"]) == set(data)
    for field in data:
        with pytest.raises(ValidationError, match=field):
            validator(event).validate({name: value for name, value in data.items() if name != field})


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.event_type)
def test_an_event_may_grow(event: type[Event]) -> None:
    """A reader that validates must not break when a field is added."""
    validator(event).validate({**json.loads(EXAMPLES[event].model_dump_json()), "a_field_of_next_year": 1})


@pytest.mark.parametrize(
    "changes",
    [
        {"user_id": "ada"},
        {"storage_path": "../secrets"},
        {"storage_path": "bucket"},
        {"completed_at": 1764000000},
        {"idempotency_key": ""},
        {"idempotency_key": "tab\there"},
        {"conversation_count": -1},
    ],
    ids=str,
)
def test_what_intake_refuses_a_publisher_can_see_in_the_schema(changes: dict[str, Any]) -> None:
    data = json.loads(EXAMPLES[QuickPassCompleted].model_dump_json(exclude_none=True))
    validator(QuickPassCompleted).validate(data)
    with pytest.raises(ValidationError):
        validator(QuickPassCompleted).validate({**data, **changes})


def test_the_error_codes_of_the_contract_are_all_in_the_schema() -> None:
    assert set(json_schema(V2Failed)["$defs"]["ErrorCode"]["enum"]) == {code.value for code in ErrorCode}


def test_the_asyncapi_document_names_each_event_once_with_its_schema_and_direction() -> None:
    document = yaml.safe_load(documents()["asyncapi.yaml"])
    assert document == json.loads(json.dumps(asyncapi()))
    assert set(document["channels"]) == set(document["components"]["messages"]) == {event.event_type for event in EVENTS}
    for event in EVENTS:
        message = document["components"]["messages"][event.event_type]
        assert (FOLDER / message["payload"]["$ref"]).is_file()
        assert message["payload"]["$ref"] == f"./{schema_file(event)}"
    actions = {operation["channel"]["$ref"]: operation["action"] for operation in document["operations"].values()}
    received = [place for place, action in actions.items() if action == "receive"]
    assert received == ["#/channels/quick-pass-completed"]
    assert len(actions) == len(EVENTS)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.event_type)
def test_a_message_has_one_example_that_fits_its_headers_its_schema_and_its_model(event: type[Event]) -> None:
    message = yaml.safe_load(documents()["asyncapi.yaml"])["components"]["messages"][event.event_type]
    (example,) = message["examples"]
    validator(event).validate(example["payload"])
    Draft202012Validator(message["headers"], format_checker=FormatChecker()).validate(example["headers"])
    taken = event.model_validate_json(json.dumps(example["payload"]))
    assert json.loads(taken.model_dump_json(exclude_none=event is QuickPassCompleted)) == example["payload"]


@pytest.mark.parametrize("event", [MemorySaved, V2Completed, V2Failed], ids=lambda event: event.event_type)
def test_readers_may_rely_on_every_header_of_an_event_that_is_sent(event: type[Event]) -> None:
    headers = asyncapi()["components"]["messages"][event.event_type]["headers"]
    assert headers["required"] == list(headers["properties"]) == list(example_headers(EXAMPLES[event]))


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.event_type)
def test_the_page_of_the_events_names_every_field_and_every_header(event: type[Event]) -> None:
    page = (FOLDER.parent / "docs" / "events.md").read_text(encoding="utf-8")
    schema = json_schema(event)
    nested = [field for inner in schema.get("$defs", {}).values() for field in inner.get("properties", ())]
    sent_with = set(asyncapi()["components"]["messages"][event.event_type]["headers"]["properties"]) - {"ce_specversion"}
    assert {name for name in (*schema["properties"], *nested, *sent_with) if f"`{name}`" not in page} == set()
