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

from consumer.exports.values import NoValue, items, members

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


LARGE_BYTES = 8 * 1024 * 1024
"""A conversation with more is decoded node by node: a call into C keeps the event loop of the worker from running."""

_CONVERSATION = msgspec.json.Decoder(RawConversation)
_NODE = msgspec.json.Decoder(Node)
_ANY: msgspec.json.Decoder[Any] = msgspec.json.Decoder()
_SKIPPED = msgspec.json.Decoder(msgspec.Raw)
_FIELDS = tuple(name for name in RawConversation.__struct_fields__ if name != "mapping")
_REFUSED = (msgspec.MsgspecError, UnicodeError, RecursionError)


class Malformed(ValueError):
    """The bytes are no JSON, or nested so deeply that no parser takes them."""


def decode(data: memoryview, large_bytes: int = LARGE_BYTES) -> RawConversation | str | None:
    """The conversation that `data` holds; a text that says why the value is none; None where the bytes are no JSON value."""
    try:
        if not _begins(data, b"{"):
            _parse(data)
            return "it is no object"
        raw = _in_parts(data) if len(data) > large_bytes else _at_once(data)
    except (Malformed, NoValue):
        return None
    if raw.mapping is None and not isinstance(raw.messages, list) and not isinstance(raw.chat_messages, list):
        return "it has no mapping and no messages"
    return raw


def _begins(data: memoryview, char: bytes) -> bool:
    return bytes(data[:1]) == char


def _at_once(data: memoryview) -> RawConversation:
    try:
        return _CONVERSATION.decode(data)
    except _REFUSED:
        return _tolerantly(_parse(data))


def _in_parts(data: memoryview) -> RawConversation:
    raw = RawConversation()
    for key, begin, end in members(data):
        name = _parse(memoryview(key))
        with data[begin:end] as value:
            if name == "mapping":
                raw.mapping = _nodes(value) if _begins(value, b"{") else None
            elif name in _FIELDS:
                setattr(raw, name, _list(value) if _begins(value, b"[") else _any(value))
            else:
                _check(value)
    return raw


def _nodes(data: memoryview) -> dict[str, Node]:
    nodes = {}
    for key, begin, end in members(data):
        with data[begin:end] as value:
            try:
                node = _NODE.decode(value)
            except _REFUSED:
                node = _node(_parse(value))
        nodes[_parse(memoryview(key))] = node
    return nodes


def _list(data: memoryview) -> list[Any]:
    found = []
    for begin, end in items(data):
        with data[begin:end] as value:
            found.append(_any(value))
    return found


def _check(data: memoryview) -> None:
    """Nobody asks for the value; yet it has to be one."""
    try:
        _SKIPPED.decode(data)
    except _REFUSED:
        _parse(data)


def _any(data: memoryview) -> Any:
    try:
        return _ANY.decode(data)
    except _REFUSED:
        return _parse(data)


def _parse(data: memoryview) -> Any:
    """Any JSON value, with everything that is accepted beyond JSON."""
    try:
        text = str(data, "utf-8", "surrogatepass")
        return json.loads(text, strict=False, parse_int=_integer)
    except (ValueError, RecursionError):
        raise Malformed from None


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
