"""What the API's `anthropic-ratelimit-*` headers say about the calls that may come next."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

RESET_MAX_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Allowance:
    """Calls like the one just answered that the limits have room for now, and when they are whole again, in seconds."""

    calls: int
    reset_seconds: float


def allowance(headers: Mapping[str, str], input_tokens: int, output_tokens: int) -> Allowance | None:
    """The tightest of the limits, measured in calls of this size; None where the headers name none."""
    found = []
    both = input_tokens + output_tokens
    for name, size in (("requests", 1), ("input-tokens", input_tokens), ("output-tokens", output_tokens), ("tokens", both)):
        remaining = _count(headers.get(f"anthropic-ratelimit-{name}-remaining"))
        if remaining is not None:
            reset_seconds = _seconds_until(headers.get(f"anthropic-ratelimit-{name}-reset"))
            found.append(Allowance(remaining // max(1, size), reset_seconds))
    return min(found, key=lambda each: each.calls, default=None)


def _count(value: str | None) -> int | None:
    return int(value) if value is not None and value.isascii() and value.isdigit() and len(value) < 16 else None


def _seconds_until(value: str | None) -> float:
    """Seconds until an RFC 3339 time, a minute at most; 0 for none or one that can't be read."""
    try:
        moment = datetime.fromisoformat(value or "")
    except ValueError:
        return 0.0
    seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - datetime.now(UTC).timestamp()
    return min(max(0.0, seconds), RESET_MAX_SECONDS) if math.isfinite(seconds) else 0.0
