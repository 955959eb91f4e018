"""What the rate-limit headers allow."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from consumer.claude.rate_limits import Allowance, allowance


def in_seconds(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def limits(**remaining: str) -> dict[str, str]:
    headers = {f"anthropic-ratelimit-{name.replace('_', '-')}-remaining": value for name, value in remaining.items()}
    return headers | {f"anthropic-ratelimit-{name.replace('_', '-')}-reset": in_seconds(30) for name in remaining}


def test_the_tightest_limit_counts_in_calls_of_the_size_of_the_last_one() -> None:
    found = allowance(limits(requests="50", input_tokens="9000", output_tokens="800"), input_tokens=3000, output_tokens=400)
    assert found is not None
    assert found.calls == 2
    assert found.reset_seconds == pytest.approx(30, abs=2)


def test_a_limit_on_both_kinds_of_tokens_together_counts_too() -> None:
    found = allowance(limits(requests="50", tokens="9000"), input_tokens=3000, output_tokens=1500)
    assert found is not None
    assert found.calls == 2


def test_without_headers_nothing_is_known() -> None:
    assert allowance({}, 10, 10) is None


@pytest.mark.parametrize("reset", ["", "soon", "2026-13-99T00:00:00Z", "9" * 400])
def test_a_reset_that_cannot_be_read_holds_nothing_back(reset: str) -> None:
    headers = {"anthropic-ratelimit-requests-remaining": "0", "anthropic-ratelimit-requests-reset": reset}
    assert allowance(headers, 1, 1) == Allowance(0, 0.0)


@pytest.mark.parametrize("remaining", ["", "-1", "many", "1.5", "9" * 400, "\u0663"])
def test_a_count_that_cannot_be_read_is_no_limit(remaining: str) -> None:
    assert allowance({"anthropic-ratelimit-requests-remaining": remaining}, 1, 1) is None


def test_nobody_is_held_back_for_longer_than_a_minute() -> None:
    headers = {
        "anthropic-ratelimit-requests-remaining": "0",
        "anthropic-ratelimit-requests-reset": in_seconds(3600),
    }
    assert allowance(headers, 1, 1) == Allowance(0, 60.0)
