"""Takes a request off the wire as the API does: who asks, in which version, how much, and is it JSON."""

from __future__ import annotations

import json
import re
from typing import Any

from aiohttp import web

from sandbox.anthropic.failures import ApiError

MESSAGE_BYTES = 32 * 1024 * 1024
BATCH_BYTES = 256 * 1024 * 1024

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def check_credentials(request: web.Request) -> None:
    """Refuse a request without a key, with a revoked one, or without a version of the API.

    Raises:
        ApiError: 401, or 400 for the version.
    """
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    key = request.headers.get("x-api-key") or (token.strip() if scheme.lower() == "bearer" else "")
    if not key:
        raise ApiError(401, "x-api-key header is required")
    if key.startswith("revoked"):
        raise ApiError(401)
    if not request.headers.get("anthropic-version"):
        raise ApiError(400, "anthropic-version: header is required")


async def read_json(request: web.Request, most_bytes: int) -> Any:
    """The body, decoded; None where there is none. A body that is too large is read to its end and forgotten.

    Raises:
        ApiError: 413 for too many bytes, 400 for what is no JSON.
    """
    pieces: list[bytes] = []
    size = 0
    async for piece in request.content.iter_any():
        size += len(piece)
        if size <= most_bytes:
            pieces.append(piece)
        else:
            pieces.clear()
    if size > most_bytes:
        raise ApiError(413)
    raw = b"".join(pieces)
    return _decoded(raw) if raw else None


def _decoded(raw: bytes) -> Any:
    try:
        value = json.loads(raw)
        if _SURROGATE.search(raw):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ApiError(400, "The request body is not valid JSON: str is not valid UTF-8: surrogates not allowed") from None
    except (ValueError, RecursionError):
        raise ApiError(400, "The request body is not valid JSON") from None
    return value
