"""Whether the runs of a replay may go on: its state and its budget in `full_pass_replays`, as the executors hold them.

Every recorded answer adds to the replay's spend, and the one that reaches its limit stops it. A claim that meets a run of a
stopped replay holds it and those that wait beside it: due at infinity, until the budget is raised.

Locks are taken run first, replay second. Whoever has locked a replay waits for no run: he passes over those that are locked, or
wakes them in a transaction that comes after.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from sqlalchemy import text

from consumer.errors import OperatorTrouble
from consumer.postgres.story import story_with
from schemas.events import ErrorCode

_HELD_AT_ONCE = 5_000


class ReplayStopped(OperatorTrouble):
    """The replay's budget is spent, or it was cancelled: its runs wait in the ledger, and no failure is counted."""

    def __init__(self, code: Literal[ErrorCode.BUDGET_EXCEEDED, ErrorCode.CANCELLED], detail: str) -> None:
        super().__init__(code, detail)


@dataclass(frozen=True, slots=True)
class ReplaySpend:
    """What the runs of a replay may spend (None: no limit) and have spent, in USD, and its state."""

    state: str
    max_cost_usd: Decimal | None
    cost_usd: Decimal


def is_replay(run: str) -> str:
    """SQL: whether the run is one of a replay. A retry takes its generation from the same sequence, and is none."""
    return f"EXISTS (SELECT FROM full_pass_replays AS replay WHERE {_OF.format(run=run)})"


def is_stopped(run: str) -> str:
    """SQL: whether the run is one of a replay that may spend nothing now."""
    return f"EXISTS (SELECT FROM full_pass_replays AS replay WHERE {_OF.format(run=run)} AND state <> 'running')"


_OF = "{run}.generation > 0 AND replay.generation = {run}.generation"

SPEND_OF_REPLAY = text("SELECT state, max_cost_usd, cost_usd FROM full_pass_replays WHERE generation = :generation")

# The lock makes a budget that is being raised wait, or this statement see that it was: no run is held of a replay that goes on.
_STOPPED_NOW = """SELECT generation, state FROM full_pass_replays AS replay
        WHERE generation = (SELECT generation FROM mine) AND state <> 'running' FOR SHARE"""

_WHY = "CASE (SELECT state FROM stopped) WHEN 'cancelled' THEN 'cancelled' ELSE 'budget_exceeded' END"

HOLD_REPLAY = text(f"""
    WITH mine AS (SELECT run_id, generation FROM full_pass_runs WHERE run_id = :run_id),
    stopped AS ({_STOPPED_NOW}),
    waiting AS (
        SELECT run_id FROM full_pass_runs
        WHERE generation = (SELECT generation FROM stopped) AND generation > 0 AND status = 'pending' AND due_at < 'infinity'
        LIMIT {_HELD_AT_ONCE} FOR NO KEY UPDATE SKIP LOCKED
    )
    UPDATE full_pass_runs AS run
    SET status = 'pending', lease_until = NULL,
        due_at = CASE WHEN EXISTS (SELECT FROM stopped) THEN 'infinity' ELSE clock_timestamp() END,
        story = CASE WHEN run_id = :run_id THEN {story_with("'handed_back'", reason="'outage'", code=_WHY)} ELSE story END
    WHERE run_id IN (SELECT run_id FROM waiting UNION ALL SELECT run_id FROM mine)
""")
"""Give the run back that was claimed in this transaction, and hold all that wait with it (some, of very many: the next claim
holds the next)."""

PUT_BACK_FOR_REPLAY = f"""
    WITH mine AS (
        SELECT run_id, generation FROM full_pass_runs
        WHERE run_id = :run_id AND attempt = :attempt AND status = 'running' FOR NO KEY UPDATE
    ), stopped AS ({_STOPPED_NOW})
    UPDATE full_pass_runs AS run
    SET status = 'pending', lease_until = NULL, held_up_since = NULL, story = {{story}},
        due_at = CASE WHEN EXISTS (SELECT FROM stopped) THEN 'infinity'
                      ELSE clock_timestamp() + make_interval(secs => CAST(:base AS float8)) END
    FROM mine WHERE run.run_id = mine.run_id
"""
