"""What the API refuses in a messages request, in the order in which it looks."""

from __future__ import annotations

import json
from typing import Any

from sandbox.anthropic.answers import text_of
from sandbox.anthropic.catalogue import Model, model_named
from sandbox.anthropic.failures import ApiError
from sandbox.anthropic.schema_rules import first_violation
from sandbox.anthropic.tokens import count_tokens

_SAMPLING = ("temperature", "top_p", "top_k")
_REQUIRED = ("model", "max_tokens", "messages")
_KNOWN = frozenset(
    (*_REQUIRED, *_SAMPLING, "cache_control", "container", "diagnostics", "inference_geo", "metadata", "output_config")
) | frozenset(("service_tier", "speed", "stop_sequences", "stream", "system", "thinking", "tool_choice", "tools"))
_TOKENS_A_REQUEST = 8
_TOKENS_A_MESSAGE = 4
_MOST_NAMED = 1


def check_params(params: Any, *, counting: bool = False) -> Model:
    """Refuse what the API refuses about the parameters of a messages request (or of `count_tokens`), and find its model.

    Raises:
        ApiError: 400 for a parameter, 404 for a model.
    """
    if not isinstance(params, dict):
        raise ApiError(400, "Input should be a valid dictionary")
    for name in _REQUIRED:
        if name not in params and not (counting and name == "max_tokens"):
            raise ApiError(400, f"{name}: Field required")
    if unknown := sorted(set(params) - _KNOWN)[:_MOST_NAMED]:
        raise ApiError(400, f"{unknown[0]}: Extra inputs are not permitted")
    for name in _SAMPLING:
        if params.get(name) is not None:
            raise ApiError(400, f"`{name}` is deprecated for this model.")
    if not isinstance(params["model"], str):
        raise ApiError(400, "model: Input should be a valid string")
    model = model_named(params["model"])
    _check_max_tokens(params, model)
    _check_messages(params["messages"])
    _check_stops(params.get("stop_sequences"))
    _check_format(params.get("output_config"))
    return model


def _check_max_tokens(params: dict[str, Any], model: Model) -> None:
    if "max_tokens" not in params:
        return
    value = params["max_tokens"]
    if isinstance(value, bool) or not isinstance(value, int):
        raise ApiError(400, "max_tokens: Input should be a valid integer")
    if value < 1:
        raise ApiError(400, "max_tokens: must be greater than or equal to 1")
    if value > model.max_tokens:
        limit = f"which is the maximum allowed number of output tokens for {model.id}"
        raise ApiError(400, f"max_tokens: {value} > {model.max_tokens}, {limit}")


def _check_messages(messages: Any) -> None:
    if not isinstance(messages, list):
        raise ApiError(400, "messages: Input should be a valid list")
    if not messages:
        raise ApiError(400, "messages: at least one message is required")
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in {"user", "assistant"}:
            raise ApiError(400, f"messages.{index}.role: Input should be 'user' or 'assistant'")
        if "content" not in message:
            raise ApiError(400, f"messages.{index}.content: Field required")
        if not text_of(message["content"]).strip():
            raise ApiError(400, f"messages.{index}: {message['role']} messages must have non-empty content")


def _check_stops(sequences: Any) -> None:
    if sequences is None:
        return
    if not isinstance(sequences, list) or not all(isinstance(each, str) and each.strip() for each in sequences):
        raise ApiError(400, "stop_sequences: each stop sequence must contain non-whitespace")


def _check_format(config: Any) -> None:
    wanted = config.get("format") if isinstance(config, dict) else None
    if wanted is None:
        return
    if not isinstance(wanted, dict) or wanted.get("type") != "json_schema":
        raise ApiError(400, "output_config.format.type: Input should be 'json_schema'")
    if wrong := first_violation(wanted.get("schema")):
        raise ApiError(400, f"output_config.format.schema: {wrong}")


def input_tokens_of(params: dict[str, Any]) -> int:
    """The stand-in's own count of a whole request that has been checked."""
    total = _TOKENS_A_REQUEST + count_tokens(text_of(params.get("system")))
    for message in params["messages"]:
        total += _TOKENS_A_MESSAGE + count_tokens(text_of(message["content"]))
    extras = {name: params[name] for name in ("tools", "output_config") if params.get(name)}
    return total + (count_tokens(json.dumps(extras, ensure_ascii=False)) if extras else 0)


def check_fits(tokens: int, model: Model) -> None:
    """Refuse a prompt beyond the model's context.

    Raises:
        ApiError: 400 with both numbers.
    """
    if tokens > model.max_input_tokens:
        raise ApiError(400, f"prompt is too long: {tokens} tokens > {model.max_input_tokens} maximum")
