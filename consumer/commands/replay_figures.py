"""What a replay would do and cost: users and runs counted, money from the best that is known of each user."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from uuid import UUID

from consumer.claude.models import price_of
from consumer.postgres.selection import Picked, Selection
from consumer.settings import Settings

# What a model of Haiku's class takes for a facts request, and for MEMORY and sections one after the other.
FACTS_SECONDS = 5.0
DOCUMENTS_SECONDS = 60.0
EVIDENCE = ("recorded", "chunks", "message_count", "sample", "constant", "superseded")
"""What a run's cost is known from, the best first; what is superseded ends without a call.

`recorded`: what an earlier run of the key, or else of the user, has bought. `chunks`: the user's stored chunks. `message_count`:
the event's. `sample`: the average of the others; `constant`: the same where there are no others.
"""


@dataclass(slots=True)
class Figures:
    """Counts are exact as of now; tokens and dollars are guesses, of a full price. `known_from` counts runs by evidence.

    `answers_save_usd_at_most` is what the answers recorded of these users have cost: a request that has changed since, with its
    prompt or its conversations, is bought again, so it is an upper bound.
    """

    model: str
    users: int = 0
    runs: int = 0
    superseded: int = 0
    passed_over: int = 0
    filled: int = 0
    forgotten: int = 0
    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: Decimal = Decimal(0)
    answers_save_usd_at_most: Decimal = Decimal(0)
    price_known: bool = True
    seconds: float = 0.0
    known_from: Counter[str] = field(default_factory=Counter)

    def shares(self) -> dict[str, dict[str, float]]:
        """Runs and their share, from 0 to 1, by what their cost is known from."""
        return {
            name: {"runs": self.known_from[name], "share": round(self.known_from[name] / (self.runs or 1), 4)}
            for name in EVIDENCE
            if self.known_from[name]
        }

    def document(self) -> dict[str, Any]:
        """As JSON."""
        names = (
            "model", "users", "runs", "superseded", "passed_over", "filled", "forgotten", "calls",
            "input_tokens", "output_tokens", "cost_usd", "answers_save_usd_at_most", "price_known", "seconds",
        )  # fmt: skip
        return {**{name: getattr(self, name) for name in names}, "known_from": self.shares()}


async def figures_of(selection: Selection, settings: Settings, per_minute: float | None) -> Figures:
    """Look at everything that is picked, page by page.

    Raises:
        DatabaseUnavailable: when PostgreSQL is away.
    """
    adding = Adding(settings)
    async for page in selection.pages(settings.model, settings.retention_days):
        for picked in page:
            adding.add(picked)
    return adding.figures(per_minute)


class Adding:
    """Adds up what is picked, user by user."""

    def __init__(self, settings: Settings) -> None:
        from consumer.full_pass.sizes import Sizes

        self._settings = settings
        self._sizes = Sizes(settings.model, settings.facts_tokens_per_call)
        self._found = Figures(settings.model, price_known=price_of(settings.model) is not None)
        self._user: UUID | None = None  # they come by user
        self._answers_of: UUID | None = None

    def add(self, picked: Picked) -> None:
        found = self._found
        if picked.standing in {"forgotten", "passed_over", "filled"}:
            setattr(found, picked.standing, getattr(found, picked.standing) + 1)
            return
        found.runs += 1
        found.users += picked.user_id != self._user
        self._user = picked.user_id
        if picked.standing == "superseded":
            found.superseded += 1
            found.known_from["superseded"] += 1
            return
        self._add_cost(picked)

    def _add_cost(self, picked: Picked) -> None:
        found = self._found
        if picked.model_calls and picked.input_tokens is not None and picked.output_tokens is not None:
            evidence, cost = "recorded", self._recorded(picked.model_calls, picked.input_tokens, picked.output_tokens)
            if picked.cost_usd is not None and picked.model in {None, found.model}:
                cost = type(cost)(picked.model_calls, picked.input_tokens, picked.output_tokens, picked.cost_usd)
        elif picked.chunks:
            evidence, cost = "chunks", self._sizes.of_chunks(picked.chunks, picked.chunk_tokens)
        elif picked.message_count is not None:
            evidence, cost = "message_count", self._sizes.of_messages(picked.message_count)
        else:
            found.known_from["sample"] += 1
            return
        found.known_from[evidence] += 1
        found.calls += cost.calls
        found.input_tokens += cost.input_tokens
        found.output_tokens += cost.output_tokens
        found.cost_usd += cost.cost_usd
        if picked.user_id != self._answers_of:
            self._answers_of = picked.user_id
            found.answers_save_usd_at_most += min(picked.answers_usd, cost.cost_usd)

    def _recorded(self, calls: int, input_tokens: int, output_tokens: int) -> Any:
        """What an earlier run bought, at the price of the model that would be asked now."""
        return self._sizes.of_calls(calls, input_tokens // calls, output_tokens // calls)

    def figures(self, per_minute: float | None) -> Figures:
        """All that was added, with the runs of which nothing is known at the average of the others."""
        from consumer.full_pass.sizes import MESSAGES_OF_AN_EXPORT

        found = self._found
        unknown = found.known_from["sample"]
        if known := found.runs - found.superseded - unknown:
            for name in ("calls", "input_tokens", "output_tokens"):
                setattr(found, name, getattr(found, name) * (known + unknown) // known)
            found.cost_usd = found.cost_usd * (known + unknown) / known
        elif unknown:
            found.known_from["constant"] = found.known_from.pop("sample")
            each = self._sizes.of_messages(MESSAGES_OF_AN_EXPORT)
            found.calls, found.cost_usd = unknown * each.calls, unknown * each.cost_usd
            found.input_tokens, found.output_tokens = unknown * each.input_tokens, unknown * each.output_tokens
        found.cost_usd = round(found.cost_usd, 6)
        found.seconds = round(self._seconds(per_minute), 1)
        return found

    def _seconds(self, per_minute: float | None) -> float:
        """How long one worker takes: its runs share its calls, and the last run becomes due no earlier than the rate lets it."""
        settings, found = self._settings, self._found
        going = found.runs - found.superseded
        documents = DOCUMENTS_SECONDS * going / min(settings.run_concurrency, max(going, 1))
        work = documents + FACTS_SECONDS * max(0, found.calls - 2 * going) / settings.model_concurrency
        return max(work, 60 * found.runs / per_minute if per_minute else 0.0)
