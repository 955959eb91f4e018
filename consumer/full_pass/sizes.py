"""What a run would buy, guessed from sizes alone: no export is read (specification 4 to 7).

`estimate` makes the very requests of an export; this is for thousands of users at once, whose exports nobody wants to open.
"""

from __future__ import annotations

from consumer.claude.models import expected_cost_usd, tokens_of_text
from consumer.full_pass.categories import facts_of
from consumer.full_pass.estimate import Estimate
from consumer.full_pass.facts import TOKENS_PER_CALL_MAX, facts_request
from consumer.full_pass.memory import memory_request
from consumer.full_pass.reduction import BATCH_TOKENS, FACTS_TOKENS_MAX
from consumer.full_pass.richest import Block
from consumer.full_pass.sections import sections_request

TOKENS_PER_MESSAGE = 120
"""Of a chat with an assistant, where only the number of messages is known."""
MESSAGES_OF_AN_EXPORT = 4_000
"""Where nothing at all is known."""

_TOKENS_PER_CHUNK = 1_900
_PACKS_ARE_FULL = 0.8  # on average, see packing.py
_FENCE_TOKENS = 35
_FACTS_SHARE = 0.25  # of the tokens that they come from
_BLOCK_TOKENS_MAX = 150_000  # the richest conversations, 600,000 characters
_MEMORY_TOKENS = 4_000


class Sizes:
    """What exports of a size cost with this model and these packs."""

    def __init__(self, model: str, tokens_per_call: int) -> None:
        self._model = model
        self._per_pack = _PACKS_ARE_FULL * min(tokens_per_call, TOKENS_PER_CALL_MAX)
        self._facts_overhead, _ = facts_request(()).expected_tokens(model)
        self._memory = memory_request(facts_of({})).expected_tokens(model)
        self._sections = sections_request(Block(()), "").expected_tokens(model)

    def of_messages(self, messages: int) -> Estimate:
        """A first run of an export with so many messages."""
        tokens = messages * TOKENS_PER_MESSAGE
        return self.of_chunks(-(-tokens // _TOKENS_PER_CHUNK), tokens)

    def of_chunks(self, chunks: int, tokens: int) -> Estimate:
        """A first run of an export that is cut into so many chunks, with so many tokens (`token_count`) in all."""
        packs = min(chunks, max(1, round((tokens + chunks * _FENCE_TOKENS) / self._per_pack)))
        data = tokens_of_text(self._model, 4 * tokens // max(packs, 1))
        facts_tokens = int(packs * data * _FACTS_SHARE)
        found = self.of_calls(packs, self._facts_overhead + data, int(data * _FACTS_SHARE) + 1)
        if facts_tokens > FACTS_TOKENS_MAX:
            found = _sum(found, self.of_calls(-(-facts_tokens // BATCH_TOKENS), BATCH_TOKENS, BATCH_TOKENS // 2))
        memory_input, memory_output = self._memory
        found = _sum(found, self.of_calls(1, memory_input + min(facts_tokens, FACTS_TOKENS_MAX), memory_output))
        sections_input, sections_output = self._sections
        block = tokens_of_text(self._model, 4 * (min(tokens, _BLOCK_TOKENS_MAX) + min(facts_tokens, _MEMORY_TOKENS)))
        return _sum(found, self.of_calls(1, sections_input + block, sections_output))

    def of_calls(self, calls: int, input_tokens: int, output_tokens: int) -> Estimate:
        """So many calls with so many tokens each."""
        cost_usd = calls * expected_cost_usd(self._model, input_tokens, output_tokens)
        return Estimate(calls, calls * input_tokens, calls * output_tokens, cost_usd)


def _sum(one: Estimate, other: Estimate) -> Estimate:
    return Estimate(
        one.calls + other.calls,
        one.input_tokens + other.input_tokens,
        one.output_tokens + other.output_tokens,
        one.cost_usd + other.cost_usd,
    )
