"""Whatever a producer writes: a run that PostgreSQL takes, or InvalidMessage, and nothing else."""

from __future__ import annotations

import json
import re
import uuid
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from consumer.errors import InvalidMessage
from consumer.kafka.messages import Headers, to_new_run
from consumer.kafka.storage_paths import AllowedPaths
from consumer.postgres.runs import NewRun
from tests.unit.kafka.records import RECORD_MS, USER, HandMadeRecord, bare, event_data

_PATTERNS = [AllowedPaths(""), AllowedPaths("exports/{user_id}/*"), AllowedPaths("**")]
_CALM = settings(deadline=None)  # a machine under load is no fault of the parser
_TEXT = st.one_of(
    st.text(st.characters(exclude_categories=()), max_size=12),
    st.sampled_from(["\0", "\ud800", "a/\ud800", "..", "a/../b", "a" * 201, "exports/" + "x" * 1_020, "1", "true", "null"]),
)
_ANY = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), _TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_TEXT, inner, max_size=3)),
    max_leaves=6,
)
_TIMES = st.one_of(
    st.datetimes().map(lambda moment: moment.isoformat() + "Z"),
    st.builds(
        "{}-{}-{}T{}:{}:{}{}".format,
        st.sampled_from(["0000", "0001", "1969", "2026", "2062", "9999", "10000"]),
        st.sampled_from(["01", "02", "12", "13"]),
        st.sampled_from(["00", "01", "29", "31"]),
        st.sampled_from(["00", "23", "24"]),
        st.sampled_from(["00", "59", "60"]),
        st.sampled_from(["00", "60", "59.9999999999", "59,5"]),
        st.sampled_from(["Z", "z", "", "+14:00", "-14:00", "+23:59", "+99:99", "[Europe/Berlin]", " "]),
    ),
)
_PATHS = st.lists(st.one_of(_TEXT, st.just("exports"), st.just(str(USER))), min_size=1, max_size=4).map("/".join)
_EVENT = st.fixed_dictionaries(
    {
        "user_id": st.one_of(st.uuids().map(str), st.uuids().map(lambda each: each.hex.upper()), _ANY),
        "storage_path": st.one_of(_PATHS, _ANY),
        "completed_at": st.one_of(_TIMES, _ANY),
    },
    optional={
        "idempotency_key": st.one_of(_TEXT, _ANY),
        "conversation_count": st.one_of(st.integers(-1, 2**60), _ANY),
        "message_count": _ANY,
        "unknown": _ANY,
    },
)
_VALID = st.fixed_dictionaries({"idempotency_key": _TEXT, "unknown": _ANY}).map(lambda more: {**event_data(), **more})
_DOCUMENT = st.one_of(_EVENT, _VALID, _ANY)


def _bytes(document: Any) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogatepass")


_VALUE = st.one_of(
    st.none(),
    st.binary(max_size=60),
    _DOCUMENT.map(_bytes),
    _DOCUMENT.map(lambda document: json.dumps(document).encode()),
    _DOCUMENT.map(lambda document: json.dumps(document).encode("utf-16")),
    st.tuples(_EVENT, st.integers(0, 200)).map(lambda cut: _bytes(cut[0])[: cut[1]]),
)
_ENVELOPE = st.fixed_dictionaries(
    {},
    optional={
        "specversion": st.one_of(st.sampled_from(["1.0", "0.3", "1.1", "2.0", "1"]), _ANY),
        "id": _ANY,
        "source": st.one_of(st.just("/app"), _ANY),
        "type": st.one_of(st.sampled_from(["quick-pass-completed", "com.example.quick-pass-completed", "v2-failed"]), _ANY),
        "time": st.one_of(_TIMES, _ANY),
        "datacontenttype": st.one_of(st.sampled_from(["application/json", "text/plain", "application/xml"]), _ANY),
        "dataschema": _ANY,
        "traceparent": _ANY,
        "data": st.one_of(_DOCUMENT, _DOCUMENT.map(json.dumps)),
        "data_base64": st.one_of(_DOCUMENT.map(lambda each: b64encode(_bytes(each)).decode()), _ANY),
    },
)
_WELL_FORMED = {"specversion": "1.0", "id": "1", "source": "/app", "type": "quick-pass-completed"}
_HEADER_NAMES = st.one_of(
    st.sampled_from(
        [
            "ce_type",
            "CE_TYPE",
            "ce_specversion",
            "ce_id",
            "ce_time",
            "content-type",
            "Content-Type",
            "traceparent",
            "ce_traceparent",
        ]
    ),
    _TEXT,
)
_HEADER_VALUES = st.one_of(
    st.none(),
    st.binary(max_size=20),
    st.sampled_from(
        [
            b"quick-pass-completed",
            b"application/json",
            b"application/cloudevents+json",
            b"APPLICATION/CloudEvents+JSON ; charset=x",
        ]
    ),
)
_HEADERS = st.lists(st.tuples(_HEADER_NAMES, _HEADER_VALUES), max_size=6)
_TIMESTAMPS = st.one_of(st.none(), st.just(-1), st.just(RECORD_MS), st.integers(-(2**63), 2**63 - 1))


def outcome(value: bytes | None, headers: Headers = (), timestamp: int | None = RECORD_MS) -> NewRun | InvalidMessage:
    """The run, which must be one that can be stored; or the problem, which must say what was expected."""
    try:
        found = to_new_run(HandMadeRecord(value, headers, timestamp), _PATTERNS[len(value or b"") % len(_PATTERNS)])
    except InvalidMessage as problem:
        _check_problem(problem)
        return problem
    _check_run(found)
    return found


def _check_problem(problem: InvalidMessage) -> None:
    assert problem.reason.isidentifier()
    assert "expected" in problem.detail
    assert problem.detail.isprintable()
    assert len(problem.detail) < 500


def _check_run(run: NewRun) -> None:
    assert isinstance(run.user_id, uuid.UUID)
    for text in (run.idempotency_key, run.event, run.traceparent):
        assert text.encode()  # no lone surrogates
        assert not re.search(r"[\x00-\x1f]|\\u0000|\\ud[89a-f]", text)
    assert 1 <= len(run.idempotency_key) <= 200
    assert json.loads(run.event)["user_id"] == str(run.user_id)
    assert run.completed_at.utcoffset() is not None


@_CALM
@given(_VALUE, _HEADERS, _TIMESTAMPS)
@example(b'"' + b"\\" * 7, [], None)
@example(b"9" * 5_000, [], None)
@example(b"[" * 100_000, [], None)
@example(b'{"unknown":' * 900 + b"1" + b"}" * 900, [], None)
@example(b"\xef\xbb\xbf{}", [], None)
@example(json.dumps(event_data(completed_at="0001-01-01T00:00:00+14:00")).encode(), [], None)
@example(json.dumps(event_data()).encode("utf-16"), [], None)
def test_any_message_is_a_run_or_a_dead_letter(value: bytes | None, headers: Headers, timestamp: int | None) -> None:
    outcome(value, headers, timestamp)


@_CALM
@given(st.one_of(_ENVELOPE, _ENVELOPE.map(lambda each: {**each, **_WELL_FORMED})), _HEADERS)
@example({**_WELL_FORMED, "data": "[" * 100_000}, [])
@example({**_WELL_FORMED, "data": event_data(unknown=[[[[[]]]]]), "time": "0001-01-01T00:00:00+14:00"}, [])
def test_any_envelope_is_a_run_or_a_dead_letter(envelope: dict[str, Any], headers: Headers) -> None:
    """Structured mode: the attributes are the producer's, too."""
    outcome(_bytes(envelope), [*headers, ("content-type", b"application/cloudevents+json")])


def _deep(levels: int) -> bytes:
    return json.dumps({**_WELL_FORMED, "data": event_data()})[:-1].encode() + b',"x":' + b"[" * levels + b"]" * levels + b"}"


@pytest.mark.parametrize("levels", [10, 200, 500, 900, 950, 990, 1_000, 2_000, 100_000])
def test_an_envelope_of_any_depth_is_a_run_or_a_dead_letter(levels: int) -> None:
    """It is parsed, written and parsed again; each of them gives up at a depth of its own."""
    found = outcome(_deep(levels), [("content-type", b"application/cloudevents+json")])
    assert isinstance(found, NewRun | InvalidMessage)


@pytest.mark.parametrize("version", [b"0.3", b"1.1", b"2.0", b"", b"\xff", None])
def test_a_binary_event_of_another_version_of_cloudevents_is_taken_when_its_data_are_an_event(version: bytes | None) -> None:
    """Attributes that nobody needs can't make an event undone: what a later version adds stands beside them."""
    record = bare()
    record.headers = [("ce_specversion", version), ("ce_type", b"quick-pass-completed"), ("ce_futureattribute", b"x")]
    assert to_new_run(record, AllowedPaths("")).user_id == USER


@pytest.mark.parametrize("ahead_ms", [0, 3_600_000, 40 * 365 * 86_400_000])
def test_a_record_that_says_it_comes_from_the_future_does_not_take_its_event_there(ahead_ms: int) -> None:
    """An event that counts as the newest until 2062 would make every later one superseded."""
    record = bare(completed_at="2062-01-01T00:00:00Z")
    record.timestamp = RECORD_MS + ahead_ms
    with pytest.raises(InvalidMessage) as caught:
        to_new_run(record, AllowedPaths(""))
    assert caught.value.reason == "completed_at_in_future"
