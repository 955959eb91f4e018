"""The 200 richest conversations, and the block of text that the sections are made from (specification 6)."""

from __future__ import annotations

import heapq
import zlib
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, replace

from consumer.exports.conversations import Conversation
from consumer.full_pass.chunks import to_line

MOST_CONVERSATIONS = 200
ELIGIBLE_MESSAGES = 4
BLOCK_MAX_CHARS = 600_000
MESSAGE_MAX_CHARS = 2_000
_COUNTED_USER_CHARS = 500
_SEPARATOR = "\n\n"
_PACKED_FROM_CHARS = 100_000


def score(conversation: Conversation) -> float:
    """How rich a conversation is: messages, length of the user's words (up to 500 each), balance, and a trace of its time."""
    users = [message for message in conversation.messages if message.role == "user"]
    whole = 10 * len(conversation.messages) + sum(min(len(message.text), _COUNTED_USER_CHARS) for message in users)
    whole += 20 * min(len(users), len(conversation.messages) - len(users))
    return whole + (conversation.create_time or 0.0) / 1e12


@dataclass(frozen=True, slots=True)
class Formatted:
    """A conversation as it stands in the block: `lines` are its header and one line per message (which may have newlines)."""

    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def without_last_message(self) -> Formatted | None:
        """One message shorter; None if that leaves no message."""
        return Formatted(self.lines[:-1]) if len(self.lines) > 2 else None


@dataclass(frozen=True, slots=True)
class RichConversation:
    """A chosen conversation, of which only what a block may show is kept, packed if that is much.

    `chars` is the length of the whole, also where only its first messages were kept.
    """

    chars: int
    _body: bytes
    _line_ends: array[int]
    _packed: bool

    @classmethod
    def of(cls, conversation: Conversation) -> RichConversation:
        """The conversation's header and messages, of which those behind 600,000 characters are only counted."""
        day = f"{conversation.created_at:%Y-%m-%d}" if conversation.created_at else "unknown date"
        kept = [f'=== Conversation: "{conversation.title}" ({day}) ===']
        chars = len(kept[0])
        ends = array("I", [chars])
        for message in conversation.messages:
            line = to_line(message.role, message.text, MESSAGE_MAX_CHARS)
            chars += len("\n") + len(line)
            if chars <= BLOCK_MAX_CHARS:
                ends.append(chars)
                kept.append(line)
        text = "\n".join(kept)
        packed = len(text) > _PACKED_FROM_CHARS
        body = text.encode()
        return cls(chars, zlib.compress(body, 1) if packed else body, ends, packed)

    def formatted(self, max_chars: int) -> Formatted | None:
        """The conversation up to the last message that ends within so many characters; None if that leaves no message."""
        text = (zlib.decompress(self._body) if self._packed else self._body).decode()
        ends = [end for end in self._line_ends if end <= max_chars]
        starts = [0, *(end + 1 for end in ends)]
        lines = tuple(text[start:end] for start, end in zip(starts, ends, strict=False))
        return Formatted(lines) if len(lines) > 1 else None


class Richest:
    """Keeps the 200 richest of the conversations it is offered, in memory that doesn't grow with the export."""

    def __init__(self) -> None:
        self._offered = 0
        self._eligible: list[tuple[float, int, RichConversation]] = []
        self._first: list[RichConversation] = []

    def offer(self, conversation: Conversation) -> None:
        """Take a conversation into account. One without a visible message counts for nothing."""
        if not conversation.messages:
            return
        self._offered += 1
        if len(conversation.messages) < ELIGIBLE_MESSAGES:
            if not self._eligible and len(self._first) < MOST_CONVERSATIONS:
                self._first.append(RichConversation.of(conversation))
            return
        self._first.clear()
        rank = (score(conversation), -self._offered)
        if len(self._eligible) < MOST_CONVERSATIONS:
            heapq.heappush(self._eligible, (*rank, RichConversation.of(conversation)))
        elif rank > self._eligible[0][:2]:
            heapq.heapreplace(self._eligible, (*rank, RichConversation.of(conversation)))

    def chosen(self) -> list[RichConversation]:
        """Highest score first, ties in export order; without an eligible one the first 200, in export order."""
        ranked = sorted(self._eligible, key=lambda entry: entry[:2], reverse=True)
        return [conversation for _, _, conversation in ranked] or list(self._first)


@dataclass(frozen=True, slots=True)
class Block:
    """The formatted conversations, and how they get shorter where the API counts more tokens than there is room for."""

    conversations: tuple[Formatted, ...]

    @property
    def text(self) -> str:
        return _SEPARATOR.join(self.parts)

    @property
    def parts(self) -> tuple[str, ...]:
        """Each conversation's text."""
        return tuple(conversation.text for conversation in self.conversations)

    @property
    def count(self) -> int:
        return len(self.conversations)

    def without_last(self) -> Block:
        """The block without its last conversation; the only one left loses its last message; at the end it is empty."""
        if self.count > 1:
            return replace(self, conversations=self.conversations[:-1])
        shorter = [conversation.without_last_message() for conversation in self.conversations]
        return Block(tuple(conversation for conversation in shorter if conversation is not None))


def format_block(chosen: Iterable[RichConversation], budget_chars: int = BLOCK_MAX_CHARS) -> Block:
    """The conversations that fit, in order, separators counted.

    One that doesn't fit is skipped and the next is tried. While nothing has been taken it is shortened to its first messages
    instead, and skipped only if not even one of them fits. `budget_chars` is at most 600,000.
    """
    taken: list[Formatted] = []
    chars = 0
    for conversation in chosen:
        room = budget_chars - chars - (len(_SEPARATOR) if taken else 0)
        if conversation.chars > room and taken:
            continue
        formatted = conversation.formatted(room)
        if formatted is None:
            continue
        chars = budget_chars - room + len(formatted.text)
        taken.append(formatted)
    return Block(tuple(taken))
