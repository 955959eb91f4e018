"""The part of a JSON document that is in memory while it streams in, and reading it value by value.

Places are offsets from `position`, so they stay right when more is read and what is done with is dropped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from consumer.errors import FinalError
from schemas.events import ErrorCode

_SPACE = re.compile(rb"[ \t\r\n]*+")
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_SCALAR = re.compile(rb'[^][{}",:\s]*+')
_UP_TO_BRACKET = re.compile(rb'(?:[^"{}\[\]]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def unreadable(what: str) -> FinalError:
    """The error of a file that is no export, cut off, damaged, or goes on after its end; `what` never quotes the file."""
    return FinalError(ErrorCode.EXPORT_UNREADABLE, f"The export can't be read: {what}.")


class Window:
    """`buffer` holds the document from before `position`, up to which everything is done with, as far as it was read."""

    def __init__(self, pieces: Iterator[bytes], max_bytes: int) -> None:
        self._pieces = pieces
        self._max_bytes = max_bytes
        self.buffer = bytearray()
        self.position = 0
        while len(self.buffer) < len(_BYTE_ORDER_MARK) and self.extend():
            pass
        if self.buffer.startswith(_BYTE_ORDER_MARK):
            self.position = len(_BYTE_ORDER_MARK)

    def extend(self) -> bool:
        """Read one piece more and drop what is done with. False at the end of the document.

        Raises:
            FinalError: `export_too_large` when what isn't done with, which is at most one conversation, exceeds the limit.
        """
        if len(self.buffer) - self.position > self._max_bytes:
            raise FinalError(
                ErrorCode.EXPORT_TOO_LARGE,
                f"One conversation of the export has more than the {self._max_bytes} bytes that can be held at once.",
            )
        del self.buffer[: self.position]
        self.position = 0
        piece = next(self._pieces, None)
        self.buffer += piece or b""
        return piece is not None

    def advance(self, size: int) -> None:
        """Go on by so many bytes. (`position += …` would add to what the position was before `…` read on.)"""
        self.position += size

    def take(self, size: int) -> bytes:
        """The next `size` bytes; they are done with."""
        with memoryview(self.buffer) as view:
            data = bytes(view[self.position : self.position + size])
        self.position += size
        return data

    def skip_space(self, offset: int = 0) -> tuple[int, bytes]:
        """Where the next character that is no white space stands, and that character; nothing at the document's end."""
        while True:
            offset = self._match(_SPACE, offset) or offset
            char = self._char(offset)
            if char or not self.extend():
                return offset, char

    def end_of_value(self, offset: int) -> int:
        """Where the value that begins at `offset` ends: a string, a number or name, or brackets that add up.

        Raises:
            FinalError: `export_unreadable` when the document ends before, or no value begins there.
        """
        first = self._char(offset)
        if first == b'"':
            return self._end_of_string(offset)
        if first in (b"{", b"["):
            return self._end_of_brackets(offset)
        end = self._match(_SCALAR, offset)
        while end == len(self.buffer) - self.position and self._extend_by_half(offset):
            end = self._match(_SCALAR, offset)
        if not end or end == offset:
            raise unreadable("expected a value, and there is none")
        return end

    def _end_of_string(self, offset: int) -> int:
        while not (end := self._match(_STRING, offset)):
            if not self._extend_by_half(offset):
                raise unreadable("it is cut off inside a string")
        return end

    def _end_of_brackets(self, offset: int) -> int:
        depth = 0
        while True:
            offset = self._match(_UP_TO_BRACKET, offset) or offset
            bracket = self._char(offset)
            if bracket in (b"", b'"'):
                if not self._extend_by_half(offset):
                    raise unreadable("it is cut off")
                continue
            depth += 1 if bracket in (b"{", b"[") else -1
            offset += 1
            if depth == 0:
                return offset

    def _extend_by_half(self, offset: int) -> bool:
        """Read on until what lies behind `offset` has doubled, so that looking at it once more stays linear."""
        wanted = 2 * (len(self.buffer) - self.position - offset)
        extended = self.extend()
        while extended and len(self.buffer) - self.position - offset < wanted:
            if not self.extend():
                break
        return extended

    def _char(self, offset: int) -> bytes:
        return bytes(self.buffer[self.position + offset : self.position + offset + 1])

    def _match(self, pattern: re.Pattern[bytes], offset: int) -> int | None:
        """The offset where a match at `offset` ends. (A match that were kept would keep the buffer from being changed.)"""
        match = pattern.match(self.buffer, self.position + offset)
        return match.end() - self.position if match else None
