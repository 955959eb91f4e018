"""The specification once more, written from its text alone: what a test expects, computed without the service's code."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

RECENT = timedelta(days=180)
MEMORY_HEADINGS = ("## Preferences", "## Projects", "## Important Dates", "## Beliefs & Values", "## Decisions & Context")
SECTION_FIELDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "soul": (
        "## Communication Style & Personality",
        (
            "communication_style",
            "personality_traits",
            "tone_preferences",
            "boundaries",
            "humor_style",
            "formality_level",
            "emotional_patterns",
        ),
    ),
    "identity": ("## Your AI Identity", ("ai_name", "archetype", "vibe", "emoji_style", "signature_greeting")),
    "user": (
        "## About You",
        ("name", "location", "occupation", "relationships", "interests", "life_context", "preferred_address"),
    ),
    "agents": (
        "## How I Operate",
        ("response_style", "behavioral_rules", "context_adaptation", "memory_directives", "do_not"),
    ),
    "tools": (
        "## My Capabilities",
        ("likely_usage", "capabilities_emphasis", "output_preferences", "depth_preference"),
    ),
}
LISTS = {
    "personality_traits",
    "relationships",
    "interests",
    "behavioral_rules",
    "do_not",
    "likely_usage",
    "capabilities_emphasis",
}
SPEAKERS = {"user": "User: ", "assistant": "Assistant: "}


@dataclass(frozen=True)
class Talk:
    """A conversation with its visible messages."""

    id: str
    title: str
    at: datetime | None
    messages: tuple[tuple[str, str], ...]


def sha256(text: str) -> str:
    """Of the text in UTF-8, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def derived_key(user_id: str, storage_path: str, completed_at: str) -> str:
    """The idempotency key of an event without one (design, "The events")."""
    moment = datetime.fromisoformat(completed_at).astimezone(UTC)
    return sha256(f"{user_id.lower()}\n{storage_path}\n{moment:%Y-%m-%dT%H:%M:%S.%f}Z")


def talks_of(export: Sequence[Mapping[str, Any]]) -> list[Talk]:
    """The conversations of a hand-made export: mappings without branches, and the other two formats."""
    return [talk for element in export for talk in _talk(element)]


def _talk(element: Mapping[str, Any]) -> Iterable[Talk]:
    if "mapping" in element:
        messages = tuple(_along(element["mapping"], element["current_node"]))
    elif "messages" in element:
        messages = tuple((each["role"], each["content"]) for each in element["messages"] if each["role"] in SPEAKERS)
    else:
        roles = {"human": "user", "assistant": "assistant"}
        messages = tuple((roles[each["sender"]], each["text"]) for each in element["chat_messages"])
    time = element.get("create_time")
    at = datetime.fromtimestamp(time, UTC) if time else None
    if element.get("created_at"):
        at = datetime.fromisoformat(element["created_at"]).astimezone(UTC)
    title = element.get("title") or element.get("name") or "Untitled"
    if messages:
        yield Talk(str(element.get("id") or element.get("uuid")), title, at, messages)


def _along(mapping: Mapping[str, Any], node: str | None) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    while node is not None:
        message = mapping[node]["message"]
        if message is not None:
            found.insert(0, (message["author"]["role"], "\n".join(message["content"]["parts"])))
        node = mapping[node]["parent"]
    return found


def cut(text: str, most: int) -> str:
    """A message as it is shown where it may have so many characters."""
    return text if len(text) <= most else text[:most] + "... [truncated]"


def chunk_text(talk: Talk) -> str:
    """The text of a conversation, before it is split (specification 3)."""
    lines = [SPEAKERS[role] + cut(text, 5_000) for role, text in talk.messages]
    return "\n".join([f"# {talk.title}", "", *lines])


def is_recent(at: datetime, completed_at: datetime) -> bool:
    """Newer than 180 days at the event's `completed_at`."""
    return at > completed_at - RECENT


def score(talk: Talk) -> float:
    """How rich a conversation is (specification 6)."""
    user = [text for role, text in talk.messages if role == "user"]
    whole = 10 * len(talk.messages) + sum(min(len(text), 500) for text in user)
    whole += 20 * min(len(user), len(talk.messages) - len(user))
    return whole + (talk.at.timestamp() if talk.at else 0.0) / 1e12


def richest(talks: Sequence[Talk]) -> list[Talk]:
    """The conversations for v2, the richest first (specification 6)."""
    eligible = [talk for talk in talks if len(talk.messages) >= 4]
    if not eligible:
        return list(talks[:200])
    return sorted(eligible, key=score, reverse=True)[:200]


def block_text(talks: Sequence[Talk], most: int = 600_000) -> str:
    """The conversations as the sections request shows them; of those that don't all fit, see specification 6."""
    parts = []
    for talk in talks:
        day = f"{talk.at:%Y-%m-%d}" if talk.at else "unknown date"
        lines = [SPEAKERS[role] + cut(text, 2_000) for role, text in talk.messages]
        parts.append("\n".join([f'=== Conversation: "{talk.title}" ({day}) ===', *lines]))
    block = "\n\n".join(parts)
    assert len(block) <= most, "the reference only knows exports that fit"
    return block


def soulprint(sections: Mapping[str, Mapping[str, Any]], memory: str) -> str:
    """`soulprint_text` (specification 8)."""
    parts = []
    for name, (heading, fields) in SECTION_FIELDS.items():
        lines = [heading]
        for field in fields:
            label = " ".join(word.capitalize() for word in field.split("_"))
            value = sections[name][field]
            if not value or (isinstance(value, str) and not value.strip()):
                lines.append(f"**{label}:** not enough data")
            elif isinstance(value, str):
                lines.append(f"**{label}:** {value}")
            else:
                lines += [f"**{label}:**", *(f"- {item}" for item in value)]
        parts.append("\n".join(lines))
    return "\n\n".join([*parts, f"## Memory\n{memory}"])


def fact_count(answers: Iterable[Mapping[str, Sequence[Any]]]) -> int:
    """Facts of all answers after consolidation: equal ones count once, blank ones not at all (specification 4)."""
    seen = set()
    for answer in answers:
        for category, facts in answer.items():
            for fact in facts:
                fields = (fact,) if isinstance(fact, str) else tuple(fact[name] for name in sorted(fact))
                plain = tuple(field.strip().casefold() for field in fields)
                if any(plain):
                    seen.add((category, plain))
    return len(seen)


def cost_usd(input_tokens: int, output_tokens: int) -> Decimal:
    """What `claude-haiku-4-5-20251001` costs: 1 dollar per million tokens in, 5 out."""
    return (Decimal(input_tokens) + 5 * Decimal(output_tokens)) / 1_000_000


def moment(text: str) -> datetime:
    """A time of an event: UTC, microseconds, `Z`."""
    assert text.endswith("Z")
    assert len(text) == len("2026-11-24T09:30:00.000000Z")
    return datetime.fromisoformat(text)


def is_whole_split(chunks: Sequence[str], text: str) -> bool:
    """Whether chunks of at most 2,000 tokens, each with at most 200 of the one before it, make up the text."""
    rest = chunks[0]
    for before, chunk in pairwise(chunks):
        overlap = next(size for size in range(min(800, len(before)), -1, -1) if before.endswith(chunk[:size]))
        rest += chunk[overlap:]
    return rest == text and all(chunk.strip() and math.floor(len(chunk) / 4) <= 2_000 for chunk in chunks)


def is_json_text_of_section(name: str, text: str) -> bool:
    """Whether a column holds the section with every field, of the type it must have."""
    section = json.loads(text)
    fields = SECTION_FIELDS[name][1]
    return tuple(section) == fields and all(
        isinstance(section[field], list if field in LISTS else str) for field in fields
    )  # fmt: skip
