"""Finds what the user said in a request: messages by their labels, sentences by their ends."""

from __future__ import annotations

import re
from collections.abc import Iterator

_LABELS = ("User:", "Assistant:")
_TRUNCATED = "... [truncated]"
_MEMORY_HEADING = "## MEMORY"
_CONVERSATION_HEADING = "=== Conversation:"
_TAG = re.compile(r"</?([A-Za-z_]+)[\w.:-]*(?:\s[^\n]*)?>\s*$")
_RUN = re.compile(r"(`{3,}|~{3,}|={3,}|-{3,}|<{2,}|\*{3,}|#{3,})")
_SENTENCE_END = re.compile(r"(?:(?<=[.!?…])|(?<=[.!?…][\"”’)]))\s+|(?<=[。！？])|\n+")


def has_speech(text: str) -> bool:
    """Whether any line is labelled as somebody's message."""
    return any(line.startswith(_LABELS) for line in text.split("\n"))


def messages_of_user(text: str) -> list[str]:
    """The messages labelled `User:`, in order. One goes on over following lines up to the next label or the fence's end."""
    lines = text.split("\n")
    fences = _fences_of(lines)
    messages: list[list[str]] = []
    current: list[str] | None = None
    for line in lines:
        if line.startswith("User:"):
            current = [line[len("User:") :]]
            messages.append(current)
        elif line.startswith(fences):
            current = None
        elif current is not None:
            current.append(line)
    return ["\n".join(message).strip().removesuffix(_TRUNCATED) for message in messages]


def _fences_of(lines: list[str]) -> tuple[str, ...]:
    """How the lines begin that end a message, going by the first fence before anybody speaks."""
    always = ("Assistant:", _MEMORY_HEADING, _CONVERSATION_HEADING)
    for line in lines:
        if line.startswith(_LABELS):
            break
        if tag := _TAG.match(line):
            name = tag.group(1).rstrip("s")
            return (*always, f"<{name}", f"</{name}")
        if (run := _RUN.match(line)) and not line.startswith(_CONVERSATION_HEADING):
            return (*always, run.group(1), run.group(1).replace("<", ">"))
    return always


def sentences(message: str) -> list[str]:
    """The sentences of one message, each exactly as it stands there."""
    return [stripped for part in _SENTENCE_END.split(message) if (stripped := part.strip())]


def sentences_of_user(text: str) -> Iterator[str]:
    """Every sentence of the user's, in order."""
    for message in messages_of_user(text):
        yield from sentences(message)
