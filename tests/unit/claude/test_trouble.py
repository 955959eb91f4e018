"""When the API may be asked again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.claude.trouble import RETRY_AFTER_MAX_SECONDS, retry_after_seconds


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "-3"}, 0),
        ({"retry-after": "99999999"}, RETRY_AFTER_MAX_SECONDS),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
    ],
)
def test_a_retry_after_is_seconds_or_milliseconds_and_at_most_an_hour(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_seconds(headers) == seconds


def test_a_retry_after_may_be_a_date() -> None:
    moment = datetime.now(UTC) + timedelta(seconds=100)
    seconds = retry_after_seconds({"retry-after": format_datetime(moment, usegmt=True)})
    assert seconds is not None
    assert 90 < seconds <= 100


@given(st.text())
def test_any_header_is_read_or_left_alone(value: str) -> None:
    seconds = retry_after_seconds({"retry-after": value})
    assert seconds is None or 0 <= seconds <= RETRY_AFTER_MAX_SECONDS
