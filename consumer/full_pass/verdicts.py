"""What can be wrong with an answer before anybody reads it."""

from __future__ import annotations

from enum import StrEnum

from consumer.claude.requests import Answer


class Verdict(StrEnum):
    """Why an answer is unusable; recorded with it."""

    TRUNCATED = "truncated"
    REFUSED = "refused"
    INVALID = "invalid"


def verdict_of_stop(answer: Answer) -> Verdict | None:
    """The verdict that follows from how the answer ended, or None if it came to its own end."""
    match answer.stop_reason:
        case "max_tokens" | "model_context_window_exceeded":
            return Verdict.TRUNCATED
        case "refusal":
            return Verdict.REFUSED
        case "end_turn" | "stop_sequence" | None:
            return None
        case _:
            return Verdict.INVALID
