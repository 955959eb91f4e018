"""Text as it can be stored, and the title, time and id of a conversation (specification 1 and 2)."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import Any

from consumer.exports.decoding import RawConversation

TITLE_MAX_CHARS = 5_000
ID_MAX_CHARS = 500

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_AFTER_THE_YEAR_9999 = 253_402_300_800.0


def clean(text: str) -> str:
    """The text with U+FFFD, one for one, for U+0000 and lone surrogates, which PostgreSQL doesn't take."""
    if text.isascii():
        return text.replace("\0", "\ufffd")
    return _UNSTORABLE.sub("\ufffd", text)


def title_of(raw: RawConversation) -> str:
    """`title` or `name`, as it is up to a length that no title has; `Untitled` without one."""
    for title in (raw.title, raw.name):
        if isinstance(title, str) and title and not title.isspace():
            return clean(title[:TITLE_MAX_CHARS])
    return "Untitled"


def id_of(raw: RawConversation) -> str | None:
    """The first of `id`, `conversation_id`, `uuid` that is a non-empty string or an integer."""
    for value in (raw.id, raw.conversation_id, raw.uuid):
        if isinstance(value, str) and value:
            return clean(value[:ID_MAX_CHARS])
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)[:ID_MAX_CHARS]
    return None


def create_time_of(raw: RawConversation) -> float | None:
    """Unix seconds of the first usable of `create_time`, `created_at`, `createdAt`."""
    for value in (raw.create_time, raw.created_at, raw.createdAt):
        seconds = _seconds(value)
        if seconds is not None and 0 < seconds < _AFTER_THE_YEAR_9999:
            return seconds
    return None


def _seconds(value: Any) -> float | None:
    if isinstance(value, str):
        value = value.strip()
        if not _DECIMAL.fullmatch(value):
            return _seconds_of_iso(value)
    elif isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        seconds = float(value)
    except OverflowError:
        return None
    return seconds if math.isfinite(seconds) else None


def _seconds_of_iso(text: str) -> float | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH).total_seconds()
