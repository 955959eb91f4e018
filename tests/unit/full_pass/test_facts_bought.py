"""What the facts stage buys: for a first import, and for one again of a grown export. `benchmarks/facts.py` prints more of it."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from consumer.full_pass.facts import Pack, Piece, facts_request, packer_of

MODEL = "claude-haiku-4-5-20251001"
SEED = 20261124


def short_conversations(count: int, draw: random.Random) -> list[Piece]:
    """Most exports are many short questions and a few long talks, whose chunks are full."""
    words = [
        " ".join(f"word{draw.randrange(9_999)}" for _ in range(900 if draw.random() < 0.05 else draw.randint(10, 90)))
        for _ in range(count)
    ]
    return [Piece(f"Title {number}", f"2025-{number * 12 // count + 1:02}-01", text) for number, text in enumerate(words)]


def bought(packs: Iterable[Pack]) -> dict[str, int]:
    """The requests, by the hash under which their answers are recorded, and their input tokens."""
    requests = map(facts_request, packs)
    return {request.sha256(MODEL): request.expected_tokens()[0] for request in requests}


def packed(pieces: Sequence[Piece]) -> dict[str, int]:
    return bought(packer_of(2_000).pack(pieces))


def test_a_first_import_takes_half_the_calls_and_three_quarters_of_the_tokens_of_a_request_for_each_chunk() -> None:
    print(f"seed {SEED}")  # noqa: T201  a failure can be repeated with it
    pieces = short_conversations(600, random.Random(SEED))
    ours, bare = packed(pieces), bought((piece,) for piece in pieces)
    assert len(ours) <= 0.5 * len(bare)
    assert sum(ours.values()) <= 0.75 * sum(bare.values())


def test_five_percent_new_conversations_at_the_end_cost_a_tenth_of_the_first_import() -> None:
    print(f"seed {SEED}")  # noqa: T201  a failure can be repeated with it
    draw = random.Random(SEED)
    pieces, new = short_conversations(1_500, draw), short_conversations(75, draw)
    first, again = packed(pieces), packed(pieces + new)
    assert sum(tokens for sha256, tokens in again.items() if sha256 not in first) <= 0.1 * sum(first.values())
