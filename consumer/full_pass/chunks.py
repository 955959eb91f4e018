"""Cut a conversation into chunks (specification 3)."""

from __future__ import annotations

from datetime import datetime, timedelta

from consumer.exports.conversations import Conversation
from consumer.postgres.chunks import Chunk

CHUNK_MAX_CHARS = 8_000  # 2,000 tokens
OVERLAP_CHARS = 800  # 200 tokens
MESSAGE_MAX_CHARS = 5_000
TRUNCATED = "... [truncated]"
RECENT = timedelta(days=180)

_LABELS = {"user": "User: ", "assistant": "Assistant: "}
_BOUNDARIES = ("\n", ". ", "! ", "? ", '." ', '!" ', '?" ', "。", "！", "？")


def to_chunks(conversation: Conversation, completed_at: datetime) -> list[Chunk]:
    """The chunks of a conversation, in order; none without a visible message. `completed_at` is the event's.

    Each begins with the last 800 characters of the one before it; without them they add up to the text.
    """
    if not conversation.messages:
        return []
    created_at = conversation.created_at or completed_at
    contents = split_text(to_text(conversation))
    return [
        Chunk(
            conversation_id=conversation.conversation_id,
            title=conversation.title,
            content=content,
            token_count=len(content) // 4,
            chunk_index=index,
            total_chunks=len(contents),
            message_count=len(conversation.messages),
            is_recent=created_at > completed_at - RECENT,
            created_at=created_at,
        )
        for index, content in enumerate(contents)
    ]


def to_text(conversation: Conversation) -> str:
    """Title and messages, one line each, messages cut at 5,000 characters."""
    lines = [to_line(message.role, message.text, MESSAGE_MAX_CHARS) for message in conversation.messages]
    return f"# {conversation.title}\n\n" + "\n".join(lines)


def to_line(role: str, text: str, max_chars: int) -> str:
    """A message as it stands in chunks and in the block of the richest conversations."""
    return _LABELS[role] + (text if len(text) <= max_chars else text[:max_chars] + TRUNCATED)


def split_text(text: str) -> list[str]:
    """The text in pieces that overlap, each but the last ending with a sentence or line, if there is one in it."""
    pieces = []
    start = new_from = 0
    # White space at the very end stays with the word before it: a chunk that is blank would be none.
    last_end = len(text.rstrip()) - 1
    while len(text) - start > CHUNK_MAX_CHARS:
        limit = min(start + CHUNK_MAX_CHARS, last_end)
        end = _last_boundary(text, new_from, limit)
        if text[start:end].isspace():
            end = limit
        pieces.append(text[start:end])
        start, new_from = end - OVERLAP_CHARS, end
    return [*pieces, text[start:]]


def _last_boundary(text: str, start: int, limit: int) -> int:
    """Where the last sentence or line between two places ends; the second place, if none does."""
    window = text[start:limit]
    ends = (place + len(mark) for mark in _BOUNDARIES if (place := window.rfind(mark)) >= 0)
    return start + max(ends, default=len(window))
