"""Read an export conversation by conversation (specification 1 and 2)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from consumer.errors import FinalError
from consumer.exports.decoding import RawConversation, decode
from consumer.exports.file import ExportFile
from consumer.exports.formats import documents
from consumer.exports.limits import ExportLimits
from consumer.exports.messages import Message, visible_messages
from consumer.exports.splitting import split
from consumer.exports.text import create_time_of, id_of, title_of
from consumer.exports.window import unreadable
from schemas.events import ErrorCode


@dataclass(frozen=True, slots=True)
class Conversation:
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
        values: Iterator[tuple[RawConversation | str | None, bool]] = split(document, decode)
        for value, bare in values:
            if index >= limits.max_conversations:
                raise FinalError(
                    ErrorCode.EXPORT_TOO_LARGE,
                    f"The export has more than {limits.max_conversations} conversations (FULL_PASS_MAX_CONVERSATIONS).",
                )
            element = _element(value, index)
            if bare and isinstance(element, Skipped):
                raise unreadable("it is a JSON object without conversations, and no conversation itself")
            found += isinstance(element, Conversation)
            malformed += value is None
            yield element
            index += 1
    if malformed and not found:
        raise unreadable("none of its elements is well-formed JSON that holds a conversation")


def _element(value: RawConversation | str | None, index: int) -> Conversation | Skipped:
    if isinstance(value, RawConversation):
        return Conversation(index, id_of(value, index), title_of(value), create_time_of(value), visible_messages(value))
    return Skipped(index, value or "it is malformed")
