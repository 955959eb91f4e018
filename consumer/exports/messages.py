"""Which messages of a conversation are visible, in which order, and their text (specification 2)."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from consumer.exports.decoding import Content, Node, NodeMessage, RawConversation, to_content
from consumer.exports.text import clean
from consumer.exports.tree import read_path

TEXT_MAX_CHARS = 5_001
"""All of a message's text that anything ever looks at: one character more than a chunk shows, so that a cut can be seen."""

_WITHOUT_TEXT = ("thoughts", "reasoning_recap", "user_editable_context", "model_editable_context")
_NO_TOOL = ("", "all", "bio")  # bio: what ChatGPT itself noted about the user

Role = Literal["user", "assistant"]


class Message(msgspec.Struct, frozen=True, gc=False):
    """A visible message. `text` is not blank in the file, and is cut to its first 5,001 characters."""

    role: Role
    text: str


def visible_messages(raw: RawConversation) -> tuple[Message, ...]:
    """The messages of the first of `mapping`, `messages`, `chat_messages` that is not empty."""
    if raw.mapping:
        found = map(of_node, read_path(raw.mapping, raw.current_node))
    elif isinstance(raw.messages, list) and raw.messages:
        found = map(of_simplified, raw.messages)
    elif isinstance(raw.chat_messages, list):
        found = map(of_claude, raw.chat_messages)
    else:
        return ()
    return tuple([message for message in found if message is not None])


def of_node(node: Node) -> Message | None:
    """What a node of ChatGPT's tree shows."""
    message = node.message
    if message is None or message.author is None:
        return None
    role = _role(message, message.author.role)
    return _message(role, text_of(message.content)) if role else None


def _role(message: NodeMessage, role: Any) -> Role | None:
    """Who speaks, if the message is visible."""
    metadata = message.metadata
    if metadata is not None and metadata.is_visually_hidden_from_conversation is True:
        return None
    if role == "user":
        return "user"
    if role == "assistant":
        recipient = message.recipient
        is_tool_call = isinstance(recipient, str) and recipient not in _NO_TOOL
        return None if is_tool_call else "assistant"
    is_users = role == "system" and metadata is not None and metadata.is_user_system_message is True
    return "user" if is_users else None


def of_simplified(message: Any) -> Message | None:
    """What a message of a conversation that was simplified before shows."""
    role = message.get("role") if isinstance(message, dict) else None
    return _message(role, text_of(to_content(message.get("content")))) if role in ("user", "assistant") else None


def of_claude(message: Any) -> Message | None:
    """What a message of a conversation of Claude.ai shows."""
    sender = message.get("sender") if isinstance(message, dict) else None
    if sender not in ("human", "assistant"):
        return None
    content, text = message.get("content"), message.get("text")
    blocks = content if isinstance(content, list) else ()
    written = _lines([block.get("text") for block in blocks if isinstance(block, dict) and block.get("type") == "text"])
    return _message("user" if sender == "human" else "assistant", written or (text if isinstance(text, str) else ""))


def _message(role: Role, text: str) -> Message | None:
    return None if not text or text.isspace() else Message(role, clean(text[:TEXT_MAX_CHARS]))


def text_of(content: Content | str | list[Any] | None) -> str:
    """The text of a content: an object's direct `text` or else its parts, a plain string, or an array of parts."""
    if isinstance(content, Content):
        if content.content_type in _WITHOUT_TEXT:
            return ""
        text = content.text
        if isinstance(text, str) and text and not text.isspace():
            return text
        return _joined(content.parts) if isinstance(content.parts, list) else ""
    if isinstance(content, str):
        return content
    return _joined(content) if content else ""


def _joined(parts: list[Any]) -> str:
    """Strings, and the texts of objects, that are not blank, joined by newlines."""
    if len(parts) == 1 and isinstance(parts[0], str):
        return "" if parts[0].isspace() else parts[0]
    return _lines([part.get("text") if isinstance(part, dict) else part for part in parts])


def _lines(texts: list[Any]) -> str:
    return "\n".join([text for text in texts if isinstance(text, str) and text and not text.isspace()])
