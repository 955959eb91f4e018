"""Whether a request fits the model's context with room for its answer (specification 6, last point)."""

from __future__ import annotations

import json

from consumer.claude.gate import RunClaude
from consumer.claude.models import model_of
from consumer.claude.requests import Request

# Of a model that is not in the table, the least that any Claude model has had for years.
UNKNOWN_MODEL_TOKENS = 200_000
# The API calls its count an estimate, and an asking again adds a few lines to what was counted.
SPARE_TOKENS = 1_000


def room_tokens(model: str, answer_tokens: int) -> int:
    """Tokens that a request to the model may have beside an answer of that size."""
    known = model_of(model)
    context = UNKNOWN_MODEL_TOKENS if known is None else known.context_tokens
    return context - answer_tokens - SPARE_TOKENS


def surely_fits(request: Request, room: int) -> bool:
    """Whether the request fits whatever it says: a token is at least one byte of UTF-8."""
    schema = "" if request.schema is None else json.dumps(request.schema)
    return sum(len(text.encode()) for text in (request.system, request.user, schema)) <= room


async def fits(request: Request, claude: RunClaude) -> bool:
    """Whether the request fits, by the API's own count where its size leaves a doubt."""
    room = room_tokens(claude.model, request.body(claude.model)["max_tokens"])
    return surely_fits(request, room) or await claude.count_tokens(request) <= room
