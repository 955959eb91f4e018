"""From the bytes of one conversation to its tree of nodes or list of messages, whatever is wrong with them.

msgspec reads what is well formed, skipping what nobody asks for. What it refuses (a value of another type, NaN, raw control
characters, lone surrogates) is read once more by the standard library and taken over value by value: one of the wrong type
counts as absent, and a malformed node costs its own message (specification 1).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import msgspec

_MOST_DIGITS = 4_000  # Python refuses to make an integer of more, by default


UNKNOWN = object()


class Author(msgspec.Struct, gc=False):
    role: Any = None


class Metadata(msgspec.Struct, gc=False):
    is_user_system_message: Any = None
    is_visually_hidden_from_conversation: Any = None


class NodeMessage(msgspec.Struct, gc=False):
    author: Author | None = None
    content: Any = None
    metadata: Metadata | None = None
    recipient: Any = None


class Node(msgspec.Struct, gc=False):
    """A node of ChatGPT's tree. `parent` is UNKNOWN where something else than an object stood."""

    message: NodeMessage | None = None
    parent: Any = None
    children: Any = None


class RawConversation(msgspec.Struct, gc=False):
    """A conversation as it stands in the file. Fields of type Any may hold anything."""

    mapping: dict[str, Node] | None = None
    current_node: Any = None
    messages: Any = None
    chat_messages: Any = None
    title: Any = None
    name: Any = None
    create_time: Any = None
    created_at: Any = None
    createdAt: Any = None  # noqa: N815  the field's name in the file
    id: Any = None
    conversation_id: Any = None
    uuid: Any = None


_DECODER = msgspec.json.Decoder(RawConversation)
_FIELDS = tuple(name for name in RawConversation.__struct_fields__ if name != "mapping")


def decode(data: bytes) -> RawConversation | str | None:
    """The conversation that `data` holds; a text that says why the value is none; None where the bytes are no JSON value."""
    if not data.startswith(b"{"):
        return None if _parse(data) is _NOTHING else "it is no object"
    try:
        raw = _DECODER.decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        value = _parse(data)
        if not isinstance(value, dict):
            return None
        raw = _tolerantly(value)
    if raw.mapping is None and not isinstance(raw.messages, list) and not isinstance(raw.chat_messages, list):
        return "it has no mapping and no messages"
    return raw


_NOTHING = object()


def _parse(data: bytes) -> Any:
    """Any JSON value, `_NOTHING` for what is none or is nested too deeply."""
    try:
        text = data.decode("utf-8", "surrogatepass")
        return json.loads(text, strict=False, parse_int=_integer)
    except (ValueError, RecursionError):
        return _NOTHING


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MOST_DIGITS else math.inf


def _tolerantly(value: dict[str, Any]) -> RawConversation:
    mapping = value.get("mapping")
    raw = RawConversation(**{name: value.get(name) for name in _FIELDS})
    if isinstance(mapping, dict):
        raw.mapping = {key: _node(node) for key, node in mapping.items()}
    return raw


def _node(value: Any) -> Node:
    if not isinstance(value, Mapping):
        return Node(parent=UNKNOWN)
    message = value.get("message")
    return Node(
        message=_message(message) if isinstance(message, dict) else None,
        parent=value.get("parent"),
        children=value.get("children"),
    )


def _message(value: dict[str, Any]) -> NodeMessage:
    author, metadata = value.get("author"), value.get("metadata")
    return NodeMessage(
        author=Author(author.get("role")) if isinstance(author, dict) else None,
        content=value.get("content"),
        metadata=_metadata(metadata) if isinstance(metadata, dict) else None,
        recipient=value.get("recipient"),
    )


def _metadata(value: dict[str, Any]) -> Metadata:
    return Metadata(value.get("is_user_system_message"), value.get("is_visually_hidden_from_conversation"))
