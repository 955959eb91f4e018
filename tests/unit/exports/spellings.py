"""The many ways to write one JSON value."""

from __future__ import annotations

import json
from dataclasses import dataclass
from random import Random
from typing import Any


@dataclass(frozen=True)
class Token:
    """Something that `json.dumps` would write otherwise or not at all, as it stands in the file."""

    text: str


class Pairs(list[tuple[str, Any]]):
    """The members of an object, in which a name may stand twice."""


SHORT = {'"': '\\"', "\\": "\\\\", "/": "\\/", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
SPACES = ("", " ", "\n", "\t", "\r\n  ", "   \n")


class Spelling:
    """Writes values: escapes, white space and the order of members differ from one to the next."""

    def __init__(self, chance: Random) -> None:
        self._chance = chance
        self._spaces = chance.choice([("",), (" ",), SPACES])
        self._escapes = chance.choice([(_raw,), (_ascii,), (_raw, _ascii, _short, _escaped)])
        self._shuffled = chance.choice([False, False, True])

    def document(self, value: Any) -> bytes:
        """With white space around, and sometimes with a byte order mark."""
        mark = self._chance.choice(["", "", "", "\ufeff"])
        return (mark + self._space() + self.text(value) + self._space()).encode("utf-8", "surrogatepass")

    def text(self, value: Any) -> str:
        """A value as JSON."""
        if isinstance(value, Token):
            return value.text
        if isinstance(value, str):
            return '"' + self._chance.choice(self._escapes)(value) + '"'
        if isinstance(value, Pairs | dict):
            return self._object(value if isinstance(value, Pairs) else self._members(value))
        if isinstance(value, list):
            return "[" + self._listed(map(self.text, value)) + "]"
        return json.dumps(value)

    def _members(self, value: dict[str, Any]) -> Pairs:
        members = Pairs(value.items())
        if self._shuffled:
            self._chance.shuffle(members)
        return members

    def _object(self, members: Pairs) -> str:
        written = (self.text(name) + self._space() + ":" + self._space() + self.text(value) for name, value in members)
        return "{" + self._listed(written) + "}"

    def _listed(self, written: Any) -> str:
        return self._space() + (self._space() + "," + self._space()).join(written) + self._space()

    def _space(self) -> str:
        return self._chance.choice(self._spaces)


def _raw(text: str) -> str:
    """Control characters, surrogates and all as they are."""
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _ascii(text: str) -> str:
    return json.dumps(text)[1:-1]


def _short(text: str) -> str:
    """Every escape that has a letter, even the slash."""
    return "".join(SHORT.get(char, char) for char in text)


def _escaped(text: str) -> str:
    """Every character by its number, in capitals."""
    units = text[:100].encode("utf-16-be", "surrogatepass").hex().upper()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4)) + _raw(text[100:])
