"""Cut the top level of an export into its conversations while it streams in (specification 1).

Where an object of the array ends is guessed: at the next place that looks like the last end of one, such as `}, {"title"`. The
guess is right if what stands before it decodes as one value, for then no other end is possible. If it is wrong, the brackets are
counted by operations that run in C: text between two `},{` is reduced to its quotes, then to the brackets outside of strings.
A span that still doesn't decode is read bracket by bracket. So each byte is looked at a few times at most.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import TypeVar

from consumer.exports.window import Window, unreadable

MAX_CONVERSATION_BYTES = 128 * 1024 * 1024

_BOUNDARY = re.compile(rb"\}[ \t\r\n]*+,[ \t\r\n]*+\{")
_SEPARATOR = re.compile(rb'(\}[ \t\r\n]*+,[ \t\r\n]*+)\{[ \t\r\n]*+"[^"\\]{1,40}"')
_GUESS_BYTES = 4 * 1024 * 1024
_NAME_MAX_BYTES = 100  # 13 escapes and two quotes
_MAY_GO_ON = b" \t\r\n,}\\"  # at the end of what was read: a boundary or an escape that is not complete
_OPENING = (b"{", b"[")
_NOT_STRUCTURE = bytes(set(range(256)) - set(b'"{}[]'))

T = TypeVar("T")


def split(
    pieces: Iterator[bytes], decode: Callable[[memoryview], T | None], max_conversation_bytes: int = MAX_CONVERSATION_BYTES
) -> Iterator[tuple[T | None, bool]]:
    """The elements of a JSON array, of the array `conversations` of an object, or that object as a whole.

    Yields each as `decode` gives it, None for one that it does not take, and whether it is the whole document. Holds one
    element and one piece at a time.

    Raises:
        FinalError: `export_unreadable` when the brackets don't add up, the text is cut off or goes on after its end;
            `export_too_large` when one element has more than `max_conversation_bytes`.
    """
    window = Window(pieces, max_conversation_bytes)
    offset, opening = window.skip_space()
    window.advance(offset)
    if opening == b"[":
        window.advance(1)
        for value in _array(window, decode):
            yield value, False
    elif opening == b"{":
        if _enter_conversations(window):
            for value in _array(window, decode):
                yield value, False
            _leave_object(window)
        else:
            size = window.end_of_value(0)
            value = window.decoded(size, decode)
            window.advance(size)
            yield value, True
    else:
        came = "it begins with something else" if opening else "there is nothing but white space"
        raise unreadable(f"expected a JSON array or object, and {came}")
    if window.skip_space()[1]:
        raise unreadable("there is text after its end; expected one JSON value, not one on each line")


def _enter_conversations(window: Window) -> bool:
    """Go behind the opening bracket of the object's array `conversations`; False, staying where it is, without one."""
    offset = 1
    while True:
        offset, char = window.skip_space(offset)
        if char == b"}" or not char:
            return False
        key_end = window.end_of_value(offset)
        key = window.buffer[window.position + offset : window.position + key_end]
        offset = _expect(window, key_end, b":")
        offset, char = window.skip_space(offset)
        if char == b"[" and _is_conversations(key):
            window.advance(offset + 1)
            return True
        offset, char = window.skip_space(window.end_of_value(offset))
        offset += 1 if char == b"," else 0


def _is_conversations(key: bytes | bytearray) -> bool:
    """Whether a member's name, as it is written, is `conversations`; any of its characters may be written as an escape."""
    if b"\\" not in key:
        return key == b'"conversations"'
    try:
        return bool(json.loads(bytes(key[:_NAME_MAX_BYTES]), strict=False) == "conversations")
    except ValueError:
        return False


def _leave_object(window: Window) -> None:
    """Read the members behind the array and the closing bracket."""
    offset, char = window.skip_space()
    while char == b",":
        offset, _ = window.skip_space(offset + 1)
        offset, _ = window.skip_space(_expect(window, window.end_of_value(offset), b":"))
        window.advance(window.end_of_value(offset))
        offset, char = window.skip_space()
    window.advance(offset)
    window.advance(_expect(window, 0, b"}"))


def _expect(window: Window, offset: int, wanted: bytes) -> int:
    offset, char = window.skip_space(offset)
    if char != wanted:
        raise unreadable(f"expected '{wanted.decode()}' and something else came, or it is cut off")
    return offset + 1


def _array(window: Window, decode: Callable[[memoryview], T | None]) -> Iterator[T | None]:
    """The elements of an array whose opening bracket was just passed. Afterwards the closing one has been."""
    offset, char = window.skip_space()
    window.advance(offset)
    if char == b"]":
        window.advance(1)
        return
    separator = None
    while True:
        size = _guessed_size(window, separator) if separator else None
        value = window.decoded(size, decode) if size else None
        if separator and size and value is not None:
            window.advance(size + separator.gap_bytes)
            yield value
            continue
        size = _counted_size(window)
        if size is None:
            break
        separator = _separator(window, size)
        value = window.decoded(size, decode)
        if value is not None:
            window.advance(window.skip_space(_expect(window, size, b","))[0])
            yield value
        elif (yield from _one_by_one(window, decode, size)):
            return
    yield from _one_by_one(window, decode, None)


@dataclass(frozen=True, slots=True)
class _Separator:
    """What stands from an object's last bracket to the name of the next one's first value; most exports say that each time."""

    text: bytes
    gap_bytes: int  # between the brackets


def _separator(window: Window, size: int) -> _Separator | None:
    match = _SEPARATOR.match(window.buffer, window.position + size - 1)
    return _Separator(match[0], len(match[1]) - 1) if match else None


def _guessed_size(window: Window, separator: _Separator) -> int | None:
    """The size of the next object if such a separator ends it; it may as well stand inside the object."""
    looked_at = 0
    while (place := window.buffer.find(separator.text, window.position + looked_at)) < 0:
        held = window.held_bytes
        if held > _GUESS_BYTES or not window.extend():
            return None
        looked_at = max(0, held - len(separator.text))
    return place + 1 - window.position


def _counted_size(window: Window) -> int | None:
    """The size of the next object that another one follows, by its brackets; None if the array or the document ends before."""
    nesting = _Nesting()
    counted = decided = looked_at = 0
    while nesting.depth >= 0:
        decided, looked_at = _decided(window, decided, looked_at), window.held_bytes
        boundary = _find_boundary(window, counted, decided)
        nesting.go_on(window.buffer[window.position + counted : window.position + (boundary or decided)])
        counted = boundary or decided
        if boundary and not nesting.depth and not nesting.in_string:
            return boundary
        if not boundary and not window.extend():
            break
    return None


class _Nesting:
    """How deep below the array the text has come to stand, and whether inside a string."""

    def __init__(self) -> None:
        self.depth = 0
        self.in_string = False

    def go_on(self, text: bytes | bytearray) -> None:
        """Count the brackets of `text`, which goes on where the last one ended and doesn't end after a backslash."""
        if b"\\" in text:
            text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
        strings = text.translate(None, _NOT_STRUCTURE).split(b'"')
        outside = b"".join(strings[1 if self.in_string else 0 :: 2])
        self.depth += outside.count(b"{") + outside.count(b"[") - outside.count(b"}") - outside.count(b"]")
        self.in_string ^= len(strings) % 2 == 0


def _decided(window: Window, decided: int, looked_at: int) -> int:
    """The offset up to which no boundary and no escape can go on in what was not read yet; it was `decided` before."""
    end = window.held_bytes
    while end > looked_at and window.buffer[window.position + end - 1] in _MAY_GO_ON:
        end -= 1
    return end if end > looked_at else decided


def _find_boundary(window: Window, start: int, end: int) -> int | None:
    """The offset behind the closing bracket of the first `},{` between two offsets."""
    match = _BOUNDARY.search(window.buffer, window.position + start, window.position + end)
    return match.start() + 1 - window.position if match else None


def _one_by_one(window: Window, decode: Callable[[memoryview], T | None], size: int | None) -> Generator[T | None, None, bool]:
    """The elements that begin within the next `size` bytes, or all that follow; read bracket by bracket.

    Returns whether the array has ended; else the position is where the next element begins.
    """
    done = 0
    while size is None or done < size:
        offset, first = window.skip_space()
        window.advance(offset)
        end = window.end_of_value(0)
        value = window.decoded(end, decode)
        window.advance(end)
        if value is None and first not in _OPENING:
            raise unreadable("an element of its array is no JSON")
        yield value
        after, char = window.skip_space()
        if char == b",":
            after, _ = window.skip_space(after + 1)
            window.advance(after)
        elif char == b"]":
            window.advance(after + 1)
            return True
        else:
            raise unreadable("expected ',' or ']' behind an element of its array, or it is cut off")
        done += offset + end + after
    return False
