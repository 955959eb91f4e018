"""Reading the answer that holds the five sections (specification 7): its schema, and everything that can be wrong with it.

What is wrong is told by the names of our own fields and the rules they break, never by what stood in them: it goes back to the
model, and it may end in an error's detail.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from consumer.full_pass.categories import storable
from consumer.full_pass.schema import SECTIONS, Field
from consumer.full_pass.sections_prompt import FORBIDDEN_NAMES

SectionValues = Mapping[str, Mapping[str, str | list[str]]]

ARCHETYPE_WORDS = (2, 4)
# Thai, Lao, Burmese, Khmer, Japanese, Chinese: written without spaces between words.
_WITHOUT_SPACES = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)


def sections_schema() -> dict[str, Any]:
    """The JSON Schema of the answer, written out in full; structured output takes no array lengths, so those are checked here."""
    return _object({section: _object({field.name: _type(field) for field in fields}) for section, fields in SECTIONS.items()})


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _type(field: Field) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "string"}} if field.is_list else {"type": "string"}


def parse_sections(text: str) -> tuple[SectionValues, list[str]]:
    """The sections of an answer in the order of the schema, and what is wrong with them; only without errors are they whole."""
    try:
        answer = msgspec.json.decode(storable(text))
    except (msgspec.MsgspecError, RecursionError):
        return {}, ["the answer is not JSON"]
    if not isinstance(answer, dict):
        return {}, ["the answer is not a JSON object"]
    errors = list(validation_errors(answer))
    return ({} if errors else _in_order(answer)), errors


def _in_order(answer: dict[str, Any]) -> SectionValues:
    return {
        section: {field.name: _storable(answer[section][field.name]) for field in fields} for section, fields in SECTIONS.items()
    }


def _storable(value: str | list[str]) -> str | list[str]:
    """A text of white space alone is empty, which `soulprint_text` shows as not enough data; there an item has one line."""
    if isinstance(value, str):
        return storable(value) if value.strip() else ""
    return [" ".join(storable(item).splitlines()) for item in value]


def validation_errors(answer: Mapping[str, Any]) -> Iterator[str]:
    """Every rule of the specification that the answer breaks."""
    yield from _unknown("the answer", answer, set(SECTIONS))
    for section, fields in SECTIONS.items():
        values = answer.get(section)
        if not isinstance(values, dict):
            yield f"{section}: expected an object"
            continue
        yield from _unknown(section, values, {field.name for field in fields})
        for field in fields:
            wrong = _wrong(field, values.get(field.name))
            if wrong is not None:
                yield f"{section}.{field.name}: {wrong}"


def _unknown(where: str, values: Mapping[str, Any], known: set[str]) -> Iterator[str]:
    surplus = len(values.keys() - known)
    if surplus:
        yield f"{where}: has {surplus} properties too many"


def _wrong(field: Field, value: Any) -> str | None:
    if value is None:
        return "is missing"
    if field.is_list:
        return _wrong_list(field, value)
    if not isinstance(value, str):
        return "expected a string"
    match field.name:
        case "ai_name":
            return _wrong_name(value)
        case "archetype":
            return _wrong_archetype(value)
        case _:
            return None


def _wrong_list(field: Field, value: Any) -> str | None:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        return "expected a list of strings"
    if not all(item.strip() for item in value):
        return "holds a blank item"
    most = len(value) if field.max_items is None else field.max_items
    if value and not (field.min_items or 0) <= len(value) <= most:
        return f"has {len(value)} items, expected {field.min_items} to {field.max_items}, or none where evidence is missing"
    return None


def _wrong_name(value: str) -> str | None:
    if not value.strip():
        return "expected a creative name, which needs no evidence"
    if _letters(value) in map(_letters, FORBIDDEN_NAMES):
        return f"expected a creative name, none of {', '.join(FORBIDDEN_NAMES)}"
    return None


def _letters(name: str) -> str:
    """What a reader takes the name for: `A.I.`, `**Bot**` and `Ｂｏｔ` are the plain ones, too."""
    return "".join(char for char in unicodedata.normalize("NFKC", name).casefold() if char.isalnum())


def _wrong_archetype(value: str) -> str | None:
    """Words are counted where a script has spaces between them."""
    fewest, most = ARCHETYPE_WORDS
    words = len(value.split())
    if words == 1 and _WITHOUT_SPACES.search(value):
        return None
    return None if fewest <= words <= most else f"has {words} words, expected {fewest} to {most}"
