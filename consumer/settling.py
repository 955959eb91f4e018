"""How a run stopped, written into the ledger: its end, or when it is tried again (design, "The life of a run")."""

from __future__ import annotations

import asyncio
import random
from typing import Literal

from consumer.errors import FinalError, LostLease, NotThereYet, OperatorTrouble, Outage, RunError
from consumer.health import Health
from consumer.logs import get_log
from consumer.metrics import Metrics
from consumer.postgres.database import DatabaseUnavailable
from consumer.postgres.profiles import Profiles
from consumer.postgres.replay_budget import ReplayStopped
from consumer.postgres.runs import Claim, Ledger
from consumer.settings import Settings
from schemas.events import ErrorCode

BACKOFF_MAX_SECONDS = 3600.0
LEAST_OF_WAIT = 0.75
"""The ledger leaves up to a quarter of each wait to chance."""

_STORE_ANSWERED = frozenset(
    {ErrorCode.EXPORT_NOT_FOUND, ErrorCode.EXPORT_UNREADABLE, ErrorCode.EXPORT_EMPTY, ErrorCode.EXPORT_TOO_LARGE}
)
_log = get_log("executor")


class Settling:
    """Every way in which a run can stop, other than well.

    All methods raise LostLease when the run is another worker's by now, and DatabaseUnavailable when nothing can be written.
    """

    def __init__(self, settings: Settings, ledger: Ledger, profiles: Profiles, *, health: Health, metrics: Metrics) -> None:
        self._settings = settings
        self._ledger = ledger
        self._profiles = profiles
        self._health = health
        self._metrics = metrics

    async def settle(self, claim: Claim, error: RunError) -> None:
        """Write down how a run stopped: an end, or when to try again."""
        if error.code in _STORE_ANSWERED:
            self._health.well("exports")
        match error:
            case LostLease():
                raise error
            case FinalError():
                await self._end(claim, error)
            case NotThereYet():
                await self._put_back_in_grace(claim, error)
            case ReplayStopped():
                await self._put_back_for_replay(claim, error)
            case Outage():
                await self.put_back_for(claim, error)
            case _:
                await self.put_back_failed(claim, error)

    async def put_back_for(self, claim: Claim, error: Outage) -> None:
        """Hand a run back because something that it needs is away; after `GIVE_UP_AFTER_SECONDS` of it the run ends.

        Trouble that an operator has to mend never ends a run.
        """
        give_up = None if isinstance(error, OperatorTrouble) else self._settings.give_up_after_seconds
        base = error.retry_after_seconds or self._settings.retry_backoff_seconds
        if error.code is ErrorCode.BUDGET_EXCEEDED:
            base /= LEAST_OF_WAIT  # not before there is room
        paced = error.retry_after_seconds is not None or isinstance(error, DatabaseUnavailable)  # back as soon as it is
        most = base if paced else BACKOFF_MAX_SECONDS
        if not await self._ledger.put_back_for_outage(claim, base, most, give_up, error.code):
            return await self._end(claim, error)
        if isinstance(error, OperatorTrouble) and error.code is ErrorCode.EXPORT_UNAVAILABLE:
            self._health.unwell("exports", error.detail)
        return self._handed_back(error, "outage")

    async def put_back_failed(self, claim: Claim, error: RunError) -> None:
        """Count a failure. The last one is due at once: its next claim ends it, through the door like every end.

        Where that end itself is what fails, the run is tried again as late as any other.
        """
        failures = claim.failures + 1
        wait = min(self._settings.retry_backoff_seconds * 2 ** (min(failures, 32) - 1), BACKOFF_MAX_SECONDS)
        delay = 0.0 if failures == self._settings.max_failures else wait * random.uniform(0.75, 1)  # noqa: S311 - jitter
        if not await self._ledger.put_back_failed(claim, error.code, error.detail, delay):
            raise LostLease
        self._handed_back(error, "failure")

    async def put_back_untouched(self, claim: Claim, reason: Literal["pause", "shutdown"]) -> None:
        """Hand a run back at a pause or at shutdown, for which a PostgreSQL that says nothing leaves little time."""
        try:
            async with asyncio.timeout(max(1.0, self._settings.shutdown_seconds / 10)):
                is_ours = await self._ledger.put_back(claim, reason)
        except TimeoutError:
            raise DatabaseUnavailable("PostgreSQL did not answer in time when the run was to be handed back") from None
        if is_ours:  # else it was settled in this very moment
            self._metrics.runs_handed_back.labels(reason).inc()
            _log.info("run_handed_back", reason=reason)

    async def _end(self, claim: Claim, error: RunError) -> None:
        code = await self._profiles.end_failed(claim, error.code, error.detail)
        self._metrics.runs_ended.labels("failed", code).inc()
        log = _log.info if code is ErrorCode.SUPERSEDED else _log.warning
        log("run_failed", code=code, detail=error.detail)

    async def _put_back_in_grace(self, claim: Claim, error: NotThereYet) -> None:
        settings = self._settings
        wait, grace = settings.retry_backoff_seconds, settings.not_found_grace_seconds
        if not await self._ledger.put_back_in_grace(claim, wait, grace, error.code):
            return await self._end(claim, error)
        return self._handed_back(error, "not_found")

    async def _put_back_for_replay(self, claim: Claim, error: ReplayStopped) -> None:
        if not await self._ledger.put_back_for_replay(claim, error.code, self._settings.retry_backoff_seconds):
            raise LostLease
        self._handed_back(error, "outage")

    def _handed_back(self, error: RunError, reason: str) -> None:
        self._metrics.runs_handed_back.labels(reason).inc()
        _log.info("run_handed_back", reason=reason, code=error.code, detail=error.detail)


def too_many(claim: Claim) -> FinalError:
    """What a run ends with that has failed `MAX_FAILURES` times: the code and detail of its last failure."""
    code = ErrorCode(claim.error_code) if claim.error_code else ErrorCode.INTERNAL
    last = claim.error_detail or "the workers that held the run went silent"
    return FinalError(code, f"{claim.failures} failures without a step forward; the last: {last}")
