"""The published contract: a JSON Schema per event and an AsyncAPI 3 document, generated from the models."""

from __future__ import annotations

import json
from typing import Any

import yaml

from schemas.compatibility import Contract
from schemas.events import EVENTS, Event, QuickPassCompleted
from schemas.examples import EXAMPLES, example_headers

CONTRACT_VERSION = "1.0.0"
"""Semantic version of the whole contract: a new field makes a minor one, what `schemas.compatibility` refuses a major one."""
DRAFT = "https://json-schema.org/draft/2020-12/schema"
_SOURCE = "/full-pass"
_TEXT = {"type": "string"}


def documents() -> dict[str, str]:
    """File name, relative to the folder of the contract → content."""
    files = {schema_file(event): json.dumps(json_schema(event), indent=2, ensure_ascii=False) + "\n" for event in EVENTS}
    files["asyncapi.yaml"] = yaml.safe_dump(asyncapi(), sort_keys=False, allow_unicode=True, width=120)
    return files


def schema_file(event: type[Event]) -> str:
    """Where the event's JSON Schema lies, relative to the folder of the contract."""
    return f"json/{event.event_type}.schema.json"


def json_schema(event: type[Event]) -> dict[str, Any]:
    """The event's data as JSON Schema, draft 2020-12; unknown fields are allowed, so that events can grow."""
    generated = event.model_json_schema(mode="validation" if event is QuickPassCompleted else "serialization")
    return {"$schema": DRAFT, "$id": event.schema_id(), **generated, "title": event.event_type}


def contract() -> Contract:
    """What `schemas.compatibility` compares: headers and data of each event, as the models say them now."""
    return {event.event_type: {"headers": _headers(event), "payload": json_schema(event)} for event in EVENTS}


def asyncapi() -> dict[str, Any]:
    """The AsyncAPI 3 document: which topics there are, who sends, and what headers and data look like."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Full-pass events",
            "version": CONTRACT_VERSION,
            "description": "CloudEvents 1.0 over Kafka, binary mode. Topic names are the event names after the topic prefix; "
            "the record's key is the user's id. Read with isolation.level=read_committed.",
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "channels": {event.event_type: _channel(event) for event in EVENTS},
        "operations": {_operation_name(event): _operation(event) for event in EVENTS},
        "components": {"messages": {event.event_type: _message(event) for event in EVENTS}},
    }


def _channel(event: type[Event]) -> dict[str, Any]:
    return {
        "address": event.event_type,
        "description": _purpose(event),
        "messages": {event.event_type: {"$ref": f"#/components/messages/{event.event_type}"}},
        "bindings": {"kafka": {"topic": event.event_type, "bindingVersion": "0.5.0"}},
    }


def _operation_name(event: type[Event]) -> str:
    return f"{'take' if event is QuickPassCompleted else 'send'}-{event.event_type}"


def _operation(event: type[Event]) -> dict[str, Any]:
    return {
        "action": "receive" if event is QuickPassCompleted else "send",
        "channel": {"$ref": f"#/channels/{event.event_type}"},
        "summary": _purpose(event),
    }


def _message(event: type[Event]) -> dict[str, Any]:
    return {
        "name": event.event_type,
        "title": event.event_type,
        "summary": _purpose(event),
        "contentType": "application/json",
        "headers": _headers(event),
        "payload": {"$ref": f"./{schema_file(event)}"},
        "bindings": {"kafka": {"key": _key(event), "bindingVersion": "0.5.0"}},
        "examples": [_example(event)],
    }


def _key(event: type[Event]) -> dict[str, Any]:
    if event is QuickPassCompleted:
        return {**_TEXT, "description": "user_id, which keeps a user's events in order; the field in the data decides."}
    return {**_TEXT, "format": "uuid", "description": "user_id"}


def _headers(event: type[Event]) -> dict[str, Any]:
    """Every header of an event that is sent; of one that comes in, what intake makes of those that it looks at."""
    if event is QuickPassCompleted:
        return {
            "type": "object",
            "description": "CloudEvents 1.0, binary mode. All are optional: a bare JSON value is taken at its word.",
            "properties": {
                "ce_specversion": {"const": "1.0"},
                "ce_id": {**_TEXT, "description": "The publisher's; it decides nothing."},
                "ce_source": {**_TEXT, "description": "The publisher's; it decides nothing."},
                "ce_type": {
                    **_TEXT,
                    "pattern": rf"^(.*\.)?{event.event_type}$",
                    "description": "The event's name, also behind a prefix that ends in a dot.",
                },
                "ce_subject": {**_TEXT, "description": "user_id; the field in the data decides."},
                "ce_time": {**_TEXT, "format": "date-time"},
                "ce_dataschema": {**_TEXT, "description": f"{event.schema_id()}; it decides nothing."},
                "content-type": {
                    **_TEXT,
                    "description": "application/json, or application/cloudevents+json where the value is in structured mode.",
                },
                "traceparent": {**_TEXT, "description": "W3C Trace Context; the run and its events continue this trace."},
            },
        }
    properties = {
        "ce_specversion": {"const": "1.0"},
        "ce_id": {**_TEXT, "format": "uuid", "description": "UUIDv5 of run and type: a repeated event has the same id."},
        "ce_source": {"const": _SOURCE},
        "ce_type": {"const": event.event_type},
        "ce_subject": {**_TEXT, "format": "uuid", "description": "user_id"},
        "ce_time": {**_TEXT, "format": "date-time"},
        "ce_dataschema": {"const": event.schema_id()},
        "content-type": {"const": "application/json"},
        "traceparent": {**_TEXT, "description": "W3C Trace Context; the trace id of the completion event."},
    }
    return {"type": "object", "required": list(properties), "properties": properties}


def _example(event: type[Event]) -> dict[str, Any]:
    example = EXAMPLES[event]
    return {
        "name": event.event_type,
        "headers": example_headers(example),
        "payload": example.model_dump(mode="json", exclude_none=event is QuickPassCompleted),
    }


def _purpose(event: type[Event]) -> str:
    return (event.__doc__ or "").strip().splitlines()[0]
