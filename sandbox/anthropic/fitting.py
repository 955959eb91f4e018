"""Makes a value that fits a schema out of a candidate, and out of words of the request where there is no candidate."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable
from typing import Any, Final

ABSENT: Final = object()

_ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_EPOCH = "1970-01-01"


class Words:
    """Pieces of the request's text, handed out in order and round again; the same text gives the same pieces."""

    def __init__(self, pieces: Iterable[str]) -> None:
        found = list(dict.fromkeys(piece for piece in pieces if piece))
        self._found = found
        self._next = itertools.cycle(found or [""])

    def next(self) -> str:
        """The next piece; an empty string where the text has none."""
        return next(self._next)

    def date(self) -> str:
        """The first ISO date in the pieces."""
        return next((found.group(0) for piece in self._found if (found := _ISO_DATE.search(piece))), _EPOCH)


def fit(candidate: Any, schema: dict[str, Any], words: Words) -> Any:
    """The candidate, bent until it fits; `ABSENT` makes a value from the words alone."""
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return candidate if candidate in schema["enum"] else schema["enum"][len(words.next()) % len(schema["enum"])]
    if options := schema.get("anyOf") or schema.get("allOf"):
        return fit(candidate, _option(candidate, options), words)
    kind = schema["type"]
    if isinstance(kind, list):
        return fit(candidate, _option(candidate, [{**schema, "type": one} for one in kind]), words)
    if kind == "object":
        values = candidate if isinstance(candidate, dict) else {}
        return {name: fit(values.get(name, ABSENT), inner, words) for name, inner in schema.get("properties", {}).items()}
    if kind == "array":
        return _list_of(candidate, schema, words)
    if kind == "string":
        return _string(candidate, schema, words)
    return _scalar(candidate, kind, words)


def _option(candidate: Any, options: list[dict[str, Any]]) -> dict[str, Any]:
    wanted = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number"}
    suits = [option for option in options if option.get("type") == wanted.get(type(candidate))]
    return (suits or [option for option in options if option.get("type") != "null"] or options)[0]


def _list_of(candidate: Any, schema: dict[str, Any], words: Words) -> list[Any]:
    items = schema.get("items", {"type": "string"})
    if candidate is ABSENT:
        return [fit(ABSENT, items, words)]
    values = candidate if isinstance(candidate, list) else [candidate]
    fitted = [fit(value, items, words) for value in values]
    return fitted or [fit(ABSENT, items, words)] * schema.get("minItems", 0)


def _string(candidate: Any, schema: dict[str, Any], words: Words) -> str:
    formats: dict[str, Callable[[], str]] = {
        "date": words.date,
        "date-time": lambda: f"{words.date()}T00:00:00Z",
        "time": lambda: "00:00:00Z",
        "duration": lambda: "P1D",
        "email": lambda: "nobody@example.com",
        "hostname": lambda: "example.com",
        "uri": lambda: "https://example.com/",
        "ipv4": lambda: "192.0.2.1",
        "ipv6": lambda: "2001:db8::1",
        "uuid": lambda: "00000000-0000-4000-8000-000000000000",
    }
    if made := formats.get(schema.get("format", "")):
        return made()
    if candidate is ABSENT:
        return words.next()
    return ", ".join(map(str, candidate)) if isinstance(candidate, list) else str(candidate)


def _scalar(candidate: Any, kind: str, words: Words) -> Any:
    given = isinstance(candidate, (int, float))
    if kind == "boolean":
        return candidate if isinstance(candidate, bool) else bool(words.next())
    if kind == "integer":
        return int(candidate) if given else len(words.next())
    if kind == "number":
        return float(candidate) if given else float(len(words.next()))
    return None
