"""A request as the endpoints see it, and what they give back to be sent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sandbox.anthropic.answers import Question, question_of
from sandbox.anthropic.checks import check_fits, check_params, input_tokens_of
from sandbox.anthropic.messages import Asked


@dataclass(frozen=True)
class Call:
    """One request whose credentials were good. `body` is the decoded JSON; `origin` is where the client reached us."""

    body: Any
    query: dict[str, str]
    path: dict[str, str]
    origin: str
    request_id: str

    @cached_property
    def question(self) -> Question:
        """What the body asks for, if it is a messages request."""
        return question_of(self.body)

    @cached_property
    def asked(self) -> Asked:
        """The body as a checked messages request.

        Raises:
            ApiError: what the API refuses about it.
        """
        model = check_params(self.body)
        tokens = input_tokens_of(self.body)
        check_fits(tokens, model)
        return Asked(self.body, self.question, model, tokens)


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes out: a body, or `pieces` one after the other. The tokens are those that the answer costs."""

    body: bytes = b""
    content_type: str = "application/json"
    pieces: Iterator[bytes] | None = None
    status: int = 200
    input_tokens: int = 0
    output_tokens: int = 0


def json_reply(value: Any, *, input_tokens: int = 0, output_tokens: int = 0) -> Reply:
    """A reply of JSON, non-ASCII as it is."""
    body = json.dumps(value, ensure_ascii=False).encode()
    return Reply(body, input_tokens=input_tokens, output_tokens=output_tokens)
