"""What may be spent: by one run (`MAX_RUN_COST_USD`), by a replay (`--max-cost-usd`) and by all workers in 24 hours
(`MAX_COST_USD_PER_DAY`)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal

from consumer.errors import FinalError, OperatorTrouble
from consumer.postgres.replay_budget import ReplayStopped
from consumer.postgres.spend import DaySpend, Spend
from schemas.events import ErrorCode

# Before a claim, another worker's spending is seen this late at most; before a call it is looked up.
_STALE_SECONDS = 1.0


class RunBudget:
    """The dollars of one run, over all its attempts. A call reserves what it is expected to cost and gives back the difference.

    `spent_usd` is what earlier attempts bought.
    """

    def __init__(self, most_usd: Decimal, spent_usd: Decimal) -> None:
        self._most_usd = most_usd
        self._spent_usd = spent_usd
        self._reserved_usd = Decimal(0)
        self._returned = asyncio.Condition()

    def require(self, expected_usd: Decimal) -> None:
        """Make sure, before the first call, that the whole run fits.

        Raises:
            FinalError: `budget_exceeded`, naming estimate and setting.
        """
        if self._spent_usd + expected_usd > self._most_usd:
            raise FinalError(
                ErrorCode.BUDGET_EXCEEDED,
                f"the run is estimated at ${self._spent_usd + expected_usd:.4f}, ${self._spent_usd:.4f} of it spent already; "
                f"FULL_PASS_MAX_RUN_COST_USD allows ${self._most_usd}",
            )

    @asynccontextmanager
    async def reserved(self, expected_usd: Decimal) -> AsyncIterator[None]:
        """Hold back what a call is expected to cost; it waits while only what others hold back stands in its way.

        Raises:
            FinalError: `budget_exceeded`, when what was spent leaves no room for the call.
        """
        async with self._returned:
            while self._spent_usd + self._reserved_usd + expected_usd > self._most_usd:
                if not self._reserved_usd:
                    self.require(expected_usd)
                await self._returned.wait()
            self._reserved_usd += expected_usd
        try:
            yield
        finally:
            self._reserved_usd -= expected_usd
            await self._tell()

    def spent(self, cost_usd: Decimal) -> None:
        """A call was billed."""
        self._spent_usd += cost_usd

    async def _tell(self) -> None:
        async with self._returned:
            self._returned.notify_all()


class DayBudget:
    """The dollars of all workers in 24 hours. Beyond the limit runs wait; it is overspent by what was in flight at most.

    What this worker was billed for counts from then on, although it is recorded a moment later.
    """

    def __init__(self, spend: Spend, most_usd: Decimal | None) -> None:
        self._spend = spend
        self._most_usd = most_usd
        self._day = DaySpend(Decimal(0), None)
        self._unrecorded_usd = Decimal(0)
        self._looked_at = -float("inf")

    async def room_in_seconds(self, stale_seconds: float = _STALE_SECONDS) -> float | None:
        """Seconds until there is room again; None while there is."""
        if self._most_usd is None:
            return None
        if _now() - self._looked_at >= stale_seconds:
            self._day = await self._spend.last_day(self._most_usd)
            self._looked_at = _now()
        if self._spent_usd < self._most_usd:
            return None
        return self._day.room_in_seconds or _STALE_SECONDS

    async def require_room(self) -> None:
        """Let a call go ahead only while there is room.

        Raises:
            OperatorTrouble: `budget_exceeded`; the run waits in the ledger and is never given up for it.
        """
        seconds = await self.room_in_seconds(stale_seconds=0)
        if seconds is not None:
            raise OperatorTrouble(ErrorCode.BUDGET_EXCEEDED, self.reason, seconds)

    async def release(self) -> None:
        """There is room again, perhaps earlier than expected: what waits for it may be claimed."""
        await self._spend.release()

    def spent(self, cost_usd: Decimal) -> None:
        """This worker was billed."""
        self._unrecorded_usd += cost_usd

    def recorded(self, cost_usd: Decimal) -> None:
        """What it was billed is in the hour's spend now."""
        self._unrecorded_usd -= cost_usd

    @property
    def reason(self) -> str:
        """What readiness and the run's log line say."""
        return (
            f"${self._spent_usd:.2f} were spent in the last 24 hours, FULL_PASS_MAX_COST_USD_PER_DAY allows "
            f"${self._most_usd}: runs wait until there is room"
        )

    @property
    def _spent_usd(self) -> Decimal:
        return self._day.spent_usd + self._unrecorded_usd


class ReplayBudgets:
    """The dollars of replays. Beyond its limit a replay's runs wait; it is overspent by what was in flight at most.

    Looked up before each call of a replay's run, so that a budget that is raised and a replay that is cancelled count at once.
    What this worker was billed for counts from then on, although it is recorded a moment later.
    """

    def __init__(self, spend: Spend) -> None:
        self._spend = spend
        self._unrecorded_usd: dict[int, Decimal] = {}

    async def require_room(self, generation: int) -> None:
        """Let a call of a run of this replay go ahead only while there is room.

        Raises:
            ReplayStopped: `budget_exceeded` or `cancelled`; the run waits in the ledger.
        """
        replay = await self._spend.of_replay(generation)
        if replay is None:
            return
        if replay.state == "cancelled":
            raise ReplayStopped(ErrorCode.CANCELLED, f"replay {generation} was cancelled: nothing more is bought for it")
        spent_usd = replay.cost_usd + self._unrecorded_usd.get(generation, Decimal(0))
        if replay.state != "running" or (replay.max_cost_usd is not None and spent_usd >= replay.max_cost_usd):
            raise ReplayStopped(
                ErrorCode.BUDGET_EXCEEDED,
                f"replay {generation} has spent ${spent_usd:.4f} of ${replay.max_cost_usd or 0:.4f}; its runs wait until "
                f"'full-pass replay resume {generation} --max-cost-usd …' raises it",
            )

    def spent(self, generation: int, cost_usd: Decimal) -> None:
        """This worker was billed for a run of the replay."""
        self._unrecorded_usd[generation] = self._unrecorded_usd.get(generation, Decimal(0)) + cost_usd

    def recorded(self, generation: int, cost_usd: Decimal) -> None:
        """What it was billed is in the replay's spend now."""
        self._unrecorded_usd[generation] -= cost_usd
        if not self._unrecorded_usd[generation]:
            del self._unrecorded_usd[generation]


def _now() -> float:
    return asyncio.get_running_loop().time()
