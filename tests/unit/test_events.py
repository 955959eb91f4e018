"""The events: which values they take, and what follows from them."""

from __future__ import annotations

import hashlib
import json
import uuid
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.events import (
    FULL_PASS_NAMESPACE,
    QuickPassCompleted,
    Usage,
    V2Completed,
    V2Failed,
    derived_idempotency_key,
    event_id_of,
    run_id_of,
    to_utc_text,
)

USER = uuid.UUID("0b8f5c1e-8d5a-4a57-9c55-3d3f3b1f6a01")
AT = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)


def taken(**changes: Any) -> QuickPassCompleted:
    values = {"user_id": str(USER), "storage_path": "exports/ada.json", "completed_at": "2026-11-24T09:30:00Z", **changes}
    return QuickPassCompleted.model_validate(values)


@pytest.mark.parametrize(
    "path",
    ["b/k", "exports/2026/11/ada.json", "b/.hidden", "b/..twice", "b/...", "b/a..b", "b/trailing.", "b/Zoë's file?.json", "b/ "],
)
def test_a_plain_path_is_taken(path: str) -> None:
    assert taken(storage_path=path).storage_path == path


@pytest.mark.parametrize(
    "path",
    [
        *("", "b", "/b/k", "b/", "b//k", "b/./k", "b/../k", "../k", "b/..", "b/.", "b\\k/x"),
        *("b/k\n", "b/\x00", "b/\x7f", "b/\x85", "b/\ud800", "b/" + "x" * 1023, 7, None),
    ],
)
def test_a_path_that_could_lead_elsewhere_is_refused(path: Any) -> None:
    with pytest.raises(ValidationError):
        taken(storage_path=path)


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=40))
def test_a_path_is_plain_where_each_segment_is(path: str) -> None:
    segments = path.split("/")
    plain = len(segments) > 1 and not any(segment in {"", ".", ".."} for segment in segments) and "\\" not in path
    try:
        taken(storage_path=path)
    except ValidationError:
        assert not plain
    else:
        assert plain


@pytest.mark.parametrize("moment", ["2026-11-24T09:30:00", "2026-11-24", "1764000000", 1764000000, True, None, "yesterday", ""])
def test_a_time_without_a_zone_or_in_another_form_is_refused(moment: Any) -> None:
    with pytest.raises(ValidationError):
        taken(completed_at=moment)


@pytest.mark.parametrize("key", ["", "x" * 201, "a\tb", "a\u0000", "\ud800", 7])
def test_a_key_that_no_table_or_header_takes_is_refused(key: Any) -> None:
    with pytest.raises(ValidationError):
        taken(idempotency_key=key)


@pytest.mark.parametrize("count", [-1, 2**53, 1.5, "7", True])
def test_a_count_is_a_whole_number_that_json_keeps_exactly(count: Any) -> None:
    with pytest.raises(ValidationError):
        taken(conversation_count=count)
    assert taken(conversation_count=2**53 - 1).conversation_count == 2**53 - 1


def test_unknown_fields_are_ignored_and_not_kept() -> None:
    assert "more" not in taken(more={"a": 1}).model_dump()


def test_the_derived_key_is_that_of_the_contract() -> None:
    """Publishers in other languages compute it, too."""
    text = f"{USER}\nexports/ada.json\n2026-11-24T09:30:00.000000Z"
    assert taken().key() == hashlib.sha256(text.encode()).hexdigest()
    assert taken(idempotency_key="mine").key() == "mine"
    assert taken(user_id=str(USER).upper(), completed_at="2026-11-24T11:30:00+02:00").key() == taken().key()
    assert derived_idempotency_key(USER, "exports/ada.json", AT) == taken().key()


@given(st.uuids(), st.text(st.characters(codec="utf-8"), max_size=20), st.integers(0, 2**62))
def test_a_runs_id_is_the_uuid5_of_user_key_and_generation(user: uuid.UUID, key: str, generation: int) -> None:
    expected = uuid.uuid5(FULL_PASS_NAMESPACE, f"{user}\n{key}\n{generation}")
    assert run_id_of(user, key, generation) == expected
    assert run_id_of(user, key, generation).version == 5


def test_an_events_id_follows_from_run_and_type_alone() -> None:
    run_id = run_id_of(USER, "key", 0)
    assert event_id_of(run_id, "v2-failed") == uuid.uuid5(run_id, "v2-failed") != event_id_of(run_id, "v2-completed")


@given(st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30)), st.integers(-1439, 1439))  # noqa: DTZ001
def test_times_stand_in_utc_with_microseconds(moment: datetime, minutes: int) -> None:
    zoned = moment.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    text = to_utc_text(zoned)
    assert len(text) == len("2026-11-24T09:30:00.000000Z")
    assert datetime.fromisoformat(text) == zoned


def test_every_field_of_an_outgoing_event_is_present_where_it_is_null() -> None:
    usage = Usage(model_calls=1, input_tokens=2, output_tokens=3, cost_usd=None)
    assert json.loads(usage.model_dump_json())["cost_usd"] is None
    failed = V2Failed(
        user_id=USER,
        idempotency_key="k",
        generation=0,
        run_id=USER,
        profile_version=None,
        error_code="internal",
        error_detail="",
        stage="starting",
        attempts=1,
        memory_saved=False,
        failed_at=AT,
    )
    data = json.loads(failed.model_dump_json())
    assert set(data) == set(V2Failed.model_fields)
    assert (data["profile_version"], data["failed_at"]) == (None, "2026-11-24T09:30:00.000000Z")


def test_nothing_may_be_missing_from_an_outgoing_event() -> None:
    assert all(field.is_required() for model in (V2Completed, V2Failed, Usage) for field in model.model_fields.values())


def test_a_detail_longer_than_500_characters_is_no_event() -> None:
    with pytest.raises(ValidationError, match="error_detail"):
        V2Failed.model_validate({"error_detail": "x" * 501})


def test_a_zone_of_hours_alone_and_a_count_like_1_0_are_read_as_what_they_are() -> None:
    """As PostgreSQL writes times, and as JSON Schema takes integers."""
    written = taken(completed_at="2026-11-24 10:30:00.25+01", message_count=3.0)
    assert written.completed_at == datetime(2026, 11, 24, 9, 30, 0, 250_000, tzinfo=UTC)
    assert written.message_count == 3
    for wrong in (3.5, "3", True, float("inf")):
        with pytest.raises(ValidationError):
            taken(message_count=wrong)
