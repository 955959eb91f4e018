"""What is asked of the model, and what it answered."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from consumer.claude.models import model_of, tokens_of_text

Kind = Literal["facts", "reduction", "memory", "sections"]

# A model that thinks whatever it is told, or of which nothing is known, gets this much more room, and is expected to use a part.
THINKING_MAX_TOKENS = 8_192
_THINKING_TOKENS = 1_000

# What an answer is expected to hold, as a share of the request's data. Documents come close to their limit.
_OUTPUT_SHARES: Mapping[Kind, float] = {"facts": 0.25, "reduction": 0.5}


@dataclass(frozen=True, slots=True)
class Request:
    """One question: instructions in `system`, data alone in `user` (design, "Model requests").

    With a `schema` (JSON Schema of an object) the answer is structured output; without one it is plain text.
    """

    kind: Kind
    system: str
    user: str
    max_tokens: int
    schema: Mapping[str, Any] | None = None

    def body(self, model: str) -> dict[str, Any]:
        """The request exactly as it goes over the wire, without sampling parameters.

        A model that thinks before it answers is told not to, or to think little: `max_tokens` is for the answer.
        """
        known = model_of(model)
        room = THINKING_MAX_TOKENS if _may_think(model) else 0
        body: dict[str, Any] = {
            "model": model,
            "max_tokens": self.max_tokens + room,
            "system": self.system,
            "messages": [{"role": "user", "content": self.user}],
        }
        output: dict[str, Any] = {}
        if known is not None and known.thinking == "always":
            output["effort"] = "low"
        elif known is not None and known.thinking != "on request":
            body["thinking"] = {"type": known.thinking}
        if self.schema is not None:
            output["format"] = {"type": "json_schema", "schema": dict(self.schema)}
        return {**body, "output_config": output} if output else body

    def expected_tokens(self, model: str | None = None) -> tuple[int, int]:
        """Input and output tokens that the request is expected to cost; four bytes of UTF-8 are one, or as the model counts."""
        schema = json.dumps(dict(self.schema)) if self.schema else ""
        data = _tokens(model, self.user)
        output = self.max_tokens
        if self.kind in _OUTPUT_SHARES:
            output = min(output, int(data * _OUTPUT_SHARES[self.kind]) + 1)
        if model is not None and _may_think(model):
            output += _THINKING_TOKENS
        return data + _tokens(model, self.system) + _tokens(model, schema), output

    def sha256(self, model: str) -> str:
        """The key under which the answer is recorded: SHA-256, in hex, of the whole body as canonical JSON."""
        canonical = json.dumps(self.body(model), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode("ascii")).hexdigest()


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as it came, bought just now or `recorded` before. `text` is its text blocks, joined.

    Whether it is usable is for the stage to judge: `stop_reason` may be `max_tokens` or `refusal`.
    """

    request_sha256: str
    text: str
    stop_reason: str | None
    input_tokens: int
    output_tokens: int
    recorded: bool


def _may_think(model: str) -> bool:
    known = model_of(model)
    return known is None or known.thinking == "always"


def _tokens(model: str | None, text: str) -> int:
    size = len(text.encode("utf-8", "surrogatepass"))
    return size // 4 if model is None else tokens_of_text(model, size)
