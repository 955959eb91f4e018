"""`STORAGE_PATH_PATTERN`: which places a completion event may name."""

from __future__ import annotations

import re
import uuid

from consumer.errors import ConfigurationError


class AllowedPaths:
    """A shell pattern over the whole `storage_path`, case-sensitive.

    `*` and `?` stay inside one segment, `**` crosses `/`, `[abc]` and `[!abc]` are sets, and `{user_id}` is the event's own
    user in lower case, so that an event can't name the export of somebody else. An empty pattern allows every path.

    Raises:
        ConfigurationError: when it is no such pattern.
    """

    def __init__(self, pattern: str) -> None:
        try:
            self._pattern = re.compile(_to_regex(pattern), re.DOTALL) if pattern else None
        except re.error:
            raise ConfigurationError(
                "FULL_PASS_STORAGE_PATH_PATTERN: expected a shell pattern; a set in it, such as [a-z], can't be read"
            ) from None

    def allow(self, storage_path: str, user_id: uuid.UUID) -> bool:
        """Whether the user's event may name this path (without control characters, as the event model makes sure)."""
        return self._pattern is None or self._pattern.fullmatch(f"{user_id}\n{storage_path}") is not None


# The user stands in front of the path, on a line of its own, for `{user_id}` to refer back to: one compiled pattern for all.
_USER_LINE = r"(?P<user>[^\n]*)\n"
_TOKENS = re.compile(
    r"(?P<user>\{user_id\})|(?P<deep>\*\*)|(?P<any>\*)|(?P<one>\?)|\[(?P<no>!?)(?P<set>\]?[^\]]*)\]|(?P<plain>.)", re.DOTALL
)


def _to_regex(pattern: str) -> str:
    return _USER_LINE + "".join(_piece(token) for token in _TOKENS.finditer(pattern))


def _piece(token: re.Match[str]) -> str:
    if token["set"] is not None:
        if not token["set"]:
            return re.escape(token[0])
        members = re.sub(r"([\\\[\]^&~|])", r"\\\1", token["set"])
        return f"(?![/\n])[{'^' if token['no'] else ''}{members}]"
    if token["plain"] is not None:
        return re.escape(token[0])
    return {"user": "(?P=user)", "deep": ".*", "any": "[^/]*", "one": "[^/]"}[token.lastgroup or ""]
