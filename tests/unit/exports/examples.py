"""Exports of every shape, small, in memory."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from consumer.exports.conversations import Conversation, Skipped, read_conversations
from consumer.exports.file import ExportFile
from consumer.exports.limits import ExportLimits
from consumer.exports.messages import Message

LIMITS = ExportLimits(
    max_bytes=10_000_000, max_uncompressed_bytes=50_000_000, max_compression_ratio=2_000, max_conversations=10_000
)


class MemoryFile(ExportFile):
    """An export that lies in memory."""

    def __init__(self, content: bytes) -> None:
        super().__init__(len(content), "etag")
        self._content = content

    def read_range(self, start: int, size: int) -> bytes:
        return self._content[start : start + size]


def read(content: bytes | Any, limits: ExportLimits = LIMITS) -> list[Conversation | Skipped]:
    """Everything that an export yields; what isn't bytes is written as JSON first."""
    if not isinstance(content, bytes):
        content = json.dumps(content).encode()
    with MemoryFile(content) as file:
        return list(read_conversations(file, limits))


def read_one(conversation: bytes | Any) -> Conversation:
    """The only conversation of an export with nothing else in it."""
    if isinstance(conversation, bytes):
        [element] = read(b"[" + conversation + b"]")
    else:
        [element] = read([conversation])
    assert isinstance(element, Conversation), element
    return element


def texts(conversation: bytes | Any) -> list[str]:
    """The texts of a conversation's visible messages."""
    return [message.text for message in read_one(conversation).messages]


def said(conversation: bytes | Any) -> list[tuple[str, str]]:
    """Roles and texts of a conversation's visible messages."""
    return [(message.role, message.text) for message in read_one(conversation).messages]


def node(
    text: Any, parent: str | None = None, children: Iterable[str] = (), role: str = "user", **message: Any
) -> dict[str, Any]:
    """A node of ChatGPT's tree whose message has one part; `text` None: a node without a message."""
    content = {"content_type": "text", "parts": [text]}
    whole = {"author": {"role": role}, "content": content, **message}
    return {"message": None if text is None else whole, "parent": parent, "children": list(children)}


def with_content(content: Any, role: str = "user", **message: Any) -> dict[str, Any]:
    """A conversation of one message with this content."""
    return {"mapping": {"a": {"message": {"author": {"role": role}, "content": content, **message}}}}


def simple(*messages: str) -> dict[str, Any]:
    """A conversation that was simplified already; the user begins."""
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[place % 2], "content": text} for place, text in enumerate(messages)]}


def conversation(*messages: str, title: str = "T", create_time: float | None = None, index: int = 0) -> Conversation:
    """A conversation as it was read; the user begins and the assistant answers each time."""
    made = tuple(Message("user" if place % 2 == 0 else "assistant", text) for place, text in enumerate(messages))
    return Conversation(index, f"conv_{index}", title, create_time, made)
