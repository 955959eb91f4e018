"""What is asked of the model, and what it answered."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["facts", "reduction", "memory", "sections"]

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
        """The request exactly as it goes over the wire, without sampling parameters."""
        body: dict[str, Any] = {
            "model": model,
            "max_tokens": self.max_tokens,
            "system": self.system,
            "messages": [{"role": "user", "content": self.user}],
        }
        if self.schema is not None:
            body["output_config"] = {"format": {"type": "json_schema", "schema": dict(self.schema)}}
        return body

    def expected_tokens(self) -> tuple[int, int]:
        """Input and output tokens that the request is expected to cost; four bytes of UTF-8 are one."""
        schema = json.dumps(dict(self.schema)) if self.schema else ""
        data = len(self.user.encode()) // 4
        output = self.max_tokens
        if self.kind in _OUTPUT_SHARES:
            output = min(output, int(data * _OUTPUT_SHARES[self.kind]) + 1)
        return data + len(self.system.encode()) // 4 + len(schema) // 4, output

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
