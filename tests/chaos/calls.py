"""What the model API was asked, counted by the whole of each request."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tests.acceptance.world import World


@dataclass(frozen=True)
class Calls:
    """How many calls there were, and how many different ones."""

    asked: int
    different: int

    @property
    def asked_again(self) -> int:
        """Calls that had been made before."""
        return self.asked - self.different


def calls_of(world: World, word: str) -> Calls:
    """The calls whose text has the word in it."""
    times = Counter(digest(request) for request in world.asked(word))
    return Calls(times.total(), len(times))


def digest(request: dict[str, Any]) -> str:
    """Of the whole body of a request that the stand-in noted."""
    return hashlib.sha256(json.dumps(request["body"], sort_keys=True).encode()).hexdigest()


def by_digest(requests: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Requests in order, the same ones together."""
    found: dict[str, list[dict[str, Any]]] = {}
    for request in requests:
        found.setdefault(digest(request), []).append(request)
    return found
