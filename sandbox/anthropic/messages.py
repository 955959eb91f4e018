"""Answers as the Messages API gives them: the message, its stop reason and usage, and the same as server-sent events."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sandbox.anthropic.answers import Question, answer_to
from sandbox.anthropic.catalogue import Model
from sandbox.anthropic.failures import CREDIT, ApiError
from sandbox.anthropic.script import Fault
from sandbox.anthropic.tokens import count_tokens, cut_to_tokens

_EVENT_CHARS = 400


@dataclass(frozen=True, slots=True)
class Told:
    """A text with the reason why it stops there."""

    text: str
    stop_reason: str
    output_tokens: int
    stop_sequence: str | None = None


def raise_scripted(fault: Fault | None) -> None:
    """Raise what a fault of the kinds `status` and `credit`, or an errored `batch_result`, asks for.

    Raises:
        ApiError: of the status that was scripted.
    """
    if fault is None:
        return
    if fault.kind == "credit":
        raise ApiError(400, CREDIT)
    if fault.kind == "status" or (fault.kind == "batch_result" and fault.result == "errored"):
        raise ApiError(fault.status or 500, fault.message, kind=fault.error_type)


@dataclass(frozen=True, slots=True)
class Asked:
    """A checked messages request."""

    params: dict[str, Any]
    question: Question
    model: Model
    input_tokens: int


def message_to(asked: Asked, fault: Fault | None, tier: str = "standard") -> dict[str, Any]:
    """The message that answers a request, bent by a fault of the kinds that show in an answer."""
    told = _told(asked, fault)
    refused = told.stop_reason == "refusal"
    return {
        "id": f"msg_01{secrets.token_hex(11)}",
        "type": "message",
        "role": "assistant",
        "model": asked.model.id,
        "content": [] if refused else [{"type": "text", "text": told.text}],
        "stop_reason": told.stop_reason,
        "stop_sequence": told.stop_sequence,
        "stop_details": {"type": "refusal", "category": None, "explanation": None} if refused else None,
        "usage": usage(asked.input_tokens, told.output_tokens, tier),
    }


def usage(input_tokens: int, output_tokens: int, tier: str) -> dict[str, Any]:
    """The bill of an answer; nothing is ever cached."""
    return {
        "input_tokens": input_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "output_tokens": output_tokens,
        "service_tier": tier,
    }


def _told(asked: Asked, fault: Fault | None) -> Told:
    kind = fault.kind if fault else None
    if kind == "refusal":
        return Told("", "refusal", 1)
    text = fault.text if fault and kind == "text" else answer_to(asked.question)
    if kind == "max_tokens":
        return Told(text[: len(text) // 2], "max_tokens", asked.question.max_tokens)
    if kind == "invalid_json":
        text = _broken(text)
    if kind == "wrong_schema":
        text = _lacking(text)
    return _within_limits(text, asked)


def _within_limits(text: str, asked: Asked) -> Told:
    """The text up to the first stop sequence, the request's limit, or the end of the model's context."""
    for sequence in asked.params.get("stop_sequences") or ():
        if sequence in text:
            text = text[: text.index(sequence)]
            return Told(text, "stop_sequence", count_tokens(text), sequence)
    room = asked.model.max_input_tokens - asked.input_tokens
    limit = min(asked.question.max_tokens, room)
    cut = cut_to_tokens(text, limit)
    if cut == text:
        return Told(text, "end_turn", max(1, count_tokens(text)))
    return Told(cut, "max_tokens" if limit == asked.question.max_tokens else "model_context_window_exceeded", limit)


def _broken(text: str) -> str:
    """A text that looks like the answer and is no JSON."""
    return text[: len(text) * 2 // 3].rstrip("}] \n") + "…"


def _lacking(text: str) -> str:
    """The answer as JSON of the wrong shape: its last field is missing, and the last one of the first object inside."""
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        return "{}"
    kept = dict(list(value.items())[:-1])
    for name, inner in kept.items():
        if isinstance(inner, dict):
            kept[name] = dict(list(inner.items())[:-1])
            break
    return json.dumps(kept, ensure_ascii=False)


def events_of(message: dict[str, Any], fault: Fault | None, request_id: str) -> Iterator[bytes]:
    """A message as server-sent events, from `message_start` to `message_stop`; `stream_error` ends it half-way."""
    started = {**message, "content": [], "stop_reason": None, "stop_sequence": None, "stop_details": None}
    started["usage"] = {**message["usage"], "output_tokens": 1}
    yield _event("message_start", message=started)
    yield _event("ping")
    if fault is not None and fault.kind == "stream_error":
        error = ApiError(fault.status or 529, fault.message, kind=fault.error_type)
        yield _event("error", **{name: value for name, value in error.body(request_id).items() if name != "type"})
        return
    for index, block in enumerate(message["content"]):
        yield _event("content_block_start", index=index, content_block={"type": "text", "text": ""})
        text = block["text"]
        for start in range(0, len(text), _EVENT_CHARS):
            delta = {"type": "text_delta", "text": text[start : start + _EVENT_CHARS]}
            yield _event("content_block_delta", index=index, delta=delta)
        yield _event("content_block_stop", index=index)
    delta = {name: message[name] for name in ("stop_reason", "stop_sequence", "stop_details")}
    yield _event("message_delta", delta=delta, usage={"output_tokens": message["usage"]["output_tokens"]})
    yield _event("message_stop")


def _event(kind: str, **fields: Any) -> bytes:
    data = json.dumps({"type": kind, **fields}, ensure_ascii=False)
    return f"event: {kind}\ndata: {data}\n\n".encode()
