"""`full_pass_runs.story`: what happened to a run, in order, for `runs show`. Written by the statements that run anyway.

An entry is `{"at", "attempt", "what"}`, and `reason` and `code` where there is one. `what` is `claimed`, the name of a stage,
`handed_back` (`reason`: shutdown, pause, outage, not_found or failure), `completed` or `failed`. No word of a user's content.
"""

from __future__ import annotations

STORY_MAX_ENTRIES = 100

# In UTC, whatever the session's zone; JSON's own text of a time would follow it.
_NOW = """to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""


def story_with(what: str, *, attempt: str = "attempt", reason: str = "NULL", code: str = "NULL") -> str:
    """SQL: the row's story with one more entry, the newest `STORY_MAX_ENTRIES` of it. The arguments are SQL of type text."""
    entry = f"""jsonb_strip_nulls(jsonb_build_object(
            'at', {_NOW}, 'attempt', {attempt}, 'what', {what}, 'reason', {reason}, 'code', {code}))"""
    return f"""CASE WHEN jsonb_array_length(story) >= {STORY_MAX_ENTRIES} THEN story - 0 ELSE story END
        || jsonb_build_array({entry})"""
