"""Model calls and input tokens of the facts stage, beside one request a chunk: `python -m benchmarks.facts`.

No model is called: the requests are made, counted and compared by their hashes, which is how recorded answers are found. The
export is made of the sample's conversations, each with a line of its own. Goals, on the usual many short conversations: a first
import in at most half the calls and 0.75 of the input tokens of one request a chunk; a re-import with 5 % new conversations at
most 10 % of the first.

The goal of a re-import is that of new conversations at the export's end, as they come. Spread over all years, each of them
changes a pack of its own, and half of everything is bought again. And what a first import saves is the instructions that
requests share, so it gets less as conversations get longer: the last rows join several of the sample's into one.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median
from typing import cast

from rich.console import Console
from rich.table import Table

from consumer.exports.conversations import Conversation
from consumer.exports.messages import Message, Role
from consumer.full_pass.chunks import to_chunks
from consumer.full_pass.facts import Pack, facts_request, packer_of, to_piece
from consumer.postgres.chunks import Chunk
from sandbox import sample

NOW = datetime(2026, 11, 24, tzinfo=UTC)
MODEL = "claude-haiku-4-5-20251001"
TOKENS_PER_CALL = 2_000
_SECONDS_A_CONVERSATION = 6 * 3600


@dataclass(frozen=True)
class Bought:
    """Requests that have to be bought, beside those of something else."""

    name: str
    requests: dict[str, int]
    beside: dict[str, int]
    beside_name: str

    def cells(self) -> list[str]:
        """The row: calls and tokens, and their shares of what they stand beside."""
        calls, tokens = len(self.requests), sum(self.requests.values())
        shares = calls / len(self.beside), tokens / sum(self.beside.values())
        return [self.name, f"{calls:,}", f"{tokens:,}", *(f"{share:.2f}" for share in shares), self.beside_name]


def made_up_export(count: int, draw: random.Random, joined: int = 1) -> list[Conversation]:
    """Conversations of several years, one every six hours: the sample's mix of many short and some long ones.

    Each is `joined` of the sample's, one after the other.
    """
    return [
        _made_up(number, NOW.timestamp() - (count - number) * _SECONDS_A_CONVERSATION, draw, joined) for number in range(count)
    ]


def _made_up(number: int, time: float, draw: random.Random, joined: int = 1) -> Conversation:
    folders = ["everyday" if draw.random() < 0.8 else "threads" for _ in range(joined)]
    originals = [draw.choice(sample.conversations(folder)) for folder in folders]
    first, *others = [Message(cast("Role", role), text) for original in originals for role, text in original.messages]
    own = Message(first.role, f"{first.text} ({draw.getrandbits(64):x})")
    return Conversation(number, f"conversation-{draw.getrandbits(64):x}", originals[0].title, time, (own, *others))


def chunks_of(conversations: Iterable[Conversation]) -> list[Chunk]:
    """All chunks in the order in which the facts stage reads them."""
    chunks = [chunk for conversation in conversations for chunk in to_chunks(conversation, NOW)]
    return sorted(chunks, key=lambda chunk: (chunk.created_at, chunk.conversation_id, chunk.chunk_index, chunk.content))


def packed(chunks: Sequence[Chunk]) -> dict[str, int]:
    """The requests that are made: hash → input tokens."""
    return _counted(packer_of(TOKENS_PER_CALL).pack(map(to_piece, chunks)))


def one_by_one(chunks: Sequence[Chunk]) -> dict[str, int]:
    """The bare way: a request for each chunk."""
    return _counted((to_piece(chunk),) for chunk in chunks)


def _counted(packs: Iterable[Pack]) -> dict[str, int]:
    requests = map(facts_request, packs)
    return {request.sha256(MODEL): request.expected_tokens(MODEL)[0] for request in requests}


def with_new(conversations: list[Conversation], share: float, draw: random.Random, *, newest: bool) -> list[Conversation]:
    """The export some weeks later: so many new conversations, at its end or spread over all years."""
    count = int(len(conversations) * share)
    span = len(conversations) * _SECONDS_A_CONVERSATION
    times = [NOW.timestamp() + 3600 * n if newest else NOW.timestamp() - draw.random() * span for n in range(count)]
    return conversations + [_made_up(len(conversations) + n, time, draw) for n, time in enumerate(times)]


def reimport(first: dict[str, int], conversations: list[Conversation], draw: random.Random, *, newest: bool) -> Bought:
    """What 5 % new conversations make it buy, where the first import is recorded."""
    again = packed(chunks_of(with_new(conversations, 0.05, draw, newest=newest)))
    name = f"re-import, 5 % new {'at the end' if newest else 'over all years'}"
    return Bought(name, {sha256: tokens for sha256, tokens in again.items() if sha256 not in first}, first, "first import")


def first_import(chunks: Sequence[Chunk]) -> Bought:
    """What a user's first export makes it buy."""
    name = f"first import, a chunk has {median(chunk.token_count for chunk in chunks):,.0f} tokens"
    return Bought(name, packed(chunks), one_by_one(chunks), "one request a chunk")


def main() -> None:
    """Count and print the table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--conversations", type=int, default=2_000)
    arguments.add_argument("--seed", type=int, default=1)
    given = arguments.parse_args()
    draw = random.Random(given.seed)
    conversations = made_up_export(given.conversations, draw)
    chunks = chunks_of(conversations)
    first = first_import(chunks)
    table = Table(title=f"{len(conversations):,} conversations, {len(chunks):,} chunks, seed {given.seed}")
    for column in ("", "calls", "input tokens", "calls, share", "tokens, share", "beside"):
        table.add_column(column, justify="right" if column not in {"", "beside"} else "left")
    table.add_row("one request a chunk", f"{len(first.beside):,}", f"{sum(first.beside.values()):,}")
    rows = [first, *(reimport(first.requests, conversations, draw, newest=newest) for newest in (True, False))]
    rows += [first_import(chunks_of(made_up_export(given.conversations // 4, draw, joined))) for joined in (2, 4, 8)]
    for row in rows:
        table.add_row(*row.cells())
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
