"""What went wrong with a call, as far as it may be told.

The API's own words are never passed on: an error can quote the request, and the request is a user's conversation
(guarantee G9). What is told is the status, the kind of error from a known list, and the request id.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import get_args

from anthropic import APIStatusError
from anthropic.types.shared import ErrorType

from consumer.claude.models import LEAST_OUTPUT_TOKENS
from consumer.claude.rate_limits import allowance
from consumer.errors import FinalError, Outage
from consumer.errors import OperatorTrouble as OperatorTroubleError
from schemas.events import ErrorCode

# However far away the API puts it, somebody looks again after an hour.
RETRY_AFTER_MAX_SECONDS = 3600.0

_CROWDED = frozenset({429, 503, 529})
_PASSING = frozenset({408, 409, 425, 429})
_ACCOUNT_CODES = frozenset(
    {
        "contract_spend_limit_reached",
        "enforced_spend_limit_reached",
        "organization_on_hold",
        "cmek_key_disabled",
        "cmek_key_unreachable",
        "cmek_key_network_blocked",
        "cmek_context_unavailable",
    }
)
# An account that can't pay is reported as a plain invalid_request_error, told from others by its text alone.
_ACCOUNT_WORDS = ("credit balance", "specified api usage limits")
# These parts of a request are the same in every one, so a complaint about them is the model's. A complaint about this request's
# own begins with `messages` or `prompt`.
_UNFIT = re.compile(r"[\"'`]?(max_tokens|output_config|output_format|thinking|model)\b")
_KINDS = frozenset({*get_args(ErrorType), "request_too_large"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{1,80}")


@dataclass(frozen=True, slots=True)
class Trouble:
    """A call failed in a way that is not its request's fault, so that another one may go well.

    `what` is safe to publish. `outcome` is its metric label. `crowded`: the API asks for fewer calls. `slow`: it took the
    whole deadline to fail. `operator`: somebody has to change something first, and `what` names it.
    """

    what: str
    outcome: str
    retry_after_seconds: float | None = None
    crowded: bool = False
    slow: bool = False
    operator: bool = False

    def to_error(self, retry_after_seconds: float | None) -> Outage:
        """The end of a run's attempt: it waits in the ledger."""
        kind = OperatorTroubleError if self.operator else Outage
        return kind(ErrorCode.MODEL_UNAVAILABLE, self.what, retry_after_seconds)


def of_status(error: APIStatusError, model: str) -> Trouble:
    """The trouble behind an error status.

    Raises:
        FinalError: `model_rejected`, when it is this very request that the API will never take.
    """
    status = error.status_code
    told = _told(error)
    needed = _operators_part(error, model)
    if needed is not None:
        return Trouble(f"{needed} ({told})", f"status_{status}", operator=True)
    if 400 <= status < 500 and status not in _PASSING:
        raise FinalError(ErrorCode.MODEL_REJECTED, f"the model API rejected the request: {told}") from None
    wait_seconds = retry_after_seconds(error.response.headers)
    if wait_seconds is None and status == 429:
        wait_seconds = _reset_seconds(error.response.headers)
    return Trouble(
        f"the model API answered with {told}",
        f"status_{status}",
        wait_seconds,
        crowded=status in _CROWDED,
    )


def _operators_part(error: APIStatusError, model: str) -> str | None:
    """What an operator has to do, if it is theirs to end."""
    words = error.api_message.lower() if isinstance(error.api_message, str) else ""
    if error.status_code == 402 or error.error_code in _ACCOUNT_CODES:
        return _ACCOUNT
    if error.status_code in {400, 403, 429} and any(known in words for known in _ACCOUNT_WORDS):
        return _ACCOUNT
    if error.status_code == 400 and (part := _UNFIT.match(words)) is not None:
        return (
            f"the model {model!r} does not take what every request asks for ({part[1]}; {LEAST_OUTPUT_TOKENS} tokens of output "
            "and structured output are needed): check FULL_PASS_MODEL"
        )
    match error.status_code:
        case 401:
            return "the model API refuses the key: check ANTHROPIC_API_KEY"
        case 403:
            return f"the model API refuses the key, or the model {model!r} to it: check ANTHROPIC_API_KEY and FULL_PASS_MODEL"
        case 404:
            return f"the model API does not know the model {model!r}: check FULL_PASS_MODEL (and ANTHROPIC_BASE_URL)"
        case _:
            return None


_ACCOUNT = (
    "the account behind ANTHROPIC_API_KEY has no credit left, has reached a spend limit or is on hold: see its billing page"
)


def _told(error: APIStatusError) -> str:
    """Status, kind and request id, each only if it is of the form that the API documents."""
    kind = error.type if isinstance(error.type, str) and error.type in _KINDS else None
    parts = [f"status {error.status_code}", kind or ""]
    if error.request_id is not None and _REQUEST_ID.fullmatch(error.request_id):
        parts.append(f"request {error.request_id}")
    return ", ".join(part for part in parts if part)


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """When the API may be asked again: `retry-after-ms`, or `retry-after` in seconds or as a date; at most an hour."""
    for header, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        seconds = _seconds(headers.get(header), unit)
        if seconds is not None:
            return min(max(seconds, 0.0), RETRY_AFTER_MAX_SECONDS)
    return None


def _reset_seconds(headers: Mapping[str, str]) -> float | None:
    """When the limit that is used up is whole again, for an answer that says no more than that."""
    left = allowance(headers, 0, 0)
    return left.reset_seconds if left is not None and left.calls == 0 and left.reset_seconds > 0 else None


def _seconds(value: str | None, unit: float) -> float | None:
    if value is None:
        return None
    try:
        seconds = float(value) * unit
    except ValueError:
        pass
    else:
        return seconds if math.isfinite(seconds) else None
    try:
        moment = parsedate_to_datetime(value)
    except (TypeError, ValueError):
        return None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - datetime.now(UTC)).total_seconds()
