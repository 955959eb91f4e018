"""`soulprint_text`: sections and MEMORY as one text (specification 8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from consumer.full_pass.schema import SECTIONS

NOT_ENOUGH_DATA = "not enough data"

_HEADINGS = {
    "soul": "## Communication Style & Personality",
    "identity": "## Your AI Identity",
    "user": "## About You",
    "agents": "## How I Operate",
    "tools": "## My Capabilities",
}


def soulprint_text(sections: Mapping[str, Mapping[str, str | Sequence[str]]], memory: str) -> str:
    """The five sections in their order, then the MEMORY as it is, separated by blank lines."""
    parts = [_section(name, sections[name]) for name in SECTIONS]
    return "\n\n".join([*parts, f"## Memory\n{memory}"])


def _section(name: str, values: Mapping[str, str | Sequence[str]]) -> str:
    return "\n".join([_HEADINGS[name], *(_field(field.name, values[field.name]) for field in SECTIONS[name])])


def _field(name: str, value: str | Sequence[str]) -> str:
    label = f"**{name.replace('_', ' ').title()}:**"
    if isinstance(value, str):
        return f"{label} {value}" if value.strip() else f"{label} {NOT_ENOUGH_DATA}"
    if not value:
        return f"{label} {NOT_ENOUGH_DATA}"
    return "\n".join([label, *(f"- {item}" for item in value)])
