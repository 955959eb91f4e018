"""Title, time and id of a conversation (specification 2)."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.unit.exports.examples import read, read_one, simple


def _with(**fields: Any) -> Any:
    return read_one({**simple("a"), **fields})


@pytest.mark.parametrize(
    ("fields", "title"),
    [
        ({"title": "T", "name": "N"}, "T"),
        ({"title": " T ", "name": "N"}, " T "),
        ({"title": " ", "name": "N"}, "N"),
        ({"title": "", "name": "N"}, "N"),
        ({"title": None, "name": "N"}, "N"),
        ({"title": 7, "name": "N"}, "N"),
        ({"title": ["T"], "name": " \n"}, "Untitled"),
        ({}, "Untitled"),
        ({"title": "a\0\ud800"}, "a\ufffd\ufffd"),
    ],
)
def test_the_title_is_the_first_of_title_and_name_that_is_not_blank(fields: dict[str, Any], title: str) -> None:
    assert _with(**fields).title == title


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({"create_time": 1714585031}, 1714585031.0),
        ({"create_time": 1714585031.25}, 1714585031.25),
        ({"create_time": "1714585031.25"}, 1714585031.25),
        ({"create_time": " \n1714585031 "}, 1714585031.0),
        ({"create_time": "1e9"}, 1e9),
        ({"create_time": "20240102"}, 20240102.0),
        ({"create_time": "1970-01-01T00:01:00Z"}, 60.0),
        ({"create_time": "1970-01-01T01:01:00+01:00"}, 60.0),
        ({"create_time": "1970-01-01T00:01:00"}, 60.0),
        ({"create_time": " 1970-01-02 "}, 86_400.0),
        ({"create_time": "9999-12-31T23:59:59Z"}, 253_402_300_799.0),
        ({"create_time": 5, "created_at": 6, "createdAt": 7}, 5.0),
        ({"create_time": 0, "created_at": 6, "createdAt": 7}, 6.0),
        ({"create_time": None, "created_at": "nonsense", "createdAt": 7}, 7.0),
    ],
)
def test_the_time_is_the_first_usable_one(fields: dict[str, Any], seconds: float) -> None:
    assert _with(**fields).create_time == seconds


@pytest.mark.parametrize(
    "value",
    [
        None, True, False, [5], {"a": 5}, "", " ", "nonsense", "1_000", "٣", "nan", "inf", "-5", "0", 0, -5, -0.5, math.nan,
        math.inf, 253_402_300_800, "253402300800", 1714585031000, 10**400, "1e400", "1969-12-31T23:59:59Z",
        "1970-01-01T00:00:00Z", "9999-12-31T23:59:59-01:00", "0001-01-01T00:00:00+14:00", "2024-13-01", "2024-01-01T25:00",
    ],
)  # fmt: skip
def test_what_is_no_usable_time_is_none(value: Any) -> None:
    conversation = _with(create_time=value)
    assert conversation.create_time is None
    assert conversation.created_at is None


def test_the_moment_is_in_utc() -> None:
    assert _with(create_time=86_400.5).created_at == datetime(1970, 1, 2, 0, 0, 0, 500_000, UTC)
    assert _with(create_time=253_402_300_799.9999).created_at.year == 9999


@pytest.mark.parametrize(
    ("fields", "identity"),
    [
        ({"id": "i", "conversation_id": "c", "uuid": "u"}, "i"),
        ({"id": "", "conversation_id": "c", "uuid": "u"}, "c"),
        ({"id": None, "conversation_id": True, "uuid": "u"}, "u"),
        ({"id": 7}, "7"),
        ({"id": 0}, "0"),
        ({"id": -(2**70)}, str(-(2**70))),
        ({"id": 7.5, "uuid": ["u"]}, "conv_0"),
        ({}, "conv_0"),
        ({"id": " "}, " "),
        ({"id": "a\0"}, "a\ufffd"),
    ],
)
def test_the_id_is_the_first_non_empty_string_or_integer(fields: dict[str, Any], identity: str) -> None:
    assert _with(**fields).conversation_id == identity


def test_positions_count_skipped_elements_too() -> None:
    elements = read([simple("a"), 7, {"no": "conversation"}, simple("b")])
    assert [element.index for element in elements] == [0, 1, 2, 3]
    assert elements[3].conversation_id == "conv_3"  # type: ignore[union-attr]


def test_two_conversations_with_one_id_stay_two() -> None:
    assert len(read([{**simple("a"), "id": "i"}, {**simple("b"), "id": "i"}])) == 2
