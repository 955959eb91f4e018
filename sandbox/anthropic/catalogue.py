"""The models that the stand-in knows, as `/v1/models` tells of them."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from sandbox.anthropic.failures import ApiError

_EPOCH = "1970-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class Model:
    """A model; limits in tokens. The limits are those of the smallest model, whatever its name, so that tests can reach them."""

    id: str
    display_name: str
    line: str
    created_at: str = _EPOCH
    max_input_tokens: int = 200_000
    max_tokens: int = 64_000

    def to_json(self) -> dict[str, Any]:
        """The model as the API shows it."""
        return {
            "type": "model",
            "id": self.id,
            "display_name": self.display_name,
            "created_at": self.created_at,
            "deprecated_at": None,
            "retires_at": None,
            "lifecycle": "active",
            "line": self.line,
            "max_input_tokens": self.max_input_tokens,
            "max_tokens": self.max_tokens,
            "capabilities": None,
        }


MODELS = (
    Model("claude-haiku-5-5", "Claude Haiku 5.5", "haiku"),
    Model("claude-sonnet-5-5", "Claude Sonnet 5.5", "sonnet"),
    Model("claude-opus-5-5", "Claude Opus 5.5", "opus"),
    Model("claude-opus-4-5-20251101", "Claude Opus 4.5", "opus", "2025-11-01T00:00:00Z"),
    Model("claude-haiku-4-5-20251001", "Claude Haiku 4.5", "haiku", "2025-10-01T00:00:00Z"),
    Model("claude-sonnet-4-5-20250929", "Claude Sonnet 4.5", "sonnet", "2025-09-29T00:00:00Z"),
)
_BY_NAME = MappingProxyType(
    {model.id: model for model in MODELS}
    | {model.id[: -len("-20251001")]: model for model in MODELS if model.created_at != _EPOCH}
)


def model_named(name: str) -> Model:
    """The model of an id or an alias.

    Raises:
        ApiError: 404, the model is not known.
    """
    if model := _BY_NAME.get(name):
        return model
    raise ApiError(404, f"model: {name}")


def page_of(items: list[dict[str, Any]], query: dict[str, str]) -> dict[str, Any]:
    """A page of a list with cursors, as the API gives it.

    Raises:
        ApiError: 400, the limit is not a number from 1 to 1000.
    """
    limit = query.get("limit", "20")
    if not limit.isdecimal() or not 1 <= int(limit) <= 1000:
        raise ApiError(400, "limit: Input should be a number from 1 to 1000")
    ids = [item["id"] for item in items]
    size, start, end = int(limit), 0, len(items)
    if (after := query.get("after_id")) in ids:
        start = ids.index(after) + 1
    if (before := query.get("before_id")) in ids:
        end = ids.index(before)
        start = max(start, end - size)
    page = items[start:end][:size]
    more = start > 0 if before else start + size < end
    return {
        "data": page,
        "has_more": more,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
    }
