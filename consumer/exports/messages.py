"""Which messages of a conversation are visible, in which order, and their text (specification 2)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from consumer.exports.decoding import NodeMessage, RawConversation
from consumer.exports.text import clean
from consumer.exports.tree import read_path

TEXT_MAX_CHARS = 5_001
"""All of a message's text that anything ever looks at: one character more than a chunk shows, so that a cut can be seen."""

_WITHOUT_TEXT = ("thoughts", "reasoning_recap", "user_editable_context", "model_editable_context")
_NO_TOOL = ("all", "bio")  # bio: what ChatGPT itself noted about the user

Role = Literal["user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """A visible message. `text` is not blank in the file, and is cut to its first 5,001 characters."""

    role: Role
    text: str


def visible_messages(raw: RawConversation) -> tuple[Message, ...]:
    """The messages of the first of `mapping`, `messages`, `chat_messages` that is not empty."""
    if raw.mapping:
        found = (_of_node(node.message) for node in read_path(raw.mapping, raw.current_node) if node.message)
    elif isinstance(raw.messages, list) and raw.messages:
        found = (_simplified(message) for message in raw.messages if isinstance(message, dict))
    elif isinstance(raw.chat_messages, list):
        found = (_of_claude(message) for message in raw.chat_messages if isinstance(message, dict))
    else:
        return ()
    return tuple(message for message in found if message is not None)


def _of_node(message: NodeMessage) -> Message | None:
    role = _role_of_node(message)
    return _message(role, text_of(message.content)) if role else None


def _role_of_node(message: NodeMessage) -> Role | None:
    """Who speaks, if the message is visible."""
    if message.author is None:
        return None
    role, metadata = message.author.role, message.metadata
    if metadata is not None and metadata.is_visually_hidden_from_conversation is True:
        return None
    if role == "user" or (role == "system" and metadata is not None and metadata.is_user_system_message is True):
        return "user"
    recipient = message.recipient
    is_tool_call = isinstance(recipient, str) and recipient != "" and recipient not in _NO_TOOL
    return "assistant" if role == "assistant" and not is_tool_call else None


def _simplified(message: dict[str, Any]) -> Message | None:
    role = message.get("role")
    return _message(role, text_of(message.get("content"))) if role in ("user", "assistant") else None


def _of_claude(message: dict[str, Any]) -> Message | None:
    sender, content, text = message.get("sender"), message.get("content"), message.get("text")
    if sender not in ("human", "assistant"):
        return None
    blocks = content if isinstance(content, list) else ()
    written = _joined(block.get("text") for block in blocks if isinstance(block, dict) and block.get("type") == "text")
    return _message("user" if sender == "human" else "assistant", written or (text if isinstance(text, str) else ""))


def _message(role: Role, text: str) -> Message | None:
    return None if not text or text.isspace() else Message(role, clean(text[:TEXT_MAX_CHARS]))


def text_of(content: Any) -> str:
    """The text of a content: an object's direct `text` or else its parts, a plain string, or an array of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return _joined([_text_of_part(part) for part in content])
    if not isinstance(content, dict) or content.get("content_type") in _WITHOUT_TEXT:
        return ""
    text = content.get("text")
    if isinstance(text, str) and text and not text.isspace():
        return text
    parts = content.get("parts")
    return _joined([_text_of_part(part) for part in parts]) if isinstance(parts, list) else ""


def _text_of_part(part: Any) -> Any:
    return part.get("text") if isinstance(part, dict) else part


def _joined(texts: Iterable[Any]) -> str:
    written = [text for text in texts if isinstance(text, str) and text and not text.isspace()]
    return written[0] if len(written) == 1 else "\n".join(written)
