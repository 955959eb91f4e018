"""Facts that come back as JSON: found in a request, merged to half, and written out as MEMORY."""

from __future__ import annotations

import json
import re
from typing import Any

from sandbox.anthropic.facts import CATEGORIES
from sandbox.anthropic.tokens import count_tokens

_HEADINGS = {
    "preferences": "## Preferences",
    "projects": "## Projects",
    "dates": "## Important Dates",
    "beliefs": "## Beliefs & Values",
    "decisions": "## Decisions & Context",
}
_NOTHING = "No data yet."
_IDENTITY = {"projects": "name", "dates": "event", "decisions": "decision"}
_MORE = {"projects": "details", "decisions": "context"}
_OBJECT = re.compile(r"\{\s*\"(?:" + "|".join(CATEGORIES) + r")\"\s*:")
_MOST_CANDIDATES = 20

Facts = dict[str, list[Any]]


def facts_object(text: str) -> Facts | None:
    """The JSON object of facts that stands somewhere in `text`, or None."""
    decoder = json.JSONDecoder(strict=False)
    for found, _ in zip(_OBJECT.finditer(text), range(_MOST_CANDIDATES), strict=False):
        try:
            value, _end = decoder.raw_decode(text, found.start())
        except (ValueError, RecursionError):
            continue
        if all(isinstance(value.get(category, []), list) for category in CATEGORIES):
            return {category: value.get(category, []) for category in CATEGORIES}
    return None


def reduce_facts(facts: Facts) -> Facts:
    """Each category merged, the last of equal facts kept, and then its newest: at most half, but one where there is any."""
    return {category: _newest(_merged(category, items), len(items)) for category, items in facts.items()}


def _newest(items: list[Any], before: int) -> list[Any]:
    return items[-max(1, before // 2) :]


def _merged(category: str, items: list[Any]) -> list[Any]:
    last: dict[str, Any] = {}
    for item in items:
        key = _key(category, item)
        last.pop(key, None)
        last[key] = item
    return list(last.values())


def _key(category: str, item: Any) -> str:
    if isinstance(item, dict):
        item = item.get(_IDENTITY.get(category, "")) or json.dumps(item, sort_keys=True, ensure_ascii=False)
    return " ".join(str(item).casefold().split())


def memory_of(facts: Facts, max_tokens: int) -> str:
    """MEMORY as Markdown: five headings, a line per fact in the words it came with, whole lines within `max_tokens`.

    Where not all fit, every category gives its newest in turn.
    """
    lines = {category: _lines(category, facts[category]) for category in CATEGORIES}
    left = max_tokens - sum(count_tokens(f"{heading}\n{_NOTHING}\n\n") for heading in _HEADINGS.values())
    kept: dict[str, list[str]] = {category: [] for category in CATEGORIES}
    waiting = {category: found for category, found in lines.items() if found}
    while waiting:
        for category in list(waiting):
            line = waiting[category].pop()
            left -= count_tokens(line) + 1
            if left < 0:
                return _document(kept)
            kept[category].append(line)
            if not waiting[category]:
                del waiting[category]
    return _document(kept)


def _document(newest_first: dict[str, list[str]]) -> str:
    parts = ["\n".join([_HEADINGS[category], *(newest_first[category][::-1] or [_NOTHING])]) for category in CATEGORIES]
    return "\n\n".join(parts) + "\n"


def _lines(category: str, items: list[Any]) -> list[str]:
    """A line per fact, oldest first. Of equal lines the newest stays; the others are told with what else they say."""
    told: dict[str, None] = {}
    newest_first = {json.dumps(item, sort_keys=True): item for item in reversed(items)}
    for item in newest_first.values():
        line = _one_line(_told(category, item))
        if line in told and isinstance(item, dict):
            line = _one_line(f"{line} {item.get(_MORE.get(category, ''), '')}")
        if line:
            told[line] = None
    return [f"- {line}" for line in reversed(told)]


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _told(category: str, item: Any) -> str:
    """One fact in its own words: the sentence that it stands in, so that a reader can find it in the export."""
    if not isinstance(item, dict):
        return str(item)
    if category == "dates":
        event, date = str(item.get("event") or ""), str(item.get("date") or "")
        return event if date in event else f"{event} ({date})"
    names = ("description", "name", "details") if category == "projects" else ("decision", "context")
    return next((str(item[name]) for name in names if item.get(name)), "")
