"""What intake makes of each kind of message, and what readers get."""

from __future__ import annotations

import json
import re
import uuid
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent

from consumer.errors import InvalidMessage
from consumer.kafka.messages import continued_trace, to_completion_message, to_message, to_new_run
from consumer.kafka.storage_paths import AllowedPaths
from consumer.postgres.outbox import OutboxRow
from consumer.postgres.runs import NewRun
from schemas.events import QuickPassCompleted, derived_idempotency_key
from tests.unit.kafka.records import COMPLETED_AT, RECORD_MS, USER, HandMadeRecord, bare, event_data

ANYWHERE = AllowedPaths("")
TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-b7ad6b7169203331-01".encode()


def taken(record: HandMadeRecord) -> NewRun:
    return to_new_run(record, ANYWHERE)


def refusal(record: HandMadeRecord, paths: AllowedPaths = ANYWHERE) -> InvalidMessage:
    with pytest.raises(InvalidMessage) as caught:
        to_new_run(record, paths)
    return caught.value


def structured(data: Any, **attributes: Any) -> HandMadeRecord:
    event = CloudEvent({"source": "/app", "type": "quick-pass-completed", **attributes}, data)
    message = to_structured_event(event)
    return HandMadeRecord(message.value, list(message.headers.items()))


def test_a_bare_json_value_is_an_event() -> None:
    run = taken(bare())
    assert run == NewRun(
        user_id=USER,
        idempotency_key=derived_idempotency_key(USER, "exports/ada.json", COMPLETED_AT),
        completed_at=COMPLETED_AT,
        event=run.event,
        traceparent=run.traceparent,
    )
    assert json.loads(run.event)["completed_at"] == "2026-11-24T09:30:00.000000Z"


@pytest.mark.parametrize("event_type", [b"quick-pass-completed", b"com.example.quick-pass-completed"])
def test_a_binary_event_is_taken_by_its_type(event_type: bytes) -> None:
    record = bare(idempotency_key="k-1")
    record.headers = [("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_source", b"/app"), ("ce_type", event_type)]
    assert taken(record).idempotency_key == "k-1"


@pytest.mark.parametrize("event_type", [b"v2-completed", b"not-quick-pass-completed", b"", b"\xff"])
def test_an_event_of_another_type_is_a_dead_letter(event_type: bytes) -> None:
    record = bare()
    record.headers = [("ce_type", event_type)]
    assert refusal(record).reason == "wrong_type"


def test_a_structured_event_is_taken_with_its_trace() -> None:
    run = taken(structured(event_data(), traceparent=TRACEPARENT.decode()))
    assert (run.user_id, run.traceparent[3:35]) == (USER, TRACE)


def test_a_structured_event_may_carry_its_data_as_bytes() -> None:
    assert taken(structured(json.dumps(event_data()).encode())).user_id == USER


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"{", "not_json"),
        (b"[]", "not_an_object"),
        (b"{}", "not_a_cloudevent"),
        (b'{"specversion":"2.0","id":"1","source":"/a","type":"quick-pass-completed"}', "not_a_cloudevent"),
        (b'{"specversion":[],"id":1,"source":{},"type":null,"time":7}', "not_a_cloudevent"),
        (b'{"specversion":"1.0","id":"1","source":"/a","type":"quick-pass-completed","data_base64":"%"}', "not_json"),
        (b'{"specversion":"1.0","id":"1","source":"/a","type":"other","data":{}}', "wrong_type"),
        (b'{"specversion":"1.0","id":"1","source":"/a","type":"quick-pass-completed"}', "not_an_object"),
        (b'{"specversion":"1.0","id":"1","source":"/a","type":"quick-pass-completed","data":{}}', "missing_field"),
        (b'{"specversion":"1.0","id":"1","source":"/a","type":"\\ud800","data":{}}', "wrong_type"),
    ],
)
def test_a_broken_envelope_is_a_dead_letter(value: bytes, reason: str) -> None:
    record = HandMadeRecord(value, [("Content-Type", b"application/cloudevents+json; charset=UTF-8")])
    assert refusal(record).reason == reason


@pytest.mark.parametrize("content_type", [b"application/cloudevents-batch+json", b"application/cloudevents+avro"])
def test_other_formats_of_cloudevents_are_dead_letters(content_type: bytes) -> None:
    assert refusal(HandMadeRecord(b"{}", [("content-type", content_type)])).reason == "wrong_content_type"


NESTED = "[" * 300 + "]" * 300


@pytest.mark.parametrize(
    "unknown", [r'"\u0000"', r'"\ud800"', "NaN", "-Infinity", "1e200000", "9" * 5_000, NESTED], ids=lambda text: text[:12]
)
@pytest.mark.parametrize("in_envelope", [False, True])
def test_what_stands_in_a_field_that_nobody_reads_harms_nothing(unknown: str, in_envelope: bool) -> None:
    data = json.dumps(event_data())[:-1] + f',"unknown":{unknown}}}'
    if in_envelope:
        data = f'{{"specversion":"1.0","id":"1","source":"/a","type":"quick-pass-completed","data":{data}}}'
    headers: list[tuple[str, bytes | None]] = [("content-type", b"application/cloudevents+json")] if in_envelope else []
    run = taken(HandMadeRecord(data.encode(), headers))
    assert "unknown" not in json.loads(run.event)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "no_value"),
        (b"", "not_json"),
        (b"\xff\xfe{", "not_json"),
        (b'{"a":\xff}', "not_json"),
        (b"{'a':1}", "not_json"),
        (b'{"a":' + b"9" * 5_000 + b",}", "not_json"),
        (b"[" * 200_000, "not_json"),
        (b"null", "not_an_object"),
        (b'"text"', "not_an_object"),
        (b"{}", "missing_field"),
    ],
    ids=lambda value: str(value)[:12],
)
def test_a_value_that_is_no_event_is_a_dead_letter(value: bytes | None, reason: str) -> None:
    assert refusal(HandMadeRecord(value)).reason == reason


@pytest.mark.parametrize(
    ("changes", "reason", "field"),
    [
        ({"user_id": "ada"}, "invalid_field", "user_id"),
        ({"user_id": 7}, "invalid_field", "user_id"),
        ({"user_id": "\ud800"}, "invalid_field", "user_id"),
        ({"user_id": None}, "missing_field", "user_id"),
        ({"completed_at": 1_700_000_000}, "invalid_field", "completed_at"),
        ({"completed_at": "2026-11-24T09:30:00"}, "invalid_field", "completed_at"),
        ({"completed_at": "2026-11-24T09:30:00Z\ud800"}, "invalid_field", "completed_at"),
        ({"completed_at": "0001-01-01T00:00:00+14:00"}, "invalid_field", "completed_at"),
        ({"completed_at": "1969-12-31T23:59:59.999999Z"}, "invalid_field", "completed_at"),
        ({"completed_at": "2062-01-01T00:00:00Z"}, "completed_at_in_future", "completed_at"),
        ({"storage_path": "ada.json"}, "storage_path_invalid", "storage_path"),
        ({"storage_path": "exports/../secrets"}, "storage_path_invalid", "storage_path"),
        ({"storage_path": "exports/a\x00b"}, "storage_path_invalid", "storage_path"),
        ({"storage_path": "exports/a\ud800b"}, "storage_path_invalid", "storage_path"),
        ({"storage_path": "exports/" + "x" * 2_000}, "storage_path_invalid", "storage_path"),
        ({"idempotency_key": ""}, "invalid_field", "idempotency_key"),
        ({"idempotency_key": "k" * 201}, "invalid_field", "idempotency_key"),
        ({"idempotency_key": "k\n"}, "invalid_field", "idempotency_key"),
        ({"conversation_count": -1}, "invalid_field", "conversation_count"),
        ({"message_count": float("nan")}, "invalid_field", "message_count"),
        ({"message_count": 10**30}, "invalid_field", "message_count"),
    ],
    ids=str,
)
def test_a_wrong_field_is_a_dead_letter_that_names_it(changes: dict[str, Any], reason: str, field: str) -> None:
    problem = refusal(bare(**changes))
    assert problem.reason == reason
    assert problem.detail.startswith(f"{field}: expected")


@pytest.mark.guarantee("G9")
def test_a_dead_letter_never_says_what_a_field_held() -> None:
    """Details stand in headers, logs and on terminals; a producer's mistake may have put anything into a field."""
    for field in event_data() | {"idempotency_key": "", "conversation_count": 0}:
        for content in ("SECRET words\n", ["SECRET"], {"SECRET": "SECRET"}, "SECRET/../SECRET" * 200):
            assert "SECRET" not in str(refusal(bare(**{field: content})))


def test_an_event_may_be_a_day_ahead_of_its_record_and_no_more() -> None:
    """Clocks differ, but a quick pass in the far future would count as the newest for ever."""
    a_day = 24 * 3600 * 1000
    record = bare()
    record.timestamp = RECORD_MS - a_day
    assert taken(record).completed_at == COMPLETED_AT
    record.timestamp -= 1
    assert refusal(record).reason == "completed_at_in_future"


def test_a_record_without_a_time_is_held_against_the_clock() -> None:
    record = bare(completed_at=(datetime.now(UTC) + timedelta(hours=1)).isoformat())
    record.timestamp = -1
    taken(record)
    record = bare(completed_at=(datetime.now(UTC) + timedelta(days=2)).isoformat())
    record.timestamp = -1
    assert refusal(record).reason == "completed_at_in_future"


def test_a_path_that_the_pattern_does_not_allow_is_a_dead_letter() -> None:
    assert refusal(bare(), AllowedPaths("exports/{user_id}/*")).reason == "storage_path_not_allowed"


def test_the_same_instant_in_another_zone_is_the_same_run() -> None:
    elsewhere = COMPLETED_AT.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert taken(bare(completed_at=elsewhere.isoformat())).run_id == taken(bare()).run_id


def test_the_key_of_the_record_decides_nothing() -> None:
    record = bare()
    record.key = b"somebody else"
    assert taken(record).user_id == USER


def test_the_last_header_of_a_name_counts_and_null_headers_do_no_harm() -> None:
    record = bare()
    record.headers = [("ce_type", b"other"), ("x", None), ("ce_type", b"quick-pass-completed")]
    assert taken(record).user_id == USER


@pytest.mark.parametrize("name", ["traceparent", "ce_traceparent", "TraceParent"])
def test_a_run_continues_the_trace_of_its_event(name: str) -> None:
    record = bare()
    record.headers = [(name, TRACEPARENT)]
    found = re.fullmatch("00-([0-9a-f]{32})-([0-9a-f]{16})-01", taken(record).traceparent)
    assert found is not None
    assert found[1] == TRACE
    assert found[2] != "b7ad6b7169203331"


@pytest.mark.parametrize(
    "malformed",
    [
        None,
        b"",
        b"\xff",
        b"00-" + b"0" * 32 + b"-b7ad6b7169203331-01",
        b"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        b"ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        b"00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
    ],
)
def test_a_malformed_trace_is_replaced_by_a_new_one(malformed: bytes | None) -> None:
    traceparent = continued_trace(malformed)
    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-01", traceparent)
    assert continued_trace(malformed) != traceparent
    assert continued_trace(malformed, TRACEPARENT)[3:35] == TRACE


def test_an_outgoing_event_is_a_cloudevent_in_binary_mode() -> None:
    event_id = uuid.uuid4()
    occurred_at = datetime(2026, 11, 24, 9, 31, 5, 120_000, tzinfo=UTC)
    row = OutboxRow(7, event_id, "memory-saved", USER, '{"ü":1}', TRACEPARENT.decode(), occurred_at)
    message = to_message(row)
    assert message.key == str(USER).encode()
    assert message.value == '{"ü":1}'.encode()
    assert dict(message.headers) == {
        "ce_specversion": b"1.0",
        "ce_id": str(event_id).encode(),
        "ce_source": b"/full-pass",
        "ce_type": b"memory-saved",
        "ce_subject": str(USER).encode(),
        "ce_time": b"2026-11-24T09:31:05.120000Z",
        "ce_dataschema": b"urn:full-pass:schemas:memory-saved:1",
        "content-type": b"application/json",
        "traceparent": TRACEPARENT,
    }
    read = from_binary_event(KafkaMessage(dict(message.headers[:-1]), None, message.value))
    assert read.get_data() == {"ü": 1}


def test_intake_takes_what_publish_sends() -> None:
    event = QuickPassCompleted(user_id=USER, storage_path="exports/ada.json", completed_at=COMPLETED_AT, message_count=3)
    message = to_completion_message(event, continued_trace())
    run = taken(HandMadeRecord(message.value, list(message.headers)))
    assert (run.run_id, json.loads(run.event)["message_count"]) == (taken(bare()).run_id, 3)
    assert dict(to_completion_message(event, continued_trace()).headers)["ce_id"] == dict(message.headers)["ce_id"]


@pytest.mark.parametrize("more", [{}, {"idempotency_key": "k ü", "conversation_count": 3, "message_count": 0}])
def test_what_is_stored_of_an_event_is_what_the_model_says_of_it(more: dict[str, Any]) -> None:
    event = QuickPassCompleted(user_id=USER, storage_path='exports/"ü".json', completed_at=COMPLETED_AT, **more)
    assert event.known_fields() == event.model_dump(mode="json", exclude_none=True)
    message = to_completion_message(event, continued_trace())
    run = taken(HandMadeRecord(message.value, list(message.headers)))
    assert (json.loads(run.event), run.idempotency_key) == (event.known_fields(), event.key())
