"""Sections 3 and 6 of the specification once more, sentence by sentence, without a thought for memory or speed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise

from tests.acceptance.reference import SPEAKERS, cut
from tests.unit.exports.naive_reader import Found

MAX_TOKENS = 2_000
OVERLAP_CHARS = 800  # 200 tokens
END_OF_SENTENCE = re.compile(r'\n|[.!?]"? |[。！？]')


def created_at(talk: Found) -> datetime | None:
    """The conversation's time."""
    return None if talk.create_time is None else datetime.fromtimestamp(talk.create_time, UTC)


def whole_text(talk: Found) -> str:
    """The text of a conversation, before it is split."""
    return f"# {talk.title}\n\n" + "\n".join(SPEAKERS[role] + cut(text, 5_000) for role, text in talk.messages)


def require_whole_split(chunks: Sequence[str], text: str) -> None:
    """Nothing is lost, no chunk is empty or too large, each overlaps with the one before and ends where a sentence may.

    Raises:
        AssertionError: otherwise.
    """
    assert chunks[0] + "".join(chunk[OVERLAP_CHARS:] for chunk in chunks[1:]) == text
    assert all(chunk.strip() and len(chunk) // 4 <= MAX_TOKENS for chunk in chunks)
    assert all(after[:OVERLAP_CHARS] == before[-OVERLAP_CHARS:] for before, after in pairwise(chunks))
    assert all(len(after) > OVERLAP_CHARS for after in chunks[1:])
    end = 0
    for number, chunk in enumerate(chunks[:-1]):
        start, begin = end, max(0, end - OVERLAP_CHARS)
        end = begin + len(chunk)
        assert is_end_of_sentence(text, end) or not _has_end_of_sentence(text, start, begin), number


def is_end_of_sentence(text: str, place: int) -> bool:
    """Whether a sentence or a line ends there."""
    return any(match.end() == place for match in END_OF_SENTENCE.finditer(text, max(0, place - 3), place))


def _has_end_of_sentence(text: str, start: int, begin: int) -> bool:
    """Whether a chunk that begins there could end behind a sentence, with words before it and words still to come."""
    ends = [match.end() for match in END_OF_SENTENCE.finditer(text, start, begin + 4 * MAX_TOKENS)]
    return any(end > start and text[begin:end].strip() and text[end:].strip() for end in ends)


def score(talk: Found) -> float:
    """How rich a conversation is."""
    user = [text for role, text in talk.messages if role == "user"]
    assistant = [text for role, text in talk.messages if role == "assistant"]
    whole = 10 * len(talk.messages) + sum(min(len(text), 500) for text in user) + 20 * min(len(user), len(assistant))
    return float(whole) + (talk.create_time or 0.0) / 10**12


def chosen(talks: Sequence[Found]) -> list[Found]:
    """The conversations for v2, the richest first."""
    eligible = [talk for talk in talks if len(talk.messages) >= 4]
    if not eligible:
        return [talk for talk in talks if talk.messages][:200]
    return sorted(eligible, key=lambda talk: -score(talk))[:200]  # which is stable: ties stay in export order


def formatted(talk: Found, messages: int | None = None) -> str:
    """A conversation as the block shows it, or its first messages."""
    moment = created_at(talk)
    day = "unknown date" if moment is None else f"{moment.year:04}-{moment.month:02}-{moment.day:02}"
    lines = [SPEAKERS[role] + cut(text, 2_000) for role, text in talk.messages[:messages]]
    return "\n".join([f'=== Conversation: "{talk.title}" ({day}) ===', *lines])


def parts(talks: Sequence[Found], most: int) -> list[str]:
    """The block's conversations: at most so many characters in all, with a blank line between two of them."""
    taken: list[str] = []
    for talk in talks:
        lengths = range(len(talk.messages), 0, -1) if not taken else [len(talk.messages)]
        for messages in lengths:
            longer = [*taken, formatted(talk, messages)]
            if len("\n\n".join(longer)) <= most:
                taken = longer
                break
    return taken
