"""Sections 1 and 2 of the specification once more, sentence by sentence, over the whole document at once.

It knows nothing of the service's code, of memory or of speed: what it finds is what the reader has to find.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

NO_TEXT = ("thoughts", "reasoning_recap", "user_editable_context", "model_editable_context")
YEAR_10000 = 253_402_300_800
DECIMAL = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
Object = dict[str, Any]


class Unreadable(Exception):
    """The file is no export, cut off, damaged, or has text after its end."""


@dataclass(frozen=True)
class Found:
    """A conversation with its visible messages (role and whole text)."""

    index: int
    conversation_id: str
    title: str
    create_time: float | None
    messages: tuple[tuple[str, str], ...]


def read_naively(documents: Sequence[bytes]) -> list[Found | int]:
    """The conversations of all documents of an export, and the index of each element that is none."""
    elements = [element for document in documents for element in _elements(_parsed(document))]
    return [_conversation(element, index) if is_conversation(element) else index for index, element in enumerate(elements)]


def _parsed(document: bytes) -> Any:
    try:
        return json.loads(document.decode("utf-8-sig", "surrogatepass"), strict=False, parse_int=_integer)
    except ValueError as error:
        raise Unreadable from error


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= 4_000 else float(digits)


def _elements(top: Any) -> list[Any]:
    if isinstance(top, list):
        return top
    if isinstance(top, dict) and isinstance(top.get("conversations"), list):
        return list(top["conversations"])
    if is_conversation(top):
        return [top]
    raise Unreadable


def is_conversation(element: Any) -> bool:
    """Whether it is an object with `mapping` (object), `messages` or `chat_messages` (arrays)."""
    return isinstance(element, dict) and (
        isinstance(element.get("mapping"), dict)
        or isinstance(element.get("messages"), list)
        or isinstance(element.get("chat_messages"), list)
    )


def _conversation(element: Object, index: int) -> Found:
    return Found(index, _id(element, index), _title(element), _time(element), tuple(_messages(element)))


def _messages(element: Object) -> list[tuple[str, str]]:
    mapping, messages, chat = (element.get(name) for name in ("mapping", "messages", "chat_messages"))
    said: list[tuple[str | None, str]] = []
    if isinstance(mapping, dict) and mapping:
        said = [_of_node(mapping[key]) for key in path(mapping, element.get("current_node"))]
    elif isinstance(messages, list) and messages:
        said = [(_one_of(each.get("role"), "user", "assistant"), text_of(each.get("content"))) for each in _objects(messages)]
    elif isinstance(chat, list):
        said = [_of_claude(each) for each in _objects(chat)]
    return [(role, text) for role, text in said if role is not None and not is_blank(text)]


# The path


def path(mapping: Object, current: Any) -> list[str]:
    """The keys of the nodes of the conversation, from the root down."""
    if isinstance(current, str) and current in mapping:
        return _upwards(mapping, current)[::-1]
    if not any(parent_of(mapping, key) or listed_children(mapping, key) for key in mapping):
        return list(mapping)
    return _downwards(mapping, _root(mapping))


def _upwards(mapping: Object, current: str) -> list[str]:
    way: list[str] = []
    keys = [current]
    while keys and keys[0] not in way:
        way.append(keys[0])
        keys = parent_of(mapping, keys[0]) if isinstance(mapping[keys[0]], dict) else _listing(mapping, keys[0])
    return way


def _listing(mapping: Object, child: str) -> list[str]:
    """Whoever lists a node that is no object as a child: it costs its own message, not those that stand above it."""
    return [key for key in mapping if child in listed_children(mapping, key)]


def _downwards(mapping: Object, root: str) -> list[str]:
    way: list[str] = []
    keys = [root]
    while keys and keys[-1] not in way:
        way.append(keys[-1])
        keys = children(mapping, keys[-1])
    return way


def _root(mapping: Object) -> str:
    listed = [child for key in mapping for child in listed_children(mapping, key)]
    for key in mapping:
        if children(mapping, key) and not parent_of(mapping, key) and key not in listed:
            return key
    return next(iter(mapping))


def parent_of(mapping: Object, key: str) -> list[str]:
    """The parent that a node names, if it exists: none or one."""
    parent = _object(mapping[key]).get("parent")
    return [parent] if isinstance(parent, str) and parent in mapping else []


def listed_children(mapping: Object, key: str) -> list[str]:
    """The children that a node lists, those that exist."""
    listed = _object(mapping[key]).get("children")
    return [each for each in listed if isinstance(each, str) and each in mapping] if isinstance(listed, list) else []


def children(mapping: Object, key: str) -> list[str]:
    """The listed ones that exist, or the nodes that name it as their parent."""
    return listed_children(mapping, key) or [other for other in mapping if parent_of(mapping, other) == [key]]


# Messages and their text


def _of_node(node: Any) -> tuple[str | None, str]:
    message = _object(_object(node).get("message"))
    return _role_of_node(message), text_of(message.get("content"))


def _role_of_node(message: Object) -> str | None:
    metadata = _object(message.get("metadata"))
    role = _object(message.get("author")).get("role")
    recipient = message.get("recipient")
    if metadata.get("is_visually_hidden_from_conversation") is True:
        return None
    if role == "assistant" and isinstance(recipient, str) and recipient not in ("", "all", "bio"):
        return None
    if role == "system" and metadata.get("is_user_system_message") is True:
        return "user"
    return _one_of(role, "user", "assistant")


def _of_claude(message: Object) -> tuple[str | None, str]:
    content, sender = message.get("content"), _one_of(message.get("sender"), "human", "assistant")
    blocks = _objects(content) if isinstance(content, list) else []
    text = _joined([block.get("text") for block in blocks if block.get("type") == "text"])
    return "user" if sender == "human" else sender, _joined([message.get("text")]) if is_blank(text) else text


def text_of(content: Any) -> str:
    """The text of a content, "" where there is none; U+0000 and lone surrogates are replaced already."""
    if isinstance(content, str):
        return clean(content)
    if isinstance(content, list):
        return _joined([each.get("text") if isinstance(each, dict) else each for each in content])
    if not isinstance(content, dict) or content.get("content_type") in NO_TEXT:
        return ""
    direct, parts = _joined([content.get("text")]), content.get("parts")
    return direct if direct or not isinstance(parts, list) else text_of(parts)


def _joined(texts: list[Any]) -> str:
    return "\n".join(clean(text) for text in texts if isinstance(text, str) and not is_blank(clean(text)))


def is_blank(text: str) -> bool:
    """Whether there is nothing but white space, or nothing at all."""
    return text == "" or text.isspace()


def clean(text: str) -> str:
    """With U+FFFD in place of each U+0000 and each lone surrogate."""
    return "".join("\ufffd" if char == "\0" or "\ud800" <= char <= "\udfff" else char for char in text)


# Title, time and id


def _title(element: Object) -> str:
    for name in ("title", "name"):
        value = element.get(name)
        if isinstance(value, str) and not is_blank(clean(value)):
            return clean(value)
    return "Untitled"


def _id(element: Object, index: int) -> str:
    for name in ("id", "conversation_id", "uuid"):
        value = element.get(name)
        if isinstance(value, str) and value != "":
            return clean(value)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
    return f"conv_{index}"


def _time(element: Object) -> float | None:
    for name in ("create_time", "created_at", "createdAt"):
        seconds = _seconds(element.get(name))
        if seconds is not None and math.isfinite(seconds) and 0 < seconds < YEAR_10000:
            return seconds
    return None


def _seconds(value: Any) -> float | None:
    if isinstance(value, str):
        return _seconds_of_text(clean(value).strip())
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(max(0, min(value, YEAR_10000)))  # an integer may be larger than every double


def _seconds_of_text(text: str) -> float | None:
    if DECIMAL.fullmatch(text):
        return float(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _object(value: Any) -> Object:
    return value if isinstance(value, dict) else {}


def _objects(values: list[Any]) -> list[Object]:
    return [each for each in values if isinstance(each, dict)]


def _one_of(value: Any, *names: str) -> str | None:
    return value if isinstance(value, str) and value in names else None
