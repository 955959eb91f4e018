"""How a run goes back into the ledger: the statements behind `Ledger.put_back…`. Each writes its line of the run's story."""

from __future__ import annotations

from sqlalchemy import text

from consumer.postgres.replay_budget import PUT_BACK_FOR_REPLAY as _PUT_BACK_FOR_REPLAY
from consumer.postgres.story import story_with

OURS = "run_id = :run_id AND attempt = :attempt AND status = 'running'"
"""The run, as long as this attempt holds it."""

_CODE = "CAST(:code AS text)"


def _handed_back(reason: str, code: str = _CODE) -> str:
    return story_with("'handed_back'", reason=reason, code=code)


PUT_BACK = text(f"""
    UPDATE full_pass_runs
    SET status = 'pending', lease_until = NULL, due_at = clock_timestamp(),
        story = {_handed_back("CAST(:reason AS text)", "NULL")}
    WHERE {OURS}
""")

PUT_BACK_FOR_OUTAGE = text(f"""
    UPDATE full_pass_runs
    SET status = 'pending', lease_until = NULL, story = {_handed_back("'outage'")},
        held_up_since = CASE WHEN CAST(:give_up AS float8) IS NULL THEN NULL  -- an operator's trouble never counts
                             ELSE coalesce(held_up_since, clock_timestamp()) END,
        due_at = clock_timestamp() + make_interval(secs => (0.75 + random() / 4) * least(CAST(:most AS float8), greatest(
            CAST(:base AS float8), extract(epoch FROM clock_timestamp() - held_up_since)::float8)))
    WHERE {OURS} AND (CAST(:give_up AS float8) IS NULL OR held_up_since IS NULL
                      OR clock_timestamp() < held_up_since + make_interval(secs => CAST(:give_up AS float8)))
""")

PUT_BACK_FOR_REPLAY = text(_PUT_BACK_FOR_REPLAY.format(story=_handed_back("'outage'")))

PUT_BACK_IN_GRACE = text(f"""
    UPDATE full_pass_runs
    SET status = 'pending', lease_until = NULL, story = {_handed_back("'not_found'")},
        due_at = least(created_at + make_interval(secs => :grace), clock_timestamp() + make_interval(
            secs => least(CAST(:base AS float8), greatest(0.2, extract(epoch FROM clock_timestamp() - created_at)::float8 / 2))))
    WHERE {OURS} AND clock_timestamp() < created_at + make_interval(secs => :grace)
""")

PUT_BACK_FAILED = text(f"""
    UPDATE full_pass_runs
    SET status = 'pending', lease_until = NULL, failures = failures + 1, error_code = {_CODE}, error_detail = :detail,
        story = {_handed_back("'failure'")}, due_at = clock_timestamp() + make_interval(secs => :delay)
    WHERE {OURS}
""")
