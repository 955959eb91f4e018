"""`full_pass_forgotten`: the fence against events of a user who was forgotten (guarantee G11).

A row holds a hash of the user, the time, and the highest `profile_version` that any reader may have seen. Intake takes no event
that was completed before that time, a claim removes its run instead of starting it, and the door lets nothing of it in; an event
completed later is one like any other.
"""

from __future__ import annotations

from sqlalchemy import text

_SHA256 = "sha256(convert_to(CAST(CAST({user_id} AS uuid) AS text), 'UTF8'))"

USER_SHA256 = _SHA256.format(user_id=":user_id")
"""How a user stands there."""


def forgotten(run: str) -> str:
    """SQL: whether the user of this row, which has `user_id` and `completed_at`, was forgotten after its event."""
    return f"""EXISTS (
    SELECT FROM full_pass_forgotten AS fence
    WHERE fence.user_sha256 = {_SHA256.format(user_id=f"{run}.user_id")} AND fence.forgotten_at >= {run}.completed_at
)"""


REMOVE_RUN = text("""
    WITH announced AS (DELETE FROM full_pass_outbox WHERE user_id = :user_id AND run_id = :run_id)
    DELETE FROM full_pass_runs WHERE run_id = :run_id
""")
"""The run of a forgotten user goes without an end, and what it bought with it."""
