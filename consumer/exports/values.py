"""Where JSON values end, found bracket by bracket in text that is in memory and may be malformed or not complete.

No call into C is given more than `PIECE_BYTES` of it: such a call keeps the event loop of the worker from running.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from consumer.exports.limits import PIECE_BYTES

_SPACE = re.compile(rb"[ \t\r\n]*+")
# No alternative can fail once it has begun: before Python 3.11.5 a possessive group goes on from where the last one failed.
_IN_STRING = re.compile(rb'(?:[^"\\]++|(?=\\.)..)*+', re.DOTALL)
_SCALAR = re.compile(rb'[^][{}",:\s]++')
_TO_BRACKET = re.compile(rb'(?:[^"{}\[\]]++|(")(?:[^"\\]++|(?=\\.)..)*+("?))*+(?:([{\[])|([}\]])|)', re.DOTALL)
_STRING, _ITS_END, _OPENED, _CLOSED = 1, 2, 3, 4
_QUOTE = ord('"')

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
    if first == b'"':
        return _end_of_string(text, at)
    match = _SCALAR.match(text, at)
    if match is None and first:
        raise NoValue
    return match.end() if match else None


def _end_of_string(text: Text, at: int) -> int | None:
    at += 1
    while at < len(text):
        match = _IN_STRING.match(text, at, at + PIECE_BYTES)
        end = match.end() if match else at
        if end < len(text) and text[end] == _QUOTE:
            return end + 1
        if end == at:  # a backslash is the last that there is
            return None
        at = end
    return None


def _end_of_brackets(text: Text, at: int, depth: int = 0) -> int | None:
    while at < len(text):
        match = _TO_BRACKET.match(text, at, at + PIECE_BYTES)
        if match is None:
            return None
        at = match.end()
        if match.lastindex == _OPENED:
            depth += 1
        elif match.lastindex == _CLOSED:
            depth -= 1
            if not depth:
                return at
        elif match[_ITS_END] == b"":
            end = _end_of_string(text, match.start(_STRING))
            if end is None:
                return None
            at = end
    return None


class Walk:
    """Goes through an object or array that is complete, from value to value, and looks into those that it is asked to."""

    def __init__(self, text: memoryview) -> None:
        self._text = text
        self._at = 0

    @property
    def first(self) -> bytes:
        """The first character of the value that comes next."""
        return bytes(self._text[self._at : self._at + 1])

    def take(self) -> memoryview:
        """The value that comes next, which is passed.

        Raises:
            NoValue: when none comes.
        """
        begin, end = self._at, end_of_value(self._text, self._at)
        if end is None:
            raise NoValue
        self._at = end
        return self._text[begin:end]

    def take_small(self, max_bytes: int) -> memoryview | None:
        """The value that comes next, which is passed; None, and nothing is, if it has more bytes.

        Raises:
            NoValue: when none comes.
        """
        piece = self._text[self._at : self._at + max_bytes + 1]
        end = end_of_value(piece, 0)
        if end is None or end > max_bytes:
            return None
        self._at += end
        return piece[:end]

    def leave(self) -> None:
        """Pass what is left of the innermost array or object that was gone into.

        Raises:
            NoValue: when it has no end.
        """
        end = _end_of_brackets(self._text, self._at, depth=1)
        if end is None:
            raise NoValue
        self._at = end

    def members(self) -> Iterator[memoryview]:
        """The names of the object that comes next, as they are written; before each next one its value has to be passed.

        Raises:
            NoValue: when the object is malformed between its members.
        """
        for _ in self._parts(b"}"):
            if self.first != b'"':
                raise NoValue
            name = self.take()
            self._at, char = skip_space(self._text, self._at)
            if char != b":":
                raise NoValue
            self._at, _ = skip_space(self._text, self._at + 1)
            yield name

    def items(self) -> Iterator[None]:
        """Once for each item of the array that comes next, which has to be passed.

        Raises:
            NoValue: when the array is malformed between its items.
        """
        return self._parts(b"]")

    def _parts(self, closing: bytes) -> Iterator[None]:
        self._at, char = skip_space(self._text, self._at + 1)
        if char == closing:
            self._at += 1
            return
        while True:
            yield
            end, char = skip_space(self._text, self._at)
            self._at = end + 1
            if char == closing:
                return
            if char != b",":
                raise NoValue
            self._at, _ = skip_space(self._text, self._at)

    def require_end(self) -> None:
        """Make sure that nothing comes any more.

        Raises:
            NoValue: when something does.
        """
        if self._at != len(self._text):
            raise NoValue
