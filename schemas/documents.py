"""The published contract: a JSON Schema per event and an AsyncAPI 3 document, generated from the models."""

from __future__ import annotations

import json
from typing import Any

import yaml

from schemas.events import EVENTS, Event, QuickPassCompleted

DRAFT = "https://json-schema.org/draft/2020-12/schema"
_SOURCE = "/full-pass"


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


def asyncapi() -> dict[str, Any]:
    """The AsyncAPI 3 document: which topics there are, who sends, and what headers and data look like."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Full-pass events",
            "version": "1.0.0",
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
        "bindings": {"kafka": {"key": {"type": "string", "format": "uuid", "description": "user_id"}, "bindingVersion": "0.5.0"}},
    }


def _headers(event: type[Event]) -> dict[str, Any]:
    text = {"type": "string"}
    return {
        "type": "object",
        "required": [] if event is QuickPassCompleted else ["ce_specversion", "ce_id", "ce_source", "ce_type", "content-type"],
        "properties": {
            "ce_specversion": {"const": "1.0"},
            "ce_id": {**text, "format": "uuid", "description": "UUIDv5 of run and type: a repeated event has the same id."},
            "ce_source": text if event is QuickPassCompleted else {"const": _SOURCE},
            "ce_type": {"const": event.event_type},
            "ce_subject": {**text, "format": "uuid", "description": "user_id"},
            "ce_time": {**text, "format": "date-time"},
            "ce_dataschema": {"const": event.schema_id()},
            "content-type": {"const": "application/json"},
            "traceparent": {**text, "description": "W3C Trace Context; the trace id of the completion event."},
        },
    }


def _purpose(event: type[Event]) -> str:
    return (event.__doc__ or "").strip().splitlines()[0]
