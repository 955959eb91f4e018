"""Reduction of facts that are too many for one MEMORY (specification 4): in rounds by the model, in the end by cutting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from functools import partial

from consumer.claude.gate import RunClaude
from consumer.claude.requests import Answer, Request
from consumer.full_pass.categories import CATEGORIES, FACTS_SCHEMA, Fact, Facts, facts_of, parse_facts, to_json
from consumer.full_pass.consolidation import consolidated
from consumer.full_pass.fence import code_for, fenced
from consumer.full_pass.in_flight import in_order
from consumer.full_pass.packing import Packer
from consumer.full_pass.reduction_prompt import REDUCTION_SYSTEM
from consumer.full_pass.verdicts import Verdict, verdict_of_stop
from consumer.logs import get_log

FACTS_TOKENS_MAX = 200_000
BATCH_TOKENS = 20_000
ROUNDS = 3
# Half of a batch, which can hold several times its estimate where a character is a token.
REDUCTION_MAX_TOKENS = 32_000

_log = get_log("full_pass")


@dataclass(frozen=True, slots=True)
class Batch:
    """Facts of one category that are reduced in one request."""

    category: str
    facts: tuple[Fact, ...]


async def reduce_facts(facts: Facts, claude: RunClaude) -> Facts:
    """The facts as they are, or, over 200,000 tokens, no more than that of them.

    Each round reduces every category in batches of about 20,000 tokens to at most half; a batch whose reduction fails stays as
    it was. What is too much after three rounds is cut proportionally, the oldest first.

    Raises:
        Outage, FinalError: as `RunClaude.ask` does.
    """
    for number in range(1, ROUNDS + 1):
        tokens = await asyncio.to_thread(facts.to_tokens)
        if tokens <= FACTS_TOKENS_MAX:
            return facts
        _log.info("facts_reduced", round=number, facts=len(facts), tokens=tokens)
        facts = await _round(facts, claude)
    return await asyncio.to_thread(cut_to, facts, FACTS_TOKENS_MAX)


async def _round(facts: Facts, claude: RunClaude) -> Facts:
    reduced: dict[str, list[Fact]] = {category: [] for category in CATEGORIES}

    def take(batch: Batch) -> None:
        reduced[batch.category] += batch.facts

    batches = await asyncio.to_thread(to_batches, facts)
    await in_order(_each(batches), partial(_reduced, claude=claude), take)
    return await asyncio.to_thread(consolidated, facts_of(reduced))


async def _each(batches: Sequence[Batch]) -> AsyncGenerator[Batch, None]:
    for batch in batches:
        yield batch


def to_batches(facts: Facts) -> list[Batch]:
    """The facts in batches of about 20,000 tokens, cut where they would be cut again in a later run."""
    return [
        Batch(category, batch)
        for category, found in facts.by_category().items()
        for batch in Packer[Fact](BATCH_TOKENS, _tokens, to_json).pack(found)
    ]


def _tokens(fact: Fact) -> int:
    return len(to_json(fact)) // 4 + 1


async def _reduced(batch: Batch, claude: RunClaude) -> Batch:
    if len(batch.facts) == 1:
        return batch
    answer = await claude.ask(reduction_request(batch))
    verdict, reduced = judge_reduction(answer, batch)
    if verdict is not None:
        await claude.judge(answer, verdict)
        _log.warning("reduction_failed", verdict=verdict, category=batch.category, facts=len(batch.facts))
    return reduced


def reduction_request(batch: Batch) -> Request:
    """The request for one batch: its facts as one JSON object of the five categories."""
    return Request("reduction", REDUCTION_SYSTEM, fenced_facts(_to_facts(batch)), REDUCTION_MAX_TOKENS, FACTS_SCHEMA)


def judge_reduction(answer: Answer, batch: Batch) -> tuple[Verdict | None, Batch]:
    """The reduced batch, or the batch as it was and why. A reduction to nothing, or to more than before, is none."""
    verdict = verdict_of_stop(answer)
    found = parse_facts(answer.text) if verdict is None else None
    if found is None:
        return verdict or Verdict.INVALID, batch
    reduced = Batch(batch.category, found.by_category()[batch.category])
    if not reduced.facts or _to_facts(reduced).to_tokens() >= _to_facts(batch).to_tokens():
        return Verdict.INVALID, batch
    return None, reduced


def _to_facts(batch: Batch) -> Facts:
    return facts_of({batch.category: batch.facts})


def fenced_facts(facts: Facts) -> str:
    """The facts as a request shows them: one JSON object inside its fence."""
    text = to_json(facts)
    return fenced("facts", code_for([text]), text)


def cut_to(facts: Facts, tokens: int) -> Facts:
    """The newest facts of each category, each category cut by the same share, so that all are at most `tokens`."""
    room = 4 * tokens - len(to_json(facts_of({})))
    sizes = {category: [len(to_json(fact)) + 2 for fact in found] for category, found in facts.by_category().items()}
    whole = sum(map(sum, sizes.values()))
    share = min(1.0, max(0, room) / whole) if whole else 1.0
    return facts_of({category: _newest(found, sizes[category], share) for category, found in facts.by_category().items()})


def _newest(facts: Sequence[Fact], sizes: Sequence[int], share: float) -> Sequence[Fact]:
    room = share * sum(sizes)
    first = len(facts)
    while first > 0 and sizes[first - 1] <= room:
        first -= 1
        room -= sizes[first]
    return facts[first:]
