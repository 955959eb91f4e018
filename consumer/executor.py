"""Claims runs, renews their leases, and carries them; how they stopped is written down by `settling`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from uuid import UUID

import structlog

from consumer.claude.gate import Claude
from consumer.errors import LostLease, PassingFailure, RunError
from consumer.health import Health
from consumer.logs import get_log
from consumer.metrics import Metrics
from consumer.postgres.database import DatabaseUnavailable
from consumer.postgres.pause import Paused
from consumer.postgres.profiles import Profiles
from consumer.postgres.runs import Claim, Ledger
from consumer.postgres.wakeups import RUNS_CHANNEL, Wakeups
from consumer.settings import Settings, required
from consumer.settling import Settling, too_many
from schemas.events import ErrorCode, to_utc_text

PART = "executor"
SUSPECT_FAILURES = 2
ENDING_SECONDS = 0.5
_log = get_log(PART)


@dataclass
class _Hands:
    """The runs that this worker holds: under way, or waiting to be put back when PostgreSQL answers again."""

    under_way: dict[UUID, tuple[Claim, asyncio.Task[None]]] = field(default_factory=dict)
    to_put_back: dict[UUID, Claim] = field(default_factory=dict)
    lost: set[UUID] = field(default_factory=set)
    paused: set[UUID] = field(default_factory=set)

    def all(self) -> list[UUID]:
        return [*self.under_way, *self.to_put_back]

    def has_suspect(self) -> bool:
        return any(claim.failures >= SUSPECT_FAILURES for claim, _ in self.under_way.values())


class Executor:
    """The part that works the ledger off. Its runs live in `tasks`, so they go on while the part itself is started again."""

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        profiles: Profiles,
        claude: Claude,
        carry: Callable[[Claim], Awaitable[None]],
        *,
        health: Health,
        metrics: Metrics,
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._settling = Settling(settings, ledger, profiles, health=health, metrics=metrics)
        self._pace = claude.pace
        self._day = claude.day
        self._carry_pass = carry
        self._health = health
        self._metrics = metrics
        self._tasks = tasks
        self._hands = _Hands()
        self._freed = asyncio.Event()
        self._day_was_spent = True  # or it may have been, before this worker started
        self._away_at = -float("inf")
        self._renewed_at = -float("inf")

    async def run(self, stopping: asyncio.Event) -> None:
        """Claim and renew until `stopping` is set, then let runs finish or hand them back in `SHUTDOWN_SECONDS`.

        While an operator has the executors paused it hands back what it holds, and claims nothing.

        Raises:
            DatabaseUnavailable: when PostgreSQL is away; the runs under way go on.
        """
        url = required(self._settings.database_url, "DATABASE_URL")
        try:
            async with Wakeups.connect(url, self._settings.lease_seconds, channels=(RUNS_CHANNEL,)) as wakeups:
                while not stopping.is_set():
                    await self._put_back_waiting()
                    await self._keep_leases(wakeups)
                    paused = await self._ledger.pause.state()
                    if paused is None:
                        wait_seconds = await self._claim_what_fits(stopping)
                        self._health.well(PART)
                    else:
                        wait_seconds = self._settings.poll_seconds
                        await self._let_go(paused)
                    await self._rest(wakeups, stopping, wait_seconds)
                await self._finish(wakeups)
        except DatabaseUnavailable:
            self._away_at = _now()
            if stopping.is_set():
                await self._cancel_all()
            raise

    # -- leases ---------------------------------------------------------------------------------------------------------

    async def _keep_leases(self, wakeups: Wakeups) -> None:
        """Renew every quarter of a lease; stop the runs that another worker took over meanwhile."""
        if _now() - self._renewed_at < self._settings.lease_seconds / 4:
            return
        await wakeups.ping()
        lost = await self._ledger.renew([claim for claim, _ in self._hands.under_way.values()], self._settings.lease_seconds)
        self._renewed_at = _now()
        if ending := [self._hands.under_way[run_id][1] for run_id in lost & self._hands.under_way.keys()]:
            # One that has ended in this very moment is not lost: it only has not heard of its commit yet.
            await asyncio.wait(ending, timeout=ENDING_SECONDS)
        for run_id in lost & self._hands.under_way.keys():
            self._hands.lost.add(run_id)
            self._hands.under_way[run_id][1].cancel()

    async def _put_back_waiting(self) -> None:
        """Runs that stopped while PostgreSQL was away still have to be handed back, or they would count as crashed."""
        for run_id, claim in list(self._hands.to_put_back.items()):
            try:
                await self._settling.put_back_for(claim, DatabaseUnavailable("PostgreSQL was away while the run was under way"))
            except LostLease:
                _log.info("run_ended_or_taken_over", run_id=str(run_id), hint="a commit had gone through, or its lease ran out")
            self._hands.to_put_back.pop(run_id, None)

    # -- claims ---------------------------------------------------------------------------------------------------------

    async def _claim_what_fits(self, stopping: asyncio.Event) -> float:
        """Claim runs while there is room, and return the seconds until there may be something to claim."""
        poll_seconds = self._settings.poll_seconds
        room_in_seconds = await self._look_for_room()
        if room_in_seconds is not None:
            return min(poll_seconds, room_in_seconds)
        while len(self._hands.under_way) < self._settings.run_concurrency and not stopping.is_set():
            may_claim = self._pace.claimable()
            if may_claim == "none":
                return min(poll_seconds, self._pace.reopens_in_seconds or poll_seconds)
            claim = await self._ledger.claim(
                self._settings.lease_seconds,
                self._hands.all(),
                expired_count=_now() - self._away_at > self._settings.lease_seconds,
                suspects=not self._hands.has_suspect(),
            )
            if claim is None:
                ahead = await self._ledger.seconds_until_next()
                return min(poll_seconds, max(ahead, 0.01)) if ahead is not None else poll_seconds
            if may_claim == "probe":
                self._pace.begin_probe(claim.run_id)
            self._start(claim)
        return poll_seconds

    async def _look_for_room(self) -> float | None:
        """Seconds until the day's budget has room again, which readiness says; None while it has."""
        room_in_seconds = await self._day.room_in_seconds()
        if room_in_seconds is not None:
            self._day_was_spent = True
            self._health.unwell("budget", self._day.reason)
        elif self._day_was_spent:
            await self._day.release()
            self._day_was_spent = False
            self._health.well("budget")
        return room_in_seconds

    async def _let_go(self, paused: Paused) -> None:
        """Hand back what this worker holds, as at a shutdown that waits for nothing, and say why it rests."""
        if self._health.reasons().get(PART) != str(paused):
            _log.warning("paused", since=to_utc_text(paused.paused_at), runs=len(self._hands.under_way))
        self._health.unwell(PART, str(paused))
        self._hands.paused.update(self._hands.under_way)
        await self._cancel_all()
        await self._put_back_waiting()

    def _start(self, claim: Claim) -> None:
        task = self._tasks.create_task(self._carry(claim))
        self._hands.under_way[claim.run_id] = (claim, task)

    async def _rest(self, wakeups: Wakeups, stopping: asyncio.Event, seconds: float) -> None:
        """Sleep until a notification, a freed place, a change of Pace or `stopping`, at most `seconds` or until a renewal."""
        until_renewal = self._renewed_at + self._settings.lease_seconds / 4 - _now()
        self._freed.clear()
        waits = (wakeups.wait(seconds), self._freed.wait(), self._pace.wait_changed(), stopping.wait())
        waiting = [asyncio.ensure_future(wait) for wait in waits]
        try:
            await asyncio.wait(waiting, timeout=max(0.0, min(seconds, until_renewal)), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waiting:
                wait.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    # -- a run ----------------------------------------------------------------------------------------------------------

    async def _carry(self, claim: Claim) -> None:
        """One run, from its claim to whatever stops it."""
        with structlog.contextvars.bound_contextvars(
            run_id=str(claim.run_id), user_id=str(claim.user_id), generation=claim.generation, attempt=claim.attempt
        ):
            _log.info("run_claimed", failures=claim.failures)
            try:
                await self._carry_or_settle(claim)
            except LostLease:
                self._metrics.leases_lost.inc()
                _log.warning("lease_lost")
            except DatabaseUnavailable as error:
                _log.warning("run_stopped", reason=str(error))
                self._hands.to_put_back[claim.run_id] = claim
            finally:
                self._hands.under_way.pop(claim.run_id, None)
                self._hands.lost.discard(claim.run_id)
                self._hands.paused.discard(claim.run_id)
                self._pace.end_probe(claim.run_id)
                self._freed.set()

    async def _carry_or_settle(self, claim: Claim) -> None:
        """Carry a run and write down how it stopped. A surprise on the way to its end counts like one in the run."""
        try:
            await self._carry_to_its_end(claim)
        except (LostLease, DatabaseUnavailable):
            raise
        except asyncio.CancelledError:
            if claim.run_id in self._hands.lost:
                raise LostLease from None
            await self._settling.put_back_untouched(claim, "pause" if claim.run_id in self._hands.paused else "shutdown")
        except Exception:  # noqa: BLE001 - the edge of a run: one of the two places where a surprise is turned into something
            _log.exception("run_surprised")
            unexpected = PassingFailure(ErrorCode.INTERNAL, "an unexpected error; the worker's log has its place")
            await self._settling.put_back_failed(claim, unexpected)

    async def _carry_to_its_end(self, claim: Claim) -> None:
        try:
            if claim.failures >= self._settings.max_failures:
                raise too_many(claim)
            await self._carry_pass(claim)
        except RunError as error:
            await self._settling.settle(claim, error)
        else:
            self._metrics.runs_ended.labels("completed", "").inc()
            _log.info("run_completed")

    # -- shutdown -------------------------------------------------------------------------------------------------------

    async def _finish(self, wakeups: Wakeups) -> None:
        """Let runs come to their end, renewing their leases, and hand back those that don't make it in time."""
        until = _now() + self._settings.shutdown_seconds * 0.8  # the rest is for handing back
        while self._hands.under_way and (left := until - _now()) > 0:
            self._freed.clear()
            await self._keep_leases(wakeups)
            try:
                async with asyncio.timeout(min(left, self._settings.lease_seconds / 4)):
                    await self._freed.wait()
            except TimeoutError:
                continue
        await self._cancel_all()
        await self._put_back_waiting()

    async def _cancel_all(self) -> None:
        running = [task for _, task in self._hands.under_way.values()]
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)


def _now() -> float:
    return asyncio.get_running_loop().time()
