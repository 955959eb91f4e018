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


class Content(msgspec.Struct, gc=False):
    content_type: Any = None
    text: Any = None
    parts: Any = None


class NodeMessage(msgspec.Struct, gc=False):
    author: Author | None = None
    content: Content | str | list[Any] | None = None
    metadata: Metadata | None = None
    recipient: Any = None


class Links(msgspec.Struct, gc=False):
    """Where a node stands in ChatGPT's tree. `parent` is UNKNOWN where something else than an object stood."""

    parent: Any = None
    children: Any = None


class Node(Links, gc=False):
    """A node of ChatGPT's tree."""

    message: NodeMessage | None = None


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


_CONVERSATION = msgspec.json.Decoder(RawConversation)
_NODE = msgspec.json.Decoder(Node)
_ANY: msgspec.json.Decoder[Any] = msgspec.json.Decoder()
FIELDS = tuple(name for name in RawConversation.__struct_fields__ if name != "mapping")
_REFUSED = (msgspec.MsgspecError, UnicodeError, RecursionError)


NO_OBJECT = "it is no object"
NO_MESSAGES = "it has no mapping and no messages"


class Malformed(ValueError):
    """The bytes are no JSON value."""


class TooDeep(Malformed):
    """They may be one, but are nested so deeply that no parser takes them."""


def decode(data: memoryview) -> RawConversation | str | None:
    """The conversation that `data` holds; a text that says why the value is none; None where the bytes are no JSON value.

    Raises:
        TooDeep: when it can't be decoded at once.
    """
    try:
        if bytes(data[:1]) != b"{":
            parse(data)
            return NO_OBJECT
        raw = _at_once(data)
    except TooDeep:
        raise
    except Malformed:
        return None
    if raw.mapping is None and not isinstance(raw.messages, list) and not isinstance(raw.chat_messages, list):
        return NO_MESSAGES
    return raw


def _at_once(data: memoryview) -> RawConversation:
    try:
        return _CONVERSATION.decode(data)
    except _REFUSED:
        return _tolerantly(parse(data))


def decode_node(data: memoryview) -> Node:
    """One node of a conversation's mapping.

    Raises:
        Malformed: when the bytes are no JSON value.
    """
    try:
        return _NODE.decode(data)
    except _REFUSED:
        return to_node(parse(data))


def decode_any(data: memoryview) -> Any:
    """Any JSON value.

    Raises:
        Malformed: when the bytes are none.
    """
    try:
        return _ANY.decode(data)
    except _REFUSED:
        return parse(data)


def parse(data: memoryview) -> Any:
    """Any JSON value, with everything that is accepted beyond JSON.

    Raises:
        Malformed: when the bytes are none. TooDeep, which is one: when that can't be told.
    """
    try:
        text = str(data, "utf-8", "surrogatepass")
        return json.loads(text, strict=False, parse_int=_integer)
    except RecursionError:
        raise TooDeep from None
    except ValueError:
        raise Malformed from None


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MOST_DIGITS else math.inf


def _tolerantly(value: dict[str, Any]) -> RawConversation:
    mapping = value.get("mapping")
    raw = RawConversation(**{name: value.get(name) for name in FIELDS})
    if isinstance(mapping, dict):
        raw.mapping = {key: to_node(node) for key, node in mapping.items()}
    return raw


def to_node(value: Any) -> Node:
    """A node that the standard library read."""
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
        content=to_content(value.get("content")),
        metadata=_metadata(metadata) if isinstance(metadata, dict) else None,
        recipient=value.get("recipient"),
    )


def to_content(value: Any) -> Content | str | list[Any] | None:
    """A content that the standard library read; None for what has no text."""
    if isinstance(value, dict):
        return Content(value.get("content_type"), value.get("text"), value.get("parts"))
    return value if isinstance(value, str | list) else None


def _metadata(value: dict[str, Any]) -> Metadata:
    return Metadata(value.get("is_user_system_message"), value.get("is_visually_hidden_from_conversation"))
