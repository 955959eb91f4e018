"""Consolidation of facts (specification 4), in linear time: repetitions go, what belongs together stands together."""

from __future__ import annotations

from consumer.full_pass.categories import CATEGORIES, Fact, Facts, facts_of, fields_of, with_fields

_Group = dict[tuple[str, ...], Fact]


class Consolidation:
    """Collects facts, the oldest first. Nothing that differs by more than case and surrounding white space is lost."""

    def __init__(self) -> None:
        self._groups: dict[str, dict[str, _Group]] = {category: {} for category in CATEGORIES}

    def add(self, facts: Facts) -> None:
        """Take the facts of one answer."""
        for category, found in facts.by_category().items():
            for fact in found:
                self._add(self._groups[category], fact)

    @staticmethod
    def _add(groups: dict[str, _Group], fact: Fact) -> None:
        fields = tuple(field.strip() for field in fields_of(fact))
        if not any(fields):
            return
        key = tuple(field.casefold() for field in fields)
        groups.setdefault(key[0], {}).setdefault(key, with_fields(fact, fields))

    def to_facts(self) -> Facts:
        """What was collected: facts about one project, event or decision together, in the order of the first of them."""
        return facts_of(
            {
                category: [fact for group in groups.values() for fact in group.values()]
                for category, groups in self._groups.items()
            }
        )


def consolidated(*found: Facts) -> Facts:
    """All the facts, consolidated; the oldest come first."""
    consolidation = Consolidation()
    for facts in found:
        consolidation.add(facts)
    return consolidation.to_facts()
