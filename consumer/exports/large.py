"""Read a conversation that is too large to be decoded at once.

A call into C keeps the event loop of the worker from running, and a tree of all that stands in 100 MB takes gigabytes. So the
bytes are walked through: each node or message is decoded alone, and reduced to what it shows before the next one. One that is
itself large is reduced before it is decoded: to the fields that are asked for, the beginnings of strings and the first parts of
a text. What nobody asks for is passed over by its brackets.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from consumer.errors import FinalError
from consumer.exports.decoding import (
    FIELDS,
    NO_MESSAGES,
    NO_OBJECT,
    Links,
    Malformed,
    Node,
    RawConversation,
    TooDeep,
    decode_any,
    decode_node,
    parse,
    to_node,
)
from consumer.exports.limits import PIECE_BYTES
from consumer.exports.messages import TEXT_MAX_CHARS, Message, of_claude, of_node, of_simplified
from consumer.exports.tree import read_path
from consumer.exports.values import NoValue, Walk
from schemas.events import ErrorCode

MOST_MESSAGES = 250_000
"""Nodes or messages of one conversation: letting go of more at once would hold the event loop up, too."""

_DEEP_PIECE_BYTES = 64  # so few can't be nested too deeply for any parser
_STRING_PIECE_BYTES = 64 * 1024  # at least 5,461 characters
_WHOLE = re.compile(rb'(?:[^"\\]++|(?=\\u[0-9a-fA-F]{4})......|(?=\\[^u])..)*+', re.DOTALL)

_Shape = Mapping[str, "_Shape"]
_PART: _Shape = {"text": {}}
_BLOCK: _Shape = {"type": {}, "text": {}}
_CONTENT: _Shape = {"content_type": {}, "text": {}, "parts": _PART}
_FLAGS: _Shape = {"is_user_system_message": {}, "is_visually_hidden_from_conversation": {}}
_MESSAGE: _Shape = {"author": {"role": {}}, "content": _CONTENT, "metadata": _FLAGS, "recipient": {}}
_IDS: _Shape = {"id": {}}  # of an array of strings
_NODE: _Shape = {"message": _MESSAGE, "parent": {}, "children": _IDS}
_SIMPLIFIED: _Shape = {"role": {}, "content": _CONTENT}
_CLAUDE: _Shape = {"sender": {}, "content": _BLOCK, "text": {}}


class _Shown(Links, gc=False):
    """A node of which only the place and what it shows are kept."""

    message: Message | None = None


_LISTS: Mapping[str, tuple[Callable[[Any], Message | None], _Shape]] = {
    "messages": (of_simplified, _SIMPLIFIED),
    "chat_messages": (of_claude, _CLAUDE),
}


def read_large(data: memoryview, piece_bytes: int = PIECE_BYTES) -> tuple[RawConversation, tuple[Message, ...]] | str | None:
    """As `decode`, and the conversation's visible messages beside its other fields.

    `piece_bytes` is how much is decoded at once.

    Raises:
        FinalError: `export_too_large` when it has more than 250,000 messages.
    """
    try:
        if bytes(data[:1]) != b"{":
            return _no_object(data)
        return _Reader(piece_bytes).read(data)
    except (Malformed, NoValue):
        return None


def _no_object(data: memoryview) -> str:
    walk = Walk(data)
    walk.take()
    walk.require_end()
    return NO_OBJECT


class _Reader:
    """What was found of the three places where messages may stand; `lists` also says how many messages a list has."""

    def __init__(self, piece_bytes: int) -> None:
        self._piece_bytes = piece_bytes
        self._mapping: dict[str, _Shown] | None = None
        self._lists: dict[str, tuple[int, list[Message]]] = {}

    def read(self, data: memoryview) -> tuple[RawConversation, tuple[Message, ...]] | str:
        raw = RawConversation()
        walk = Walk(data)
        for name in self._names(walk):
            if name == "mapping":
                self._mapping = None  # the last of two counts
            self._lists.pop(name, None)
            if name == "mapping" and walk.first == b"{":
                self._mapping = self._nodes(walk)
            elif name in _LISTS and walk.first == b"[":
                self._lists[name] = self._messages(walk, *_LISTS[name])
            else:
                value = self._reduced(walk, {})
                if name in FIELDS:
                    setattr(raw, name, value)
        walk.require_end()
        if self._mapping is None and not self._lists:
            return NO_MESSAGES
        return raw, self._visible(raw.current_node)

    def _visible(self, current_node: Any) -> tuple[Message, ...]:
        if self._mapping:
            return tuple([node.message for node in read_path(self._mapping, current_node) if node.message])
        for name in _LISTS:
            count, messages = self._lists.get(name, (0, []))
            if count:
                return tuple(messages)
        return ()

    def _nodes(self, walk: Walk) -> dict[str, _Shown]:
        nodes = {}
        for name in self._names(walk):
            data = walk.take_small(self._piece_bytes)
            node = to_node(self._reduced(walk, _NODE)) if data is None else _small_node(data)
            nodes[name] = _Shown(node.parent, node.children, of_node(node))
            _require_room(len(nodes))
        return nodes

    def _messages(self, walk: Walk, of: Callable[[Any], Message | None], shape: _Shape) -> tuple[int, list[Message]]:
        count, messages = 0, []
        for count, _ in enumerate(walk.items(), start=1):
            message = of(self._reduced(walk, shape))
            if message:
                messages.append(message)
            _require_room(count)
        return count, messages

    def _names(self, walk: Walk) -> Iterator[str]:
        return (_beginning(name) if len(name) > self._piece_bytes else decode_any(name) for name in walk.members())

    def _reduced(self, walk: Walk, shape: _Shape) -> Any:
        """The value that comes next, if it is small; else what is asked for of it."""
        small = walk.take_small(self._piece_bytes)
        if small is not None:
            try:
                return decode_any(small)
            except TooDeep:
                return _deep(small, shape)
        if walk.first == b'"':
            return _beginning(walk.take())
        if walk.first == b"{" and shape:
            return self._members(walk, shape)
        if walk.first == b"[" and shape is _IDS:
            return self._ids(walk)
        if walk.first == b"[" and shape:
            return self._parts(walk, _BLOCK if shape is _BLOCK else _PART)
        walk.take()
        return None

    def _members(self, walk: Walk, shape: _Shape) -> dict[str, Any]:
        found = {}
        for name in self._names(walk):
            value = self._reduced(walk, shape.get(name, {}))
            if name in shape:
                found[name] = value
        return found

    def _ids(self, walk: Walk) -> list[str]:
        ids = []
        for _ in walk.items():
            found = self._reduced(walk, {})
            if isinstance(found, str):
                ids.append(found)
                _require_room(len(ids))
        return ids

    def _parts(self, walk: Walk, shape: _Shape) -> list[Any]:
        """The first parts that have a text, as many as are ever looked at."""
        kept: list[Any] = []
        chars = 0
        for _ in walk.items():
            if chars > TEXT_MAX_CHARS or len(kept) >= MOST_MESSAGES:
                walk.leave()
                break
            if walk.first == b"[":  # an array among the parts has no text, however deep it is
                walk.take()
                continue
            part = self._reduced(walk, shape)
            text = part.get("text") if isinstance(part, dict) else part
            if not isinstance(text, str) or not text or text.isspace():
                continue
            if shape is not _BLOCK or (isinstance(part, dict) and part.get("type") == "text"):
                kept.append({"type": "text", "text": text} if isinstance(part, dict) else text)
                chars += len(text)
        return kept


def _small_node(data: memoryview) -> Node:
    try:
        return decode_node(data)
    except TooDeep:
        return to_node(_deep(data, _NODE))


def _deep(data: memoryview, shape: _Shape) -> Any:
    """What is asked for of a value that no parser takes as a whole."""
    return _Reader(_DEEP_PIECE_BYTES)._reduced(Walk(data), shape)  # noqa: SLF001 - its own


def _require_room(messages: int) -> None:
    if messages > MOST_MESSAGES:
        raise FinalError(
            ErrorCode.EXPORT_TOO_LARGE,
            f"One conversation of the export has more than the {MOST_MESSAGES} messages that can be held at once.",
        )


def _beginning(data: memoryview) -> str:
    """A string's first 5,001 characters and more; where these are blank, also its first one that isn't."""
    text = ""
    begin, last = 1, len(data) - 1
    while begin < last and (len(text) < TEXT_MAX_CHARS or text.isspace()):
        match = _WHOLE.match(data, begin, min(last, begin + _STRING_PIECE_BYTES))
        end = match.end() if match else begin
        while begin < end < last and data[end] & 0xC0 == 0x80:  # inside of a character
            end -= 1
        if end == begin:
            raise Malformed
        piece: str = parse(memoryview(b'"' + data[begin:end] + b'"'))
        blank = len(text) >= TEXT_MAX_CHARS
        text = text[:TEXT_MAX_CHARS] + (piece.lstrip()[:1] if blank else piece)
        begin = end
    return text
