"""Packing: small things share a request, and the same things share the same one again."""

from __future__ import annotations

import random
from dataclasses import dataclass

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from consumer.full_pass.packing import Packer

SIZE = 2_000
SEED = 20261124
exactly = settings(deadline=None, derandomize=True, database=None, max_examples=100)


@dataclass(frozen=True)
class Thing:
    name: str
    weight: int


def packed(things: list[Thing], size: int = SIZE) -> list[tuple[Thing, ...]]:
    return list(Packer[Thing](size, lambda thing: thing.weight, lambda thing: thing.name).pack(things))


def things_of(seed: int, count: int, largest: int = 600) -> list[Thing]:
    chance = random.Random(seed)
    return [Thing(f"{seed}-{number}", chance.randint(20, largest)) for number in range(count)]


@exactly
@given(st.lists(st.tuples(st.text(max_size=3), st.integers(1, 3_000)), max_size=120))
def test_every_item_is_in_exactly_one_pack_and_in_its_order(items: list[tuple[str, int]]) -> None:
    things = [Thing(*item) for item in items]
    packs = packed(things)
    assert [thing for pack in packs for thing in pack] == things
    assert all(packs)


@exactly
@given(st.lists(st.tuples(st.text(max_size=3), st.integers(1, 3_000)), max_size=120))
def test_no_pack_is_larger_than_twice_the_wanted_size_unless_it_is_one_item(items: list[tuple[str, int]]) -> None:
    for pack in packed([Thing(*item) for item in items]):
        assert sum(thing.weight for thing in pack) <= 2 * SIZE or len(pack) == 1


def test_items_whose_hashes_only_fall_are_still_cut_into_bounded_packs() -> None:
    """Nobody's choice of texts may make one endless pack: that is memory, and a request that no model takes."""
    things = [Thing("same", 50)] * 5_000
    packs = packed(things)
    assert max(sum(thing.weight for thing in pack) for pack in packs) <= 2 * SIZE
    assert len(packs) <= 2 * 5_000 * 50 / SIZE


@exactly
@given(
    seed=st.integers(0, 10**6),
    at=st.integers(0, 150),
    added=st.lists(st.integers(10, 2_500), min_size=1, max_size=12),
)
def test_an_added_conversation_changes_its_own_packs_and_at_most_the_two_beside_them(
    seed: int, at: int, added: list[int]
) -> None:
    """A re-import of a grown export buys only what is new, so this is what it costs."""
    before = things_of(seed, 150)
    new = [Thing(f"new-{seed}-{number}", weight) for number, weight in enumerate(added)]
    after = before[:at] + new + before[at:]
    packs_before, packs_after = packed(before), packed(after)
    assume(not any(_was_cut_by_force(pack) for pack in packs_before + packs_after))
    changed = [pack for pack in packs_after if pack not in set(packs_before) and not set(pack) & set(new)]
    assert len(changed) <= 2


@exactly
@given(
    seed=st.integers(0, 10**6),
    largest=st.sampled_from([150, 600, 1_500]),
    at=st.integers(0, 99),
    change=st.sampled_from(["added", "grown", "shrunk", "removed"]),
    weight=st.integers(1, 3_000),
)
def test_one_conversation_added_grown_shrunk_or_removed_makes_at_most_three_new_packs(
    seed: int, largest: int, at: int, change: str, weight: int
) -> None:
    """Its own, the one before and the one after, however large it is or was. This is what a re-import costs."""
    before = things_of(seed, 100, largest)
    instead = {
        "added": [Thing("new", weight), before[at]],
        "grown": [Thing("grown", before[at].weight + weight)],
        "shrunk": [Thing("shrunk", 1 + weight % before[at].weight)],
        "removed": [],
    }[change]
    packs_before = packed(before)
    packs_after = packed([*before[:at], *instead, *before[at + 1 :]])
    assume(not any(_was_cut_by_force(pack) for pack in packs_before + packs_after))
    assert len(set(packs_after) - set(packs_before)) <= 3


def test_few_changes_beside_packs_that_are_cut_by_force_make_more_than_three_new_ones_and_none_more_than_six() -> None:
    """One or two in a hundred: it is what a re-import may cost beyond the rule."""
    print(f"seed {SEED}")  # noqa: T201  a failure can be repeated with it
    chance = random.Random(SEED)
    new_packs = []
    for seed in range(500):
        before = things_of(seed, 100, chance.choice([150, 600, 1_500]))
        at = chance.randrange(100)
        after = [*before[:at], Thing("grown", before[at].weight + chance.randint(1, 1_500)), *before[at + 1 :]]
        new_packs.append(len(set(packed(after)) - set(packed(before))))
    assert max(new_packs) <= 6
    assert sum(number > 3 for number in new_packs) <= 15


def _was_cut_by_force(pack: tuple[Thing, ...]) -> bool:
    """The next item (a large one is cut off anyway) would have gone over twice the size."""
    return len(pack) > 1 and sum(thing.weight for thing in pack) > 2 * SIZE - 800


def test_a_pack_cut_by_force_does_not_move_the_cuts_after_it() -> None:
    """Otherwise one long stretch without a lowest hash would shift every pack to the end of the export."""
    tail = things_of(5, 400, largest=60)
    stretch = [Thing("same", 100)] * 60
    with_stretch, with_longer = packed(stretch + tail), packed([*stretch, *stretch[:7], *tail])
    assert len(set(with_longer) - set(with_stretch)) <= 3


def test_what_fits_one_request_is_one_request() -> None:
    """Most people's first look at the service is a small export."""
    assert len(packed(things_of(23, 8, largest=100))) == 1


@exactly
@given(seed=st.integers(0, 10**6))
def test_the_first_and_the_last_pack_are_no_scraps(seed: int) -> None:
    packs = packed(things_of(seed, 100, largest=200))
    assert min(sum(thing.weight for thing in pack) for pack in (packs[0], packs[-1])) >= 0.4 * SIZE


def test_a_large_item_shares_its_request_with_nobody() -> None:
    small = things_of(3, 10, largest=50)
    large = Thing("large", 2_000)
    assert (large,) in packed([*small[:5], large, *small[5:]])


def test_packs_are_well_filled_although_their_cuts_are_found_in_the_texts() -> None:
    """The instructions come with every request: half-empty packs would be paid for in every import."""
    before = things_of(11, 4_000, largest=150)
    chance = random.Random(12)
    after = list(before)
    for number in range(10):
        after.insert(chance.randrange(len(after)), Thing(f"new-{number}", 100))
    packs = packed(before)
    filled = sum(thing.weight for thing in before) / len(packs)
    assert filled > 0.7 * SIZE
    assert len(set(packed(after)) - set(packs)) <= 30


def test_packs_do_not_depend_on_how_the_items_arrive() -> None:
    things = things_of(17, 300)
    packer = Packer[Thing](SIZE, lambda thing: thing.weight, lambda thing: thing.name)
    one_by_one = [pack for thing in things for pack in packer.add(thing)] + list(packer.rest())
    assert one_by_one == packed(things)


def test_the_packer_lets_go_of_what_it_has_packed() -> None:
    packer = Packer[Thing](SIZE, lambda thing: thing.weight, lambda thing: thing.name)
    held = []
    for thing in things_of(19, 5_000):
        list(packer.add(thing))
        held.append(sum(item.weight for item in packer._open))
    assert max(held) <= 2 * SIZE
