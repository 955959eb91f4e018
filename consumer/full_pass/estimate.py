"""What a run will buy, said before it buys anything (design, "The estimate comes first")."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from consumer.claude.gate import RunClaude
from consumer.claude.models import expected_cost_usd
from consumer.claude.requests import Request
from consumer.full_pass.categories import facts_of
from consumer.full_pass.facts import facts_request, packs_of
from consumer.full_pass.memory import memory_request
from consumer.full_pass.reading import ReadExport
from consumer.full_pass.reduction import BATCH_TOKENS, FACTS_TOKENS_MAX
from consumer.full_pass.sections import sections_request
from consumer.postgres.chunks import Chunk

# A MEMORY as long as the model may make it.
_LONGEST_MEMORY = "x" * 16_000

Pages = AsyncIterable[Sequence[Chunk]]


@dataclass(frozen=True, slots=True)
class Estimate:
    """Calls, tokens and dollars that a run still has to buy, if no answer has to be asked for twice."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: Decimal = Decimal(0)

    def with_call(self, model: str, input_tokens: int, output_tokens: int) -> Estimate:
        """One call more; a model without a known price counts as the dearest."""
        return Estimate(
            self.calls + 1,
            self.input_tokens + input_tokens,
            self.output_tokens + output_tokens,
            self.cost_usd + expected_cost_usd(model, input_tokens, output_tokens),
        )


async def estimate_rest(
    pages: Pages | None,
    undated_at: datetime,
    export: ReadExport,
    claude: RunClaude,
    tokens_per_call: int,
    memory: str | None = None,
) -> Estimate:
    """What a run of this export still has to buy, less what is recorded; `pages` are None once its `memory` is saved.

    Raises:
        DatabaseUnavailable: when the records can't be looked at.
    """
    recorded = await claude.recorded()

    def is_recorded(request: Request) -> bool:
        return bytes.fromhex(request.sha256(claude.model)) in recorded

    return await estimate(pages, undated_at, export, claude.model, tokens_per_call, is_recorded, memory)


async def estimate(
    pages: Pages | None,
    undated_at: datetime,
    export: ReadExport,
    model: str,
    tokens_per_call: int,
    is_recorded: Callable[[Request], bool] = lambda _request: False,
    memory: str | None = None,
) -> Estimate:
    """What facts, MEMORY and sections of the export cost. The facts requests are the very ones that will be made."""
    found = Estimate()
    if pages is not None:
        facts_tokens = 0
        async for pack in packs_of(pages, tokens_per_call, undated_at):
            request = facts_request(pack)
            input_tokens, output_tokens = request.expected_tokens(model)
            facts_tokens += output_tokens
            if not is_recorded(request):
                found = found.with_call(model, input_tokens, output_tokens)
        found = _with_memory(found, facts_tokens, model)
    sections = sections_request(export.block(), _LONGEST_MEMORY if memory is None else memory)
    if memory is not None and is_recorded(sections):
        return found
    return found.with_call(model, *sections.expected_tokens(model))


def _with_memory(found: Estimate, facts_tokens: int, model: str) -> Estimate:
    """The calls that make one MEMORY of so many tokens of facts: reductions, where they are too many, and its own."""
    if facts_tokens > FACTS_TOKENS_MAX:
        for first in range(0, facts_tokens, BATCH_TOKENS):
            size = min(BATCH_TOKENS, facts_tokens - first)
            found = found.with_call(model, size, size // 2)
        facts_tokens = FACTS_TOKENS_MAX
    input_tokens, output_tokens = memory_request(facts_of({})).expected_tokens(model)
    return found.with_call(model, input_tokens + facts_tokens, output_tokens)
