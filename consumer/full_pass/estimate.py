"""What a run will buy, said before it buys anything."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from consumer.claude.models import dearest, price_of
from consumer.full_pass.categories import facts_of
from consumer.full_pass.facts import facts_request
from consumer.full_pass.memory import memory_request
from consumer.full_pass.reading import ReadExport
from consumer.full_pass.richest import Block
from consumer.full_pass.sections import sections_request
from consumer.full_pass.spool import Spool

# Facts are seldom longer than a quarter of the text that states them.
_FACTS_SHARE = 0.25
_MEMORY_TOKENS = 4_096
_SECTIONS_TOKENS = 4_096


@dataclass(frozen=True, slots=True)
class Estimate:
    """Calls, tokens and dollars of one run in which no answer has to be asked for twice. A token is four characters."""

    conversations: int
    chunks: int
    calls: int
    input_tokens: int
    output_tokens: int
    cost_usd: Decimal
    price_known: bool


def estimate(export: ReadExport, spool: Spool, tokens_per_call: int, model: str) -> Estimate:
    """Estimate a run of the export that was read; `spool` holds its chunks."""
    chunk_tokens = sum(chunk.token_count for batch in spool.batches() for chunk in batch)
    packs = max(1, -(-chunk_tokens // tokens_per_call))
    facts_tokens = int(chunk_tokens * _FACTS_SHARE)
    instructions = (facts_request(()).system, memory_request(facts_of({})).system, sections_request(Block(()), "").system)
    facts_system, memory_system, sections_system = (len(text) // 4 for text in instructions)
    input_tokens = (
        *(packs * facts_system, chunk_tokens),
        *(memory_system, facts_tokens),
        *(sections_system, len(export.block().text) // 4, _MEMORY_TOKENS),
    )
    bought = (sum(input_tokens), facts_tokens + _MEMORY_TOKENS + _SECTIONS_TOKENS)
    price = price_of(model)
    cost = (price or dearest()).cost_usd(*bought)
    return Estimate(export.conversations, export.chunks, packs + 2, *bought, cost, price is not None)
