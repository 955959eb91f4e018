"""Cut a conversation into chunks (specification 3)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from consumer.exports.conversations import Conversation
from consumer.exports.messages import Message
from consumer.postgres.chunks import Chunk

CHUNK_MAX_CHARS = 8_000  # 2,000 tokens
OVERLAP_CHARS = 800  # 200 tokens
MESSAGE_MAX_CHARS = 5_000
_NEAR_CHARS = 500  # most often a sentence ends so near to the limit, and the rest needn't be searched
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
    contents = _contents(conversation)
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


def _contents(conversation: Conversation) -> list[str]:
    """Most conversations are one chunk; only what is surely more is never put together as a whole."""
    if sum(map(_chars, conversation.messages)) > CHUNK_MAX_CHARS:
        return list(split_lines(to_lines(conversation)))
    return list(split_lines(["\n".join(to_lines(conversation))]))


def _chars(message: Message) -> int:
    return len(message.text)


def to_lines(conversation: Conversation) -> Iterator[str]:
    """Title, a blank line, and a line per message (which may have newlines), messages cut at 5,000 characters."""
    yield f"# {conversation.title}"
    yield ""
    for message in conversation.messages:
        yield to_line(message.role, message.text, MESSAGE_MAX_CHARS)


def to_line(role: str, text: str, max_chars: int) -> str:
    """A message as it stands in chunks and in the block of the richest conversations."""
    return _LABELS[role] + (text if len(text) <= max_chars else text[:max_chars] + TRUNCATED)


def split_lines(lines: Iterable[str]) -> Iterator[str]:
    """The lines, joined by newlines, in pieces that overlap and, but for the last, end where a sentence or line does."""
    text = ""  # from the overlap with the piece before on, as far as it was read
    old_chars = 0
    for number, line in enumerate(lines):
        while len(text) > CHUNK_MAX_CHARS:
            end = _end_of_piece(text, old_chars, CHUNK_MAX_CHARS)
            yield text[:end]
            text, old_chars = text[end - OVERLAP_CHARS :], OVERLAP_CHARS
        text = f"{text}\n{line}" if number else line
    # White space at the very end stays with the word before it: a chunk that is blank would be none.
    while len(text) > CHUNK_MAX_CHARS:
        end = _end_of_piece(text, old_chars, min(CHUNK_MAX_CHARS, len(text.rstrip()) - 1))
        yield text[:end]
        text, old_chars = text[end - OVERLAP_CHARS :], OVERLAP_CHARS
    yield text


def _end_of_piece(text: str, old_chars: int, limit: int) -> int:
    """Where the last sentence or line ends behind what the piece before had, up to a limit; the limit, if none does."""
    end = _last_boundary(text, max(old_chars, limit - _NEAR_CHARS), limit) or _last_boundary(text, old_chars, limit) or limit
    return limit if text[:end].isspace() else end


def _last_boundary(text: str, start: int, limit: int) -> int:
    """Where the last sentence or line between two places ends; 0 if none does."""
    window = text[start:limit]
    return max((start + place + len(mark) for mark in _BOUNDARIES if (place := window.rfind(mark)) >= 0), default=0)
