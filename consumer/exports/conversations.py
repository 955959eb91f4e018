"""Read an export conversation by conversation (specification 1 and 2)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from consumer.errors import FinalError
from consumer.exports.decoding import RawConversation, TooDeep, decode
from consumer.exports.file import ExportFile
from consumer.exports.formats import documents
from consumer.exports.large import read_large
from consumer.exports.limits import PIECE_BYTES, ExportLimits
from consumer.exports.messages import Message, visible_messages
from consumer.exports.splitting import split
from consumer.exports.text import create_time_of, id_of, title_of
from consumer.exports.window import unreadable
from schemas.events import ErrorCode


class Conversation(msgspec.Struct, frozen=True):
    """A conversation with its visible messages, of which there may be none.

    `index` counts positions in the whole export, skipped elements included; `create_time` is in Unix seconds.
    """

    index: int
    conversation_id: str
    title: str
    create_time: float | None
    messages: tuple[Message, ...]

    @property
    def created_at(self) -> datetime | None:
        """`create_time` as a moment in UTC."""
        return None if self.create_time is None else datetime.fromtimestamp(self.create_time, UTC)


@dataclass(frozen=True, slots=True)
class Skipped:
    """An element of the export that is no conversation. `reason` never quotes it."""

    index: int
    reason: str


def read_conversations(file: ExportFile, limits: ExportLimits) -> Iterator[Conversation | Skipped]:
    """What the export holds, in its own order. Blocking, streaming: at most one conversation is in memory.

    Raises:
        FinalError: `export_unreadable` for a file that is no export, cut off, damaged, encrypted or goes on after its end,
            also after conversations were yielded; `export_too_large` beyond a limit.
        TransientError: the store's, while it is read.
    """
    index = 0
    found = malformed = 0
    for document in documents(file, limits):
        contents: Iterator[tuple[_Content | str | None, bool]] = split(document, _content)
        for content, bare in contents:
            if index >= limits.max_conversations:
                raise FinalError(
                    ErrorCode.EXPORT_TOO_LARGE,
                    f"The export has more than {limits.max_conversations} conversations (FULL_PASS_MAX_CONVERSATIONS).",
                )
            if bare and not isinstance(content, _Content):
                raise unreadable("it is a JSON object without conversations, and no conversation itself")
            found += isinstance(content, _Content)
            malformed += content is None
            yield _element(content, index)
            index += 1
    if malformed and not found:
        raise unreadable("none of its elements is well-formed JSON that holds a conversation")


class _Content(msgspec.Struct, frozen=True):
    """What a conversation is before its place in the export is known."""

    conversation_id: str | None
    title: str
    create_time: float | None
    messages: tuple[Message, ...]


def _content(data: memoryview) -> _Content | str | None:
    """A conversation's content; why an element is none; None for one that is no JSON."""
    found = read_large(data) if len(data) > PIECE_BYTES else _read_at_once(data)
    if found is None or isinstance(found, str):
        return found
    raw, messages = found
    return _Content(id_of(raw), title_of(raw), create_time_of(raw), messages)


def _read_at_once(data: memoryview) -> tuple[RawConversation, tuple[Message, ...]] | str | None:
    try:
        raw = decode(data)
    except TooDeep:
        return read_large(data)  # node by node, and passes over what nobody asks for
    return (raw, visible_messages(raw)) if isinstance(raw, RawConversation) else raw


def _element(content: _Content | str | None, index: int) -> Conversation | Skipped:
    if not isinstance(content, _Content):
        return Skipped(index, content or "it is malformed")
    identity = content.conversation_id or f"conv_{index}"
    return Conversation(index, identity, content.title, content.create_time, content.messages)
