"""The one way to the model: recorded answer, else Pace, call, record (design, the way of the data, 4)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from decimal import Decimal
from typing import Any, TypeVar
from uuid import UUID
from weakref import WeakValueDictionary

from consumer.claude.api import Api, Message, to_text
from consumer.claude.budget import DayBudget, ReplayBudgets, RunBudget
from consumer.claude.models import expected_cost_usd, price_of
from consumer.claude.pace import BACKOFF_MAX_SECONDS, Call, Pace
from consumer.claude.requests import Answer, Request
from consumer.claude.trouble import Trouble
from consumer.errors import LostLease, Outage
from consumer.logs import get_log
from consumer.metrics import Metrics
from consumer.postgres.answers import NOTHING, Answers, BilledAnswer, Bought
from consumer.postgres.spend import Spend
from consumer.settings import Settings
from consumer.traces import Traces
from schemas.events import ErrorCode

TRIES = 5
# A run that is told to stop still gets this long to write down what was paid for.
RECORDING_MAX_SECONDS = 10.0

_STOP_REASONS = frozenset(
    {"end_turn", "max_tokens", "stop_sequence", "tool_use", "pause_turn", "refusal", "model_context_window_exceeded"}
)
Result = TypeVar("Result")
_log = get_log("claude")


class Claude:
    """The model API of one worker: the SDK's client, Pace, the record."""

    def __init__(self, settings: Settings, answers: Answers, spend: Spend, metrics: Metrics, traces: Traces) -> None:
        """Open no connection yet.

        Raises:
            ConfigurationError: ANTHROPIC_API_KEY is missing or can't be a key.
        """
        self.api = Api(settings)
        self.pace = Pace(settings.model_concurrency, settings.retry_backoff_seconds, metrics)
        self.backoff_seconds = settings.retry_backoff_seconds
        self.answers = answers
        self.metrics = metrics
        self.traces = traces
        most_usd = settings.max_cost_usd_per_day
        self.day = DayBudget(spend, None if most_usd is None else Decimal(str(most_usd)))
        self.replays = ReplayBudgets(spend)
        self._most_run_usd = Decimal(str(settings.max_run_cost_usd))

    def for_run(self, run_id: UUID, user_id: UUID, bought: Bought = NOTHING, *, replay: int | None = None) -> RunClaude:
        """The gate as one run sees it: with its user's recorded answers, and a budget less what it has bought already.

        `replay` is the generation of the replay that the run belongs to, and whose budget it spends.
        """
        spent_usd = bought.cost_usd
        if spent_usd is None:
            spent_usd = expected_cost_usd(self.api.model, bought.input_tokens, bought.output_tokens)
        return RunClaude(self, run_id, user_id, RunBudget(self._most_run_usd, spent_usd), replay)

    async def close(self) -> None:
        """Close the connections. Runs must have ended."""
        await self.api.close()


class RunClaude:
    """What the stages of one run ask through."""

    def __init__(self, claude: Claude, run_id: UUID, user_id: UUID, budget: RunBudget, replay: int | None) -> None:
        self._claude = claude
        self._budget = budget
        self._replay = replay
        self._run_id = run_id
        self._user_id = user_id
        self._gone = False
        self._asking: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @property
    def model(self) -> str:
        """The model of every call."""
        return self._claude.api.model

    async def ask(self, request: Request) -> Answer:
        """The user's recorded answer to the very same request, or a bought one, which is recorded before it is returned.

        Raises:
            Outage: the model API can't be used now; OperatorTrouble where an operator has to end that, or the budget of the day
                or of the replay is spent.
            FinalError: `model_rejected`, `budget_exceeded`.
            LostLease: the run is gone, since its user was forgotten; no further call is made.
        """
        sha256 = request.sha256(self.model)
        # Two equal requests of a run at the same moment are one: the second finds what the first recorded.
        async with self._asking.setdefault(sha256, asyncio.Lock()):
            found = await self._claude.answers.find(self._user_id, self._run_id, sha256)
            if found is not None:
                self._count(request, "recorded")
                message = Message(found.content, found.stop_reason, found.input_tokens, found.output_tokens)
                return _to_answer(sha256, message, recorded=True)
            async with self._budget.reserved(self.expected_cost_usd(request)):
                return _to_answer(sha256, await self._buy(request, sha256), recorded=False)

    def expected_cost_usd(self, request: Request) -> Decimal:
        """What the request would cost if it were bought; a model without a known price counts as the dearest."""
        return expected_cost_usd(self.model, *request.expected_tokens(self.model))

    def require_budget(self, expected_usd: Decimal) -> None:
        """Make sure that the rest of the run, expected to cost so much, is allowed.

        Raises:
            FinalError: `budget_exceeded`, naming estimate and setting.
        """
        self._budget.require(expected_usd)

    async def recorded(self) -> set[bytes]:
        """The hashes of all requests that this run would not have to buy."""
        return await self._claude.answers.recorded(self._user_id, self._run_id)

    async def judge(self, answer: Answer, verdict: str) -> None:
        """Note why an answer is unusable: from now on it serves this run alone, so that a crash doesn't buy it again."""
        await self._claude.answers.judge(self._user_id, answer.request_sha256, verdict)

    async def count_tokens(self, request: Request) -> int:
        """The API's own count of the request's input tokens; costs nothing and is not recorded.

        Raises:
            Outage, FinalError: as `ask` does.
        """

        async def once(_call: Call) -> int | Trouble:
            # Says nothing about whether an answer can be bought (an empty account may count): Pace is told of trouble only.
            return await self._claude.api.count_tokens(request)

        return await persevere(self._claude.pace, self._run_id, self._claude.backoff_seconds, once)

    async def _buy(self, request: Request, sha256: str) -> Message:
        async def once(call: Call) -> Message | Trouble:
            if self._gone:
                raise LostLease
            await self._claude.day.require_room()
            if self._replay is not None:
                await self._claude.replays.require_room(self._replay)
            timed = self._claude.metrics.model_call_seconds.labels(request.kind).time()
            with timed, self._claude.traces.model_call(self.model, request.kind) as span:
                outcome = await self._claude.api.create(request)
                span.set_attributes(_told(outcome))
            if isinstance(outcome, Trouble):
                self._count(request, outcome.outcome)
            else:
                self._claude.pace.succeeded(call, outcome.allowance)
                self._count(request, outcome.stop_reason if outcome.stop_reason in _STOP_REASONS else "other")
            return outcome

        message = await persevere(self._claude.pace, self._run_id, self._claude.backoff_seconds, once)
        await to_its_end(self._record(request, sha256, message))
        return message

    async def _record(self, request: Request, sha256: str, message: Message) -> None:
        price = price_of(self.model, message.input_tokens)
        cost = None if price is None else price.cost_usd(message.input_tokens, message.output_tokens)
        spend_usd = expected_cost_usd(self.model, message.input_tokens, message.output_tokens)
        self._spent(spend_usd)
        self._meter(message, cost)
        billed = BilledAnswer(
            request_sha256=sha256,
            kind=request.kind,
            model=self.model,
            content=message.content,
            stop_reason=message.stop_reason,
            input_tokens=message.input_tokens,
            output_tokens=message.output_tokens,
            cost_usd=cost,
            spend_usd=spend_usd,
        )
        try:
            await self._claude.answers.record(self._run_id, self._user_id, billed)
        except LostLease:
            self._gone = True
            raise
        finally:
            self._claude.day.recorded(spend_usd)
            if self._replay is not None:
                self._claude.replays.recorded(self._replay, spend_usd)

    def _spent(self, spend_usd: Decimal) -> None:
        self._budget.spent(spend_usd)
        self._claude.day.spent(spend_usd)
        if self._replay is not None:
            self._claude.replays.spent(self._replay, spend_usd)

    def _count(self, request: Request, outcome: str | None) -> None:
        self._claude.metrics.model_calls.labels(request.kind, outcome).inc()

    def _meter(self, message: Message, cost: Decimal | None) -> None:
        metrics = self._claude.metrics
        metrics.model_tokens.labels("input").inc(message.input_tokens)
        metrics.model_tokens.labels("output").inc(message.output_tokens)
        metrics.model_cost_usd.inc(float(cost or 0))


async def persevere(
    pace: Pace, run_id: UUID, backoff_seconds: float, once: Callable[[Call], Awaitable[Result | Trouble]]
) -> Result:
    """Call until it goes well, as far as Pace allows and at most `TRIES` times.

    A trouble that names no time to come back at makes this call wait by itself, and others go on.

    Raises:
        Outage: Pace is shut, or this call alone keeps failing.
    """
    for tried in range(1, TRIES + 1):
        async with pace.slot(run_id) as call:
            outcome = await once(call)
            if not isinstance(outcome, Trouble):
                return outcome
            pace.troubled(call, outcome)
        if tried == TRIES:
            detail = f"one call failed {TRIES} times while others may have gone well: {outcome.what}"
            raise Outage(ErrorCode.MODEL_UNAVAILABLE, detail, outcome.retry_after_seconds or backoff_seconds)
        if outcome.retry_after_seconds is None:
            await pace.back_off(min(backoff_seconds * 2 ** (tried - 1), BACKOFF_MAX_SECONDS))
    raise AssertionError("unreachable: the last try returns or raises")


async def to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Await the work, and finish it even if the caller is cancelled meanwhile; it never outlives this call.

    After a cancellation it has `RECORDING_MAX_SECONDS` left, and the cancellation goes on afterwards.
    """
    # A task group would cancel the work together with the caller: this is the one thing that must not happen here.
    task = asyncio.create_task(work)
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError:
        await _last_seconds_of(task)
        raise
    task.result()


async def _last_seconds_of(task: asyncio.Task[None]) -> None:
    try:
        await asyncio.wait({task}, timeout=RECORDING_MAX_SECONDS)
    finally:
        task.cancel()
    await asyncio.wait({task})
    if task.cancelled() or task.exception() is not None:
        _log.error("answer_not_recorded", exc_info=None if task.cancelled() else task.exception())


def _told(outcome: Message | Trouble) -> dict[str, str | int | list[str]]:
    """What a span says of a call."""
    if isinstance(outcome, Trouble):
        return {"error.type": outcome.outcome}
    return {
        "gen_ai.usage.input_tokens": outcome.input_tokens,
        "gen_ai.usage.output_tokens": outcome.output_tokens,
        "gen_ai.response.finish_reasons": [outcome.stop_reason if outcome.stop_reason in _STOP_REASONS else "other"],
    }


def _to_answer(sha256: str, message: Message, *, recorded: bool) -> Answer:
    return Answer(
        request_sha256=sha256,
        text=to_text(message.content),
        stop_reason=message.stop_reason,
        input_tokens=message.input_tokens,
        output_tokens=message.output_tokens,
        recorded=recorded,
    )
