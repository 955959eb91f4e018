"""When this worker may call the model API at all (design, "Three ways to try again").

Pace is one object of a worker, shared by its runs. It is open or shut::

    open   up to `width` calls at once, first come, first served. 429, 503 and 529 halve the width, each success adds one.
           A `retry-after`, or rate limits that are used up, hold every new call back until then; limits that leave room for
           a few calls only make it that narrow.
    shut   after three troubles in a row without a success between them, or at once where an operator is needed. Callers
           that wait get Outage, so that their runs are handed back. After a backoff, doubled each time, the executor may
           claim one run: its first call is the probe, alone. If it succeeds, Pace opens with a width of one.

Two rules keep one bad moment from being taken for many. Trouble of a call that began before the last trouble is the same
trouble (a burst of 429 halves the width once); only a call that used up its whole deadline counts in any case. And
a success opens Pace, or widens it, only if its call began after the last trouble: older ones say nothing about now.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from consumer.claude.rate_limits import Allowance
from consumer.claude.trouble import Trouble
from consumer.errors import Outage
from consumer.metrics import Metrics

TROUBLES_UNTIL_SHUT = 3
BACKOFF_MAX_SECONDS = 60.0
# A longer `retry-after` is not waited for inside a run: Pace shuts, and the run waits in the ledger.
HELD_BACK_MAX_SECONDS = 60.0


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """A call in flight: how much trouble there had been, and how often Pace had shut, when it began."""

    troubles_before: int
    shuts_before: int


@dataclass(slots=True, eq=False)
class _Waiter:
    run_id: UUID
    granted: asyncio.Future[Call | Outage]


@dataclass(frozen=True, slots=True)
class _Shut:
    trouble: Trouble
    until: float


class Pace:
    """Slots for model calls. Times are of the running loop's clock, so it belongs to one loop."""

    def __init__(self, concurrency: int, backoff_seconds: float, metrics: Metrics) -> None:
        self._concurrency = concurrency
        self._backoff_seconds = backoff_seconds
        self._metrics = metrics
        self._width = concurrency
        self._calls: set[Call] = set()
        self._waiters: deque[_Waiter] = deque()
        self._held_until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._troubles = 0
        self._troubles_in_row = 0
        self._shuts = 0
        self._shuts_in_row = 0
        self._shut: _Shut | None = None
        self._probe: UUID | None = None
        self._changed = asyncio.Event()
        self._show()

    @property
    def is_open(self) -> bool:
        """Whether every run may call."""
        return self._shut is None

    @property
    def width(self) -> int:
        """Calls at once; 0 while shut, when only a probe passes."""
        return self._width if self._shut is None else 0

    @property
    def reason(self) -> str | None:
        """Why it is shut, for readiness; None while open."""
        return None if self._shut is None else self._shut.trouble.what

    @property
    def reopens_in_seconds(self) -> float | None:
        """Time until a run may be claimed as the probe; None while open, and while a probe is under way."""
        if self._shut is None or self._probe is not None:
            return None
        return max(0.0, self._shut.until - _now())

    def claimable(self, now: float | None = None) -> Literal["any", "probe", "none"]:
        """What the executor may claim: any run, one run as the probe (then call `begin_probe`), or none.

        `now` is of the loop's clock.
        """
        if self._shut is None:
            return "any"
        waited = (_now() if now is None else now) >= self._shut.until
        return "probe" if waited and self._probe is None else "none"

    def begin_probe(self, run_id: UUID) -> None:
        """The run was claimed while shut: its calls pass, one at a time, until one of them decides."""
        if self._shut is not None and self._probe is None:
            self._probe = run_id
            self._tell()

    def end_probe(self, run_id: UUID) -> None:
        """The run has ended or was handed back. If none of its calls decided, the next claim may probe."""
        if self._probe == run_id:
            self._probe = None
            self._refuse_waiters()
            self._tell()

    async def wait_changed(self) -> None:
        """Return after the next time that Pace opens, shuts, or takes or loses its probe."""
        await self._changed.wait()

    async def back_off(self, seconds: float) -> None:
        """Wait that long, but not on once Pace is shut."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.is_open:
                    await self.wait_changed()

    @asynccontextmanager
    async def slot(self, run_id: UUID) -> AsyncIterator[Call]:
        """A place for one call of the run, in the order of asking. Tell `succeeded` or `troubled` before leaving it.

        Raises:
            Outage: Pace is shut, or shuts while the call waits, and this run is not the probe's.
        """
        call = await self._enter(run_id)
        try:
            yield call
        finally:
            self._leave(call)

    def succeeded(self, call: Call, allowance: Allowance | None = None) -> None:
        """The call was answered; `allowance` is what the API's rate limits leave for others like it."""
        recent = call.troubles_before == self._troubles
        if self._shut is not None:
            if recent:
                self._open()
            return
        self._troubles_in_row = 0
        if recent and self._width < self._concurrency:
            self._width += 1
        if allowance is not None:
            self._heed(allowance)
        self._show()
        self._admit()

    def _heed(self, allowance: Allowance) -> None:
        """Ask for no more at once than there is room for, before the API has to say so with a 429."""
        self._width = max(1, min(self._width, allowance.calls))
        if allowance.calls == 0:
            self._held_until = max(self._held_until, _now() + allowance.reset_seconds)

    def troubled(self, call: Call, trouble: Trouble) -> None:
        """The call failed, and not because of its request."""
        recent = call.troubles_before == self._troubles
        if self._shut is not None and not recent:
            return
        self._held_until = max(self._held_until, _now() + (trouble.retry_after_seconds or 0.0))
        if not (recent or trouble.slow or trouble.operator):
            return
        self._troubles += 1
        self._troubles_in_row += 1
        if trouble.crowded:
            self._width = max(1, self._width // 2)
        far = (trouble.retry_after_seconds or 0.0) > HELD_BACK_MAX_SECONDS
        if self._shut is not None or trouble.operator or far or self._troubles_in_row >= TROUBLES_UNTIL_SHUT:
            self._close(trouble)
        self._show()

    async def _enter(self, run_id: UUID) -> Call:
        if self._shut is not None and run_id != self._probe:
            raise self._refusal(self._shut)
        waiter = _Waiter(run_id, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        self._admit()
        try:
            granted = await waiter.granted
        except asyncio.CancelledError:
            self._give_up(waiter)
            raise
        if isinstance(granted, Outage):
            raise granted
        if granted.shuts_before != self._shuts:
            # It shut between the grant and this line: the call has not begun, so it need not.
            self._leave(granted)
            return await self._enter(run_id)
        return granted

    def _give_up(self, waiter: _Waiter) -> None:
        """A waiter was cancelled, perhaps in the same moment in which it was granted its slot."""
        with suppress(ValueError):
            self._waiters.remove(waiter)
        if waiter.granted.done() and not waiter.granted.cancelled():
            granted = waiter.granted.result()
            if isinstance(granted, Call):
                self._leave(granted)
        self._admit()

    def _leave(self, call: Call) -> None:
        self._calls.discard(call)
        self._admit()

    def _admit(self) -> None:
        while self._waiters and self._has_room():
            waiter = self._waiters.popleft()
            if not waiter.granted.done():
                call = Call(self._troubles, self._shuts)
                self._calls.add(call)
                waiter.granted.set_result(call)
        if self._waiters and self._shut is None and self._held_until > _now():
            self._wake_at(self._held_until)

    def _has_room(self) -> bool:
        """Calls from before the last time it shut are on their way out: they don't count against the width."""
        counted = sum(call.shuts_before == self._shuts for call in self._calls)
        if self._shut is not None:
            return counted == 0
        return counted < self._width and len(self._calls) < self._concurrency and _now() >= self._held_until

    def _wake_at(self, moment: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(moment, self._admit)

    def _open(self) -> None:
        self._shut = None
        self._probe = None
        self._width = 1
        self._held_until = 0.0
        self._troubles_in_row = 0
        self._shuts_in_row = 0
        self._show()
        self._tell()
        self._admit()

    def _close(self, trouble: Trouble) -> None:
        self._shuts += 1
        self._shuts_in_row += 1
        backoff = min(self._backoff_seconds * 2 ** min(self._shuts_in_row - 1, 16), BACKOFF_MAX_SECONDS)
        self._shut = _Shut(trouble, _now() + max(backoff, trouble.retry_after_seconds or 0.0))
        self._probe = None
        self._refuse_waiters()
        self._tell()

    def _refuse_waiters(self) -> None:
        while self._waiters and self._shut is not None:
            waiter = self._waiters.popleft()
            if not waiter.granted.done():
                waiter.granted.set_result(self._refusal(self._shut))

    @staticmethod
    def _refusal(shut: _Shut) -> Outage:
        return shut.trouble.to_error(max(0.0, shut.until - _now()))

    def _tell(self) -> None:
        """Wake those who wait for a change; who waits from now on waits for the next one."""
        self._changed.set()
        self._changed = asyncio.Event()

    def _show(self) -> None:
        self._metrics.pace_width.set(self.width)
        self._metrics.pace_open.set(int(self.is_open))


def _now() -> float:
    return asyncio.get_running_loop().time()
