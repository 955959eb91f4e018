"""The five categories of facts (specification 4): what an extraction answers, and what MEMORY is written from."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import msgspec

_NOT_STORABLE = re.compile("[\x00\ud800-\udfff]")


class Project(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Something that the user works on."""

    name: str
    description: str
    details: str


class DatedEvent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An event and when it is, in the words of the conversation or as a date."""

    event: str
    date: str


class Decision(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the user decided, and why or about what."""

    decision: str
    context: str


Fact = str | Project | DatedEvent | Decision


class Facts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Facts by category, the oldest first in each."""

    preferences: tuple[str, ...]
    projects: tuple[Project, ...]
    dates: tuple[DatedEvent, ...]
    beliefs: tuple[str, ...]
    decisions: tuple[Decision, ...]

    def __len__(self) -> int:
        return sum(len(facts) for facts in self.by_category().values())

    def by_category(self) -> dict[str, tuple[Fact, ...]]:
        """The facts under the names of their categories, in the order of the schema."""
        return {name: getattr(self, name) for name in CATEGORIES}

    def to_tokens(self) -> int:
        """The estimate that specification 4 names."""
        return len(to_json(self)) // 4


CATEGORIES = Facts.__struct_fields__


def facts_of(by_category: Mapping[str, Any]) -> Facts:
    """Facts from sequences under the names of their categories; a name that is missing has none."""
    return Facts(**{name: tuple(by_category.get(name, ())) for name in CATEGORIES})


def fields_of(fact: Fact) -> tuple[str, ...]:
    """The texts of a fact; the first one is what it is about."""
    return (fact,) if isinstance(fact, str) else msgspec.structs.astuple(fact)


def with_fields(fact: Fact, fields: tuple[str, ...]) -> Fact:
    """A fact of the same kind with other texts."""
    return fields[0] if isinstance(fact, str) else type(fact)(*fields)


def to_json(value: Facts | Fact) -> str:
    """JSON with non-ASCII as it is."""
    return json.dumps(msgspec.to_builtins(value), ensure_ascii=False)


def storable(text: str) -> str:
    """U+0000 and lone surrogates as U+FFFD: PostgreSQL takes neither, and a model can write both."""
    return _NOT_STORABLE.sub("\ufffd", text)


def _texts(*names: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {name: {"type": "string"} for name in names},
        "required": list(names),
        "additionalProperties": False,
    }


def _list_of(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": item}


# Written out in full: structured output wants every property required and takes no array lengths.
FACTS_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "preferences": _list_of({"type": "string"}),
        "projects": _list_of(_texts("name", "description", "details")),
        "dates": _list_of(_texts("event", "date")),
        "beliefs": _list_of({"type": "string"}),
        "decisions": _list_of(_texts("decision", "context")),
    },
    "required": ["preferences", "projects", "dates", "beliefs", "decisions"],
    "additionalProperties": False,
}


def parse_facts(text: str) -> Facts | None:
    """The facts of an answer, or None if it isn't JSON of the schema."""
    try:
        facts = msgspec.json.decode(storable(text), type=Facts)
    except (msgspec.MsgspecError, RecursionError):
        return None
    return facts_of({name: map(_storable_fact, found) for name, found in facts.by_category().items()})


def _storable_fact(fact: Fact) -> Fact:
    return with_fields(fact, tuple(map(storable, fields_of(fact))))
