"""The errors of the API as it words them: `{"type": "error", "error": {"type", "message"}, "request_id"}`."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

_TYPES = MappingProxyType(
    {
        400: "invalid_request_error",
        401: "authentication_error",
        402: "billing_error",
        403: "permission_error",
        404: "not_found_error",
        409: "conflict_error",
        413: "request_too_large",
        429: "rate_limit_error",
        504: "timeout_error",
        529: "overloaded_error",
    }
)
_MESSAGES = MappingProxyType(
    {
        401: "invalid x-api-key",
        403: "Your API key does not have permission to use the specified resource.",
        413: "Request exceeds the maximum size",
        429: "This request would exceed your organization's rate limit. Please try again later.",
        500: "Internal server error",
        503: "Service temporarily unavailable",
        529: "Overloaded",
    }
)
CREDIT = (
    "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or purchase credits."
)


class ApiError(Exception):
    """A refusal. The type follows from the status where none is given, and so does the message."""

    def __init__(self, status: int, message: str | None = None, *, kind: str | None = None) -> None:
        self.status = status
        self.kind = kind or _TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
        self.message = message or _MESSAGES.get(status, f"Error with status {status}")
        super().__init__(f"{status} {self.kind}: {self.message}")

    def body(self, request_id: str) -> dict[str, Any]:
        """The JSON that the client reads."""
        return {"type": "error", "error": {"type": self.kind, "message": self.message}, "request_id": request_id}
