"""The part of a JSON document that is in memory while it streams in.

Places are offsets from `position`, so they stay right when more is read and what is done with is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from consumer.errors import FinalError
from consumer.exports.values import NoValue, end_of_value, skip_space
from schemas.events import ErrorCode

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_DROP_FROM_BYTES = 1024 * 1024

T = TypeVar("T")


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

    @property
    def held_bytes(self) -> int:
        """How much was read that isn't done with."""
        return len(self.buffer) - self.position

    def extend(self) -> bool:
        """Read one piece more and drop what is done with. False at the end of the document.

        Raises:
            FinalError: `export_too_large` when what isn't done with, which is at most one conversation, exceeds the limit.
        """
        if self.held_bytes > self._max_bytes:
            raise FinalError(
                ErrorCode.EXPORT_TOO_LARGE,
                f"One conversation of the export has more than the {self._max_bytes} bytes that can be held at once.",
            )
        self._drop()
        piece = next(self._pieces, None)
        self.buffer += piece or b""
        return piece is not None

    def _drop(self) -> None:
        del self.buffer[: self.position]
        self.position = 0

    def advance(self, size: int) -> None:
        """Go on by so many bytes. (`position += …` would add to what the position was before `…` read on.)"""
        self.position += size
        if self.position >= _DROP_FROM_BYTES:
            self._drop()

    def decoded(self, size: int, decode: Callable[[memoryview], T]) -> T:
        """What `decode` makes of the next `size` bytes, which it must not keep."""
        with memoryview(self.buffer) as whole, whole[self.position : self.position + size] as view:
            return decode(view)

    def skip_space(self, offset: int = 0) -> tuple[int, bytes]:
        """Where the next character that is no white space stands, and that character; nothing at the document's end."""
        while True:
            place, char = skip_space(self.buffer, self.position + offset)
            offset = place - self.position
            if char or not self.extend():
                return offset, char

    def end_of_value(self, offset: int) -> int:
        """Where the value that begins at `offset` ends.

        Raises:
            FinalError: `export_unreadable` when the document ends before, or no value begins there.
        """
        try:
            while (end := end_of_value(self.buffer, self.position + offset)) is None or end == len(self.buffer):
                if self._extend_by_half(offset):
                    continue
                if end is None:
                    raise unreadable("it is cut off")
                break
        except NoValue:
            raise unreadable("there is something else where a value was expected") from None
        return end - self.position

    def _extend_by_half(self, offset: int) -> bool:
        """Read on until what lies behind `offset` has doubled, so that looking at it once more stays linear."""
        wanted = 2 * (len(self.buffer) - self.position - offset)
        extended = self.extend()
        while extended and len(self.buffer) - self.position - offset < wanted:
            if not self.extend():
                break
        return extended
