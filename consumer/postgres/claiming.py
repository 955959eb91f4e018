"""Which run is taken next, and for how long: the statements behind `Ledger.claim`, `renew` and `seconds_until_next`."""

from __future__ import annotations

from sqlalchemy import text

from consumer.postgres.forgotten import forgotten
from consumer.postgres.pause import NOT_PAUSED
from consumer.postgres.replay_budget import is_replay, is_stopped
from consumer.postgres.story import story_with

LIVE_PRIORITY = 0
"""Of runs whose event came by itself; the smaller priority is taken first."""

REPLAY_PRIORITY = 10

_NEWER = "({a}.completed_at, {a}.generation, {a}.run_id) > ({b}.completed_at, {b}.generation, {b}.run_id)"
"""*Newer*, between two runs of a user: a later event, then a higher generation, then a greater id."""

NEWER_SAVED = f"""EXISTS (
    SELECT FROM full_pass_runs AS other
    WHERE other.user_id = run.user_id AND other.memory_saved_at IS NOT NULL AND {_NEWER.format(a="other", b="run")}
)"""

CLAIM = text(f"""
    WITH silent AS (
        SELECT run_id, true AS expired FROM full_pass_runs
        WHERE {NOT_PAUSED} AND status = 'running' AND lease_until < statement_timestamp()
          AND :expired_count AND statement_timestamp() > pg_postmaster_start_time() + make_interval(secs => :lease)
          AND NOT run_id = ANY(CAST(:held AS uuid[])) AND (:suspects OR failures < 1)
        ORDER BY lease_until LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
    ), due AS (
        SELECT run_id, false AS expired FROM full_pass_runs AS run
        WHERE {NOT_PAUSED} AND NOT EXISTS (SELECT FROM silent)
          AND status = 'pending' AND due_at <= statement_timestamp() AND (:suspects OR failures < 2)
          AND NOT EXISTS (
              SELECT FROM full_pass_runs AS other WHERE other.user_id = run.user_id AND other.status = 'running')
          AND NOT EXISTS (
              SELECT FROM full_pass_runs AS other
              WHERE other.user_id = run.user_id AND other.status = 'pending' AND other.due_at <= statement_timestamp()
                AND other.priority <= run.priority AND {_NEWER.format(a="other", b="run")})
          AND NOT (run.priority > {LIVE_PRIORITY} AND EXISTS (
              SELECT FROM full_pass_runs AS live
              WHERE live.user_id = run.user_id AND live.status = 'pending' AND live.priority < run.priority))
        ORDER BY priority, due_at LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
    )
    UPDATE full_pass_runs AS run
    SET status = 'running', attempt = attempt + 1, failures = failures + CASE WHEN taken.expired THEN 1 ELSE 0 END,
        held_up_since = CASE WHEN taken.expired THEN held_up_since
                             ELSE held_up_since + (statement_timestamp() - due_at) END,
        lease_until = clock_timestamp() + make_interval(secs => :lease),
        started_at = coalesce(started_at, clock_timestamp()), story = {story_with("'claimed'", attempt="attempt + 1")}
    FROM (SELECT * FROM silent UNION ALL SELECT * FROM due) AS taken
    WHERE run.run_id = taken.run_id
    RETURNING run.run_id, user_id, idempotency_key, generation, attempt, failures, completed_at, event, traceparent, stage,
              memory_saved_at, error_code, error_detail, input_tokens, output_tokens, cost_usd, {forgotten("run")} AS forgotten,
              {is_replay("run")} AS is_replay, {is_stopped("run")} AS stopped
""")

SECONDS_UNTIL_NEXT = text("""
    SELECT extract(epoch FROM least(
        (SELECT min(due_at) FROM full_pass_runs
         WHERE status = 'pending' AND due_at > statement_timestamp() AND due_at < 'infinity'),
        (SELECT min(lease_until) FROM full_pass_runs WHERE status = 'running' AND lease_until > statement_timestamp())
    ) - clock_timestamp())
""")

RENEW = text("""
    WITH held AS (
        SELECT * FROM unnest(CAST(:run_ids AS uuid[]), CAST(:attempts AS integer[])) AS held (run_id, attempt)
    ), free AS (
        SELECT run_id, attempt FROM full_pass_runs JOIN held USING (run_id, attempt)
        WHERE status = 'running' ORDER BY run_id FOR NO KEY UPDATE OF full_pass_runs SKIP LOCKED
    ), renewed AS (
        UPDATE full_pass_runs AS run SET lease_until = clock_timestamp() + make_interval(secs => :lease)
        FROM free WHERE run.run_id = free.run_id
    )
    SELECT held.run_id, run.run_id IS NOT NULL AS held
    FROM held LEFT JOIN full_pass_runs AS run
      ON run.run_id = held.run_id AND run.attempt = held.attempt AND run.status = 'running'
""")
