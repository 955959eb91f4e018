"""The five sections and their fields, in order (specification 7): the same as the quick pass's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a section: text, or a list of texts with so many items, where that is said."""

    name: str
    is_list: bool = False
    min_items: int | None = None
    max_items: int | None = None


def _list(name: str, min_items: int | None = None, max_items: int | None = None) -> Field:
    return Field(name, True, min_items, max_items)


SECTIONS: Mapping[str, tuple[Field, ...]] = MappingProxyType(
    {
        "soul": (
            Field("communication_style"),
            _list("personality_traits", 3, 7),
            Field("tone_preferences"),
            Field("boundaries"),
            Field("humor_style"),
            Field("formality_level"),
            Field("emotional_patterns"),
        ),
        "identity": (
            Field("ai_name"),
            Field("archetype"),
            Field("vibe"),
            Field("emoji_style"),
            Field("signature_greeting"),
        ),
        "user": (
            Field("name"),
            Field("location"),
            Field("occupation"),
            _list("relationships"),
            _list("interests"),
            Field("life_context"),
            Field("preferred_address"),
        ),
        "agents": (
            Field("response_style"),
            _list("behavioral_rules", 3, 7),
            Field("context_adaptation"),
            Field("memory_directives"),
            _list("do_not"),
        ),
        "tools": (
            _list("likely_usage"),
            _list("capabilities_emphasis"),
            Field("output_preferences"),
            Field("depth_preference"),
        ),
    }
)
