"""Packing of small things into requests of about one size, so that the same things are packed the same way again.

Recorded answers are found by the whole request, so a re-import of a grown export is cheap only if its packs are cut in the
same places. A place is therefore chosen by what stands around it, as content-defined chunking does: an item begins a pack
if its hash is the lowest within a reach on both sides. Whatever is added, grown or removed can move cuts only within
that reach, where there is one at most, so it changes its own pack and at most the pack before and the one after: three new packs.
A large item shares with nobody: it is cut off on both sides. Within reach of such a cut, and of the first and the last item, no
other is made.

The reach is 0.4 of the wanted size, which makes packs of 0.8 on average. In about 0.3 % of cases no item within
twice the wanted size is the lowest; there the pack is cut all the same (guarantee G10), and the next cut is in its place again.
A change beside such a pack can make more than three new ones: 1 or 2 in 100 random changes did, and none made more than six.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")

_REACH = 0.4
_LARGEST = 2
_CUT = -1


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an item begins, counted in weight from the first one, and its hash; `_CUT` is lower than every hash."""

    begins: int
    rank: int


class Packer(Generic[Item]):
    """Packs items in their order as they come. It holds one open pack and the hashes within reach, no more.

    `weigh` gives an item's size in the unit of `size`, at least 1; `identify` what its hash is taken of.
    """

    def __init__(self, size: int, weigh: Callable[[Item], int], identify: Callable[[Item], str]) -> None:
        self._reach = max(1, int(_REACH * size))
        self._largest = _LARGEST * size
        self._weigh = weigh
        self._identify = identify
        self._open: list[Item] = []
        self._opened_at = 0
        self._position = 0
        self._lowest = deque([_Place(0, _CUT)])
        self._candidate: tuple[int, _Place] | None = None
        self._cut_next = False

    def pack(self, items: Iterable[Item]) -> Iterator[tuple[Item, ...]]:
        """The packs of all the items."""
        for item in items:
            yield from self.add(item)
        yield from self.rest()

    def add(self, item: Item) -> Iterator[tuple[Item, ...]]:
        """Take the next item; gives the packs that are complete by now."""
        weight = self._weigh(item)
        large = weight >= self._reach
        yield from self._decide_candidate()
        if large or self._cut_next:
            yield from self._cut(len(self._open), self._position)
            self._lowest = deque([_Place(self._position, _CUT)])
        else:
            self._compare(_Place(self._position, _rank(self._identify(item))))
        if self._open and self._position + weight - self._opened_at > self._largest:
            yield from self._cut(len(self._open), self._position)
        self._open.append(item)
        self._position += weight
        self._cut_next = large

    def rest(self) -> Iterator[tuple[Item, ...]]:
        """Nothing follows: gives the packs that are still open."""
        yield from self._decide_candidate()
        yield from self._cut(len(self._open), self._position)

    def _compare(self, place: _Place) -> None:
        """Make the item the candidate for a cut if no hash within reach before it is as low.

        `_lowest` holds, of the places within reach, those that are lower than all that follow them.
        """
        while self._lowest and self._lowest[0].begins <= place.begins - self._reach:
            self._lowest.popleft()
        while self._lowest and self._lowest[-1].rank > place.rank:
            self._lowest.pop()
        if not self._lowest:
            self._candidate = (len(self._open), place)
        self._lowest.append(place)

    def _decide_candidate(self) -> Iterator[tuple[Item, ...]]:
        """Cut before the candidate once nothing lower can come within its reach."""
        if self._candidate is not None:
            index, place = self._candidate
            if self._position - place.begins >= self._reach:
                yield from self._cut(index, place.begins)

    def _cut(self, index: int, position: int) -> Iterator[tuple[Item, ...]]:
        self._candidate = None
        if index:
            yield tuple(self._open[:index])
        self._open = self._open[index:]
        self._opened_at = position


def _rank(identity: str) -> int:
    return int.from_bytes(hashlib.blake2b(identity.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
