"""What a worker and PostgreSQL say to each other, message by message, and which of the worker's steps a COMMIT ends."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field

_NEGOTIATIONS = frozenset({80_877_103, 80_877_104})  # SSLRequest, GSSENCRequest: one byte answers, a start-up message follows

# The first statement of a transaction that contains the text gives the step its name.
_STEPS = {
    "INSERT INTO full_pass_runs": "insert",
    "WITH silent AS": "claim",
    "WITH held AS": "renewal",
    "full_pass_started_at = CASE": "begin",
    "SET stage =": "stage",
    "INSERT INTO conversation_chunks": "chunks",
    "INSERT INTO full_pass_model_calls": "answer",
    "UPDATE full_pass_model_calls": "verdict",
    "SET coverage": "coverage",
    "SET memory_md": "memory",
    "SET soul_md": "sections",
    "SET status = 'pending', lease_until = NULL": "hand back",
    "finished_at = clock_timestamp(), lease_until = NULL": "failed end",  # of a completed run it comes after its sections
    "UPDATE full_pass_outbox": "mark",
}
_VARIANTS = {"stage": ("reading", "facts", "memory", "sections"), "answer": ("facts", "memory", "sections")}
_WRITES = re.compile(r"\b(INSERT INTO|UPDATE|DELETE FROM) \w+", re.IGNORECASE)
_LOCKS_ALONE = re.compile(r"FOR (NO KEY )?UPDATE\b.*", re.IGNORECASE)
_CHANGED_NOTHING = re.compile(rb"(UPDATE|DELETE|INSERT 0) 0\0")


@dataclass(slots=True)
class _Statement:
    """A statement of a transaction: its text, and the message that bound its values."""

    text: str
    bound: bytes
    changed_something: bool = True


@dataclass
class PostgresSession:
    """One connection's messages. Streams are cut into them, and each COMMIT of the client is called by the step that it ends."""

    _sent: bytes = b""
    _received: bytes = b""
    _started: bool = False
    _negotiating: bool = False
    _prepared: dict[bytes, str] = field(default_factory=dict)
    _transaction: list[_Statement] = field(default_factory=list)
    _unanswered: list[_Statement] = field(default_factory=list)

    def sent(self, piece: bytes) -> list[tuple[bytes, str | None]]:
        """The client's messages that are whole now; a step where one is the COMMIT that ends it."""
        self._sent += piece
        found: list[tuple[bytes, str | None]] = []
        while (length := _length(self._sent, typed=self._started)) is not None:
            message, self._sent = self._sent[:length], self._sent[length:]
            found.append((message, self._read(message)))
        return found

    def received(self, piece: bytes) -> None:
        """Look through what the server says for statements that changed nothing."""
        self._received += piece
        if self._negotiating and self._received:
            self._received, self._negotiating = self._received[1:], False
        while (length := _length(self._received, typed=True)) is not None:
            message, self._received = self._received[:length], self._received[length:]
            if message[:1] == b"C" and self._unanswered:
                self._unanswered.pop(0).changed_something = _CHANGED_NOTHING.fullmatch(message[5:]) is None

    def _read(self, message: bytes) -> str | None:
        if not self._started:
            self._negotiating = struct.unpack_from(">i", message, 4)[0] in _NEGOTIATIONS
            self._started = not self._negotiating
            return None
        kind, body = message[:1], message[5:]
        if kind == b"P":
            name, text, _ = body.split(b"\0", 2)
            self._prepared[name] = text.decode()
        elif kind == b"B":
            _, name, _ = body.split(b"\0", 2)
            self._begin(_Statement(self._prepared.get(name, ""), message))
        elif kind == b"Q":
            return self._simple(body.rstrip(b"\0").decode(), message)
        return None

    def _begin(self, statement: _Statement) -> None:
        self._transaction.append(statement)
        self._unanswered.append(statement)

    def _simple(self, text: str, message: bytes) -> str | None:
        if text.startswith("COMMIT"):
            return step_of((each.text, each.bound) for each in self._transaction if each.changed_something)
        if text.startswith("BEGIN"):
            self._transaction, self._unanswered = [], []
        self._begin(_Statement(text, message))
        return None


def _length(stream: bytes, *, typed: bool) -> int | None:
    """The length of the first message, if it is whole."""
    at = 1 if typed else 0
    if len(stream) < at + 4:
        return None
    length = int(struct.unpack_from(">i", stream, at)[0]) + at
    return length if len(stream) >= length else None


def step_of(transaction: Iterable[tuple[str, bytes]]) -> str | None:
    """The name of what a transaction of these statements (with the messages that bound their values) does.

    None where it changes nothing that lasts; `?` and the statement where nobody gave it a name.
    """
    unnamed = None
    for text, bound in transaction:
        for part, step in _STEPS.items():
            if part in text:
                return _variant(step, bound)
        written = _WRITES.search(_LOCKS_ALONE.sub("", text))
        unnamed = unnamed or (f"? {written.group(0)}" if written else None)
    return unnamed


def _variant(step: str, bound: bytes) -> str:
    """With the stage or the kind of an answer, which is one of the values that were bound."""
    for word in _VARIANTS.get(step, ()):
        if struct.pack(">i", len(word)) + word.encode() in bound:
            return f"{step}: {word}"
    return step
