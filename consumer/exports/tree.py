"""The path through ChatGPT's tree of edits and regenerations that a person sees (specification 2)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from consumer.exports.decoding import UNKNOWN, Links

T = TypeVar("T", bound=Links)


def read_path(mapping: Mapping[str, T], current_node: Any) -> Iterable[T]:
    """The nodes from the root down.

    They end at `current_node`, if there is such a node; else the way leads from the root to the last child each time. A mapping
    without any link is read in file order. Cycles and missing parents end the walk.
    """
    if isinstance(current_node, str) and current_node in mapping:
        return reversed(_upwards(mapping, current_node))
    tree = _Tree(mapping)
    if not tree.has_links:
        return mapping.values()
    return _downwards(mapping, tree)


def _upwards(mapping: Mapping[str, T], key: str) -> list[T]:
    path: list[T] = []
    seen: set[str] = set()
    listed_by: dict[str, str] | None = None
    while key in mapping and key not in seen:
        seen.add(key)
        node = mapping[key]
        path.append(node)
        parent = node.parent
        if parent is UNKNOWN:  # it costs its own message, not what stands above it
            listed_by = _Tree(mapping).listed_by if listed_by is None else listed_by
            parent = listed_by.get(key)
        if not isinstance(parent, str):
            break
        key = parent
    return path


def _downwards(mapping: Mapping[str, T], tree: _Tree) -> list[T]:
    path: list[T] = []
    seen: set[str] = set()
    key: str | None = tree.root
    while key is not None and key not in seen:
        seen.add(key)
        path.append(mapping[key])
        children = tree.children(key)
        key = children[-1] if children else None
    return path


class _Tree:
    """The links of a mapping that lead to nodes that exist, from both of their ends."""

    def __init__(self, mapping: Mapping[str, Links]) -> None:
        self._mapping = mapping
        self._listed: dict[str, list[str]] = {}
        self._naming: dict[str, list[str]] = {}
        self.listed_by: dict[str, str] = {}
        for key, node in mapping.items():
            listed = node.children if isinstance(node.children, list) else ()
            existing = [child for child in listed if isinstance(child, str) and child in mapping]
            if existing:
                self._listed[key] = existing
            for child in existing:
                self.listed_by.setdefault(child, key)
            if isinstance(node.parent, str) and node.parent in mapping:
                self._naming.setdefault(node.parent, []).append(key)

    @property
    def has_links(self) -> bool:
        return bool(self._listed or self._naming)

    @property
    def root(self) -> str:
        """The first node with a child and no existing parent, or else the first node."""
        for key, node in self._mapping.items():
            has_parent = key in self.listed_by or (isinstance(node.parent, str) and node.parent in self._mapping)
            if not has_parent and self.children(key):
                return key
        return next(iter(self._mapping))

    def children(self, key: str) -> list[str]:
        """The listed ones, or else the nodes that name it as their parent."""
        return self._listed.get(key) or self._naming.get(key, [])
