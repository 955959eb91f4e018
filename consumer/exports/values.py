"""Where JSON values end, found bracket by bracket in text that is in memory and may be malformed or not complete."""

from __future__ import annotations

import re
from collections.abc import Iterator

_SPACE = re.compile(rb"[ \t\r\n]*+")
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_SCALAR = re.compile(rb'[^][{}",:\s]++')
_TO_BRACKET = re.compile(rb'(?:[^"{}\[\]]++|"(?:[^"\\]++|\\.)*+")*+(?:([{\[])|[}\]])', re.DOTALL)

Text = bytes | bytearray | memoryview


class NoValue(ValueError):
    """There is something else where a value was expected."""


def skip_space(text: Text, at: int) -> tuple[int, bytes]:
    """Where the next character that is no white space stands, and that character; nothing at the end of the text."""
    match = _SPACE.match(text, at)
    end = match.end() if match else at
    return end, bytes(text[end : end + 1])


def end_of_value(text: Text, at: int) -> int | None:
    """Where the value that begins at `at` ends: a string, a number or name, or brackets that add up; None if the text does first.

    Raises:
        NoValue: when no value begins there.
    """
    first = bytes(text[at : at + 1])
    if first in (b"{", b"["):
        return _end_of_brackets(text, at)
    match = (_STRING if first == b'"' else _SCALAR).match(text, at)
    if match is None and first not in (b'"', b""):
        raise NoValue
    return match.end() if match else None


def _end_of_brackets(text: Text, at: int) -> int | None:
    depth = 0
    while match := _TO_BRACKET.match(text, at):
        depth += 1 if match.lastindex else -1
        at = match.end()
        if not depth:
            return at
    return None


def members(text: Text) -> Iterator[tuple[bytes, int, int]]:
    """Each member of an object that is complete: its key as it is written, and where its value begins and ends.

    Raises:
        NoValue: when the object is malformed between its members.
    """
    at, char = skip_space(text, 1)
    if char == b"}" and at == len(text) - 1:
        return
    while True:
        end = _complete(end_of_value(text, at))
        key = bytes(text[at:end])
        at, char = skip_space(text, end)
        if not key.startswith(b'"') or char != b":":
            raise NoValue
        begin, _ = skip_space(text, at + 1)
        end = _complete(end_of_value(text, begin))
        yield key, begin, end
        at, char = skip_space(text, end)
        if char == b"}" and at == len(text) - 1:
            return
        if char != b",":
            raise NoValue
        at, _ = skip_space(text, at + 1)


def items(text: Text) -> Iterator[tuple[int, int]]:
    """Where each item of an array that is complete begins and ends.

    Raises:
        NoValue: when the array is malformed between its items.
    """
    at, char = skip_space(text, 1)
    if char == b"]":
        return
    while True:
        end = _complete(end_of_value(text, at))
        yield at, end
        at, char = skip_space(text, end)
        if char == b"]" and at == len(text) - 1:
            return
        if char != b",":
            raise NoValue
        at, _ = skip_space(text, at + 1)


def _complete(end: int | None) -> int:
    if end is None:
        raise NoValue
    return end
