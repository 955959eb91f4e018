"""Model calls and input tokens of the facts stage, beside one request a chunk: `python -m benchmarks.facts`.

No model is called: the requests are made, counted and compared by their hashes, which is how recorded answers are found. The
export is made of the sample's conversations, each with a line of its own. Goals: a first import in at most half the calls and
0.75 of the input tokens of one request a chunk; a re-import with 5 % new conversations at most 10 % of the first.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table

from consumer.exports.conversations import Conversation
from consumer.exports.messages import Message
from consumer.full_pass.chunks import to_chunks
from consumer.full_pass.facts import facts_request, packer_of, to_piece
from consumer.postgres.chunks import Chunk
from sandbox import sample

NOW = datetime(2026, 11, 24, tzinfo=UTC)
MODEL = "claude-haiku-4-5-20251001"
TOKENS_PER_CALL = 2_000
_SECONDS_A_CONVERSATION = 6 * 3600


def made_up_export(count: int, draw: random.Random) -> list[Conversation]:
    """Conversations of several years, one every six hours: the sample's mix of many short and some long ones."""
    found = []
    for number in range(count):
        folder = "everyday" if draw.random() < 0.8 else "threads"
        original = draw.choice(sample.conversations(folder))
        messages = tuple(Message(role, text) for role, text in original.messages)
        own = replace(messages[0], text=f"{messages[0].text} ({draw.getrandbits(64):x})")
        time = NOW.timestamp() - (count - number) * _SECONDS_A_CONVERSATION
        found.append(Conversation(number, f"conversation-{draw.getrandbits(64):x}", original.title, time, (own, *messages[1:])))
    return found


def chunks_of(conversations: Iterable[Conversation]) -> list[Chunk]:
    """All chunks in the order in which the facts stage reads them."""
    chunks = [chunk for conversation in conversations for chunk in to_chunks(conversation, NOW)]
    return sorted(chunks, key=lambda chunk: (chunk.created_at, chunk.conversation_id, chunk.chunk_index, chunk.content))


def packed(chunks: Sequence[Chunk]) -> dict[str, int]:
    """The requests that are made: hash → input tokens."""
    packs = packer_of(TOKENS_PER_CALL).pack(map(to_piece, chunks))
    requests = [facts_request(pack) for pack in packs]
    return {request.sha256(MODEL): request.expected_tokens()[0] for request in requests}


def one_by_one(chunks: Sequence[Chunk]) -> dict[str, int]:
    """The bare way: a request for each chunk."""
    requests = [facts_request((to_piece(chunk),)) for chunk in chunks]
    return {request.sha256(MODEL): request.expected_tokens()[0] for request in requests}


def with_new(conversations: list[Conversation], share: float, draw: random.Random, *, newest: bool) -> list[Conversation]:
    """The export some weeks later: so many new conversations, at its end or spread over all years."""
    new = made_up_export(int(len(conversations) * share), draw)
    span = len(conversations) * _SECONDS_A_CONVERSATION
    times = [NOW.timestamp() + 3600 * n if newest else NOW.timestamp() - draw.random() * span for n in range(len(new))]
    return conversations + [replace(each, create_time=time) for each, time in zip(new, times, strict=True)]


def main() -> None:
    """Count and print the table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--conversations", type=int, default=4_000)
    arguments.add_argument("--seed", type=int, default=1)
    given = arguments.parse_args()
    draw = random.Random(given.seed)
    conversations = made_up_export(given.conversations, draw)
    chunks = chunks_of(conversations)
    first, bare = packed(chunks), one_by_one(chunks)
    table = Table(title=f"{len(conversations):,} conversations, {len(chunks):,} chunks, seed {given.seed}")
    for column in ("", "calls", "input tokens", "calls, share", "tokens, share", "beside"):
        table.add_column(column, justify="right" if column not in {"", "beside"} else "left")
    table.add_row("one request a chunk", f"{len(bare):,}", f"{sum(bare.values()):,}", "", "", "")
    rows = {"first import": (first, bare, "one request a chunk")}
    for newest, name in ((True, "re-import, 5 % new at the end"), (False, "re-import, 5 % new over all years")):
        again = packed(chunks_of(with_new(conversations, 0.05, draw, newest=newest)))
        rows[name] = ({sha: tokens for sha, tokens in again.items() if sha not in first}, first, "first import")
    for name, (bought, beside, words) in rows.items():
        calls, tokens = len(bought) / len(beside), sum(bought.values()) / sum(beside.values())
        table.add_row(name, f"{len(bought):,}", f"{sum(bought.values()):,}", f"{calls:.2f}", f"{tokens:.2f}", words)
    Console().print(table)


if __name__ == "__main__":
    main()
