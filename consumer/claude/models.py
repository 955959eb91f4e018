"""The Claude models that are known by name: how much they take, how much they cost, how long they stay.

From platform.claude.com (the models overview, the page of each model, "Pricing" and "Model deprecations"), as published
in November 2026. `not_retired_before` is what Anthropic promised for models without a retirement date. Prices are those of
the Messages API; a batch costs half. Models that can't be called any more are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Literal

Thinking = Literal["on request", "disabled", "between_tools", "always"]

# What the longest answer of a run may need: the five sections.
LEAST_OUTPUT_TOKENS = 8_192
# Claude 4.7 and later count about 30 % more tokens for the same text; so, surely, will a model that is not known yet.
NEWER_TOKENIZER = Decimal("1.3")

_PER_TOKEN = Decimal(1) / 1_000_000
_COST_PLACES = Decimal("0.00000001")


@dataclass(frozen=True, slots=True)
class Price:
    """Dollars per million tokens. Output includes thinking."""

    input_usd_per_mtok: Decimal
    output_usd_per_mtok: Decimal

    def cost_usd(self, input_tokens: int, output_tokens: int) -> Decimal:
        """Dollars for one call, to eight places (a token of the cheapest model costs 0.0000001)."""
        dollars = (self.input_usd_per_mtok * input_tokens + self.output_usd_per_mtok * output_tokens) * _PER_TOKEN
        return dollars.quantize(_COST_PLACES)


@dataclass(frozen=True, slots=True)
class Model:
    """A known model. Above `long_input_tokens` of input, the whole request costs `long_price`.

    Thinking before the answer takes from `max_tokens`, and this service never asks for it. `thinking` says how to do without:
    nothing has to be said ("on request"), this `thinking.type` has to be, or it can't be switched off ("always").
    `tokens_of_text` is how many tokens it counts for what four bytes of text are taken for.
    """

    name: str
    context_tokens: int
    max_output_tokens: int
    price: Price
    thinking: Thinking
    tokens_of_text: Decimal = NEWER_TOKENIZER
    structured_output: bool = True
    not_retired_before: date | None = None
    retires_on: date | None = None
    long_input_tokens: int | None = None
    long_price: Price | None = None

    def price_for(self, input_tokens: int) -> Price:
        """The price of a request of that size."""
        if self.long_price is not None and self.long_input_tokens is not None and input_tokens > self.long_input_tokens:
            return self.long_price
        return self.price


def unfit(model: Model) -> str | None:
    """What the model lacks for this service, or None."""
    if model.max_output_tokens < LEAST_OUTPUT_TOKENS:
        return f"it answers with {model.max_output_tokens} tokens at most, and {LEAST_OUTPUT_TOKENS} are needed"
    return None if model.structured_output else "it has no structured output"


def _usd(input_usd: str, output_usd: str) -> Price:
    return Price(Decimal(input_usd), Decimal(output_usd))


_MILLION = 1_000_000
_ONE = Decimal(1)
_KNOWN = (
    Model("claude-fable-5-2", _MILLION, 128_000, _usd("8", "40"), "always"),
    Model("claude-mythos-5-2", _MILLION, 128_000, _usd("8", "40"), "always"),
    Model("claude-fable-5-1", _MILLION, 128_000, _usd("10", "50"), "always", not_retired_before=date(2027, 9, 1)),
    Model("claude-fable-5", _MILLION, 128_000, _usd("10", "50"), "always", not_retired_before=date(2027, 6, 9)),
    Model("claude-mythos-5-1", _MILLION, 128_000, _usd("10", "50"), "always"),
    Model("claude-mythos-5", _MILLION, 128_000, _usd("10", "50"), "always"),
    Model("claude-opus-5-5", _MILLION, 128_000, _usd("4", "20"), "always"),
    Model("claude-opus-5", _MILLION, 128_000, _usd("5", "25"), "disabled", not_retired_before=date(2027, 7, 24)),
    Model("claude-opus-4-8", _MILLION, 128_000, _usd("5", "25"), "on request", not_retired_before=date(2027, 5, 28)),
    Model("claude-opus-4-7", _MILLION, 128_000, _usd("5", "25"), "on request", not_retired_before=date(2027, 4, 16)),
    Model("claude-opus-4-6", _MILLION, 128_000, _usd("5", "25"), "on request", _ONE, not_retired_before=date(2027, 2, 5)),
    Model(
        "claude-opus-4-5-20251101", 200_000, 64_000, _usd("5", "25"), "on request", _ONE, not_retired_before=date(2026, 11, 24)
    ),
    Model("claude-sonnet-5-5", _MILLION, 128_000, _usd("2", "10"), "between_tools"),
    Model("claude-sonnet-5", _MILLION, 128_000, _usd("2", "10"), "disabled", not_retired_before=date(2027, 6, 30)),
    Model("claude-sonnet-4-6", _MILLION, 64_000, _usd("3", "15"), "on request", _ONE, not_retired_before=date(2027, 2, 17)),
    Model("claude-sonnet-4-5-20250929", 200_000, 64_000, _usd("3", "15"), "on request", _ONE, retires_on=date(2026, 11, 30)),
    Model(
        "claude-haiku-5-5",
        _MILLION,
        128_000,
        _usd("0.10", "0.50"),
        "disabled",
        not_retired_before=date(2027, 10, 7),
        long_input_tokens=100_000,
        long_price=_usd("0.50", "2.50"),
    ),
    Model(
        "claude-haiku-4-5-20251001", 200_000, 64_000, _usd("1", "5"), "on request", _ONE, not_retired_before=date(2026, 10, 15)
    ),
)
_ALIASES = {
    "claude-opus-4-5": "claude-opus-4-5-20251101",
    "claude-sonnet-4-5": "claude-sonnet-4-5-20250929",
    "claude-haiku-4-5": "claude-haiku-4-5-20251001",
}
_BY_NAME = {model.name: model for model in _KNOWN}


def known_models() -> tuple[Model, ...]:
    """Every model of the table, the most capable family first."""
    return _KNOWN


def model_of(name: str) -> Model | None:
    """What is known of a model, by its name or its alias."""
    return _BY_NAME.get(_ALIASES.get(name, name))


def tokens_of_text(name: str, text_bytes: int) -> int:
    """The tokens that the model is expected to count for so many bytes of UTF-8."""
    model = model_of(name)
    return int((NEWER_TOKENIZER if model is None else model.tokens_of_text) * text_bytes / 4)


def price_of(name: str, input_tokens: int = 0) -> Price | None:
    """What a request of that many input tokens costs, or None for a model that is not in the table."""
    model = model_of(name)
    return None if model is None else model.price_for(input_tokens)


def expected_cost_usd(name: str, input_tokens: int, output_tokens: int) -> Decimal:
    """What so many tokens cost; a model without a known price counts as the dearest one."""
    return (price_of(name, input_tokens) or dearest()).cost_usd(input_tokens, output_tokens)


def dearest() -> Price:
    """The highest prices of the table: what an unknown model is counted as where a limit is held."""
    prices = [price for model in _KNOWN for price in (model.price, model.long_price) if price is not None]
    return Price(max(price.input_usd_per_mtok for price in prices), max(price.output_usd_per_mtok for price in prices))
