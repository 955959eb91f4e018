"""What operators see: logs, metrics; and what nobody may see: a word of the user's."""

from __future__ import annotations

import json
import re
import uuid
from typing import Any

import pytest

from tests.acceptance.exports import a_small_export, conversation
from tests.acceptance.topics import OUTPUTS
from tests.acceptance.worker import Worker, until
from tests.acceptance.world import World

STAGES = ("reading", "facts", "memory", "sections")


def test_each_line_of_the_log_is_a_json_object_and_those_of_a_run_name_run_user_and_stage(shared: World, worker: Worker) -> None:
    user = shared.a_user(a_small_export("ikebana"))
    shared.publish(user)
    run = shared.until_ended(user)
    until(lambda: [line for line in worker.events("run_completed") if line["user_id"] == user.id], what="the log was written")
    lines = [line for line in worker.said() if line.get("run_id") == str(run["run_id"])]
    assert (lines[0]["event"], lines[-1]["event"]) == ("run_claimed", "run_completed")
    assert {(line["user_id"], line["attempt"], line["generation"]) for line in lines} == {(user.id, 1, 0)}
    assert [line["stage"] for line in lines if line["event"] == "stage_started"] == list(STAGES)
    assert all(line["stage"] == "facts" for line in lines if line["event"] == "facts_extracted")
    for line in worker.said():
        assert {"event", "level", "at"} <= set(line), line
    assert worker.printed.read_text() == ""


SAMPLES = (
    r"full_pass_messages_taken_total",
    r"full_pass_messages_repeated_total",
    r'full_pass_messages_dead_lettered_total\{reason="not_json"\}',
    r'full_pass_runs_ended_total\{code="",status="completed"\}',
    r'full_pass_runs_ended_total\{code="export_empty",status="failed"\}',
    r"full_pass_runs_due",
    r"full_pass_runs_running",
    r"full_pass_runs_oldest_due_age_seconds",
    *(rf'full_pass_stage_seconds_count\{{stage="{stage}"\}}' for stage in STAGES),
    *(rf'full_pass_model_calls_total\{{kind="{kind}",outcome="end_turn"\}}' for kind in STAGES[1:]),
    r'full_pass_model_tokens_total\{direction="input"\}',
    r'full_pass_model_tokens_total\{direction="output"\}',
    r"full_pass_model_cost_usd_total",
    *(rf'full_pass_events_published_total\{{type="{name}"\}}' for name in OUTPUTS),
    r"full_pass_outbox_unpublished",
    r"full_pass_outbox_oldest_age_seconds",
    r"full_pass_leases_lost_total",
    r"full_pass_pace_width",
    r"full_pass_pace_open",
)


def test_metrics_tell_messages_runs_stages_calls_money_outbox_leases_and_pace(shared: World, worker: Worker) -> None:
    well, empty = shared.a_user(a_small_export("macrame")), shared.a_user([])
    for user in (well, empty, well):
        shared.publish(user)
    shared.produce([(None, b"{", [])])
    shared.until_ended(well)
    shared.until_ended(empty)
    until(lambda: not missing(worker), what=f"all metrics were there, also {missing(worker)}")
    metrics = worker.metrics()
    assert all(name.startswith("full_pass_") for name in metrics)
    assert metrics["full_pass_outbox_unpublished"] == metrics["full_pass_runs_running"] == metrics["full_pass_runs_due"] == 0
    assert metrics["full_pass_pace_open"] == 1
    assert metrics["full_pass_pace_width"] > 0
    status, body = worker.get("/metrics")
    assert status == 200
    helped = set(re.findall(r"^# HELP (\S+) \S", body, re.MULTILINE))
    assert helped == set(re.findall(r"^# TYPE (\S+) ", body, re.MULTILINE))


def missing(worker: Worker) -> list[str]:
    """The samples that are not there, or have counted nothing though they should have."""
    shown = worker.metrics().items()
    counted = {name for name, value in shown if value or name.removesuffix("_total") == name or "leases_lost" in name}
    return [sample for sample in SAMPLES if not any(re.fullmatch(sample, name) for name in counted)]


@pytest.mark.guarantee("G9")
def test_a_word_of_the_users_appears_in_no_log_metric_event_or_list_whatever_goes_wrong(shared: World, worker: Worker) -> None:
    """A canary in titles, messages, MEMORY and sections; in answers that break every rule; in what the API says of a request."""
    canary = f"Zilpzalp{uuid.uuid4().hex[:12]}"
    well = shared.a_user(a_small_export(canary))
    unreadable = shared.a_user(json.dumps(a_small_export(canary)).encode()[:-50])
    odd = shared.a_user([conversation(canary, f"I like {canary}. \x00\ud800"), {"title": canary, "mapping": canary}, canary])
    said = {word: f"{canary}{word}" for word in ("Invalid", "Rejected", "Garbage")}
    invalid, rejected, garbage = (shared.a_user(a_small_export(text)) for text in said.values())
    shared.script(
        {"match": {"kind": "sections", "contains": said["Invalid"]}, "times": 2, "fault": {"kind": "text", "text": bad(canary)}},
        {"match": {"contains": said["Rejected"]}, "times": None, "fault": refusing(f"messages.0: {canary} can't be taken")},
        {"match": {"kind": "memory", "contains": said["Garbage"]}, "times": 3, "fault": {"kind": "text", "text": canary}},
    )
    ends = {well: "", unreadable: "export_unreadable", odd: "", invalid: "model_output_invalid", rejected: "model_rejected"}
    ends[garbage] = "model_output_invalid"
    for user in ends:
        shared.publish(user)
    shared.produce([(canary.encode(), f'{{"user_id": "{canary}"}}'.encode(), [])])
    assert {user: shared.until_ended(user)["error_code"] or "" for user in ends} == ends
    assert canary in shared.profile(well)["memory_md"]
    assert canary in shared.profile(well)["soulprint_text"]
    until(lambda: "user_id" in shared.run("dead-letters", "list").out, what="the dead letter was listed")

    shown = [shared.run("runs", "show", str(shared.runs(user)[0]["run_id"])).out for user in (well, invalid, rejected)]
    places = {
        "log": worker.log.read_text(),
        "stdout": worker.printed.read_text(),
        "metrics": worker.get("/metrics")[1],
        "readiness": worker.get("/health/ready")[1],
        "events": "\n".join(f"{seen.key!r} {seen.value!r} {seen.headers}" for seen in shared.read(*OUTPUTS)),
        "dead letters": shared.run("dead-letters", "list", "--json").out,
        "runs": "\n".join([*shown, shared.run("runs", "list", "--json").out, shared.run("status").out]),
        "ledger": str(shared.rows("SELECT * FROM full_pass_runs")) + str(shared.rows("SELECT * FROM full_pass_outbox")),
        "errors": str(shared.rows("SELECT full_pass_error FROM user_profiles")),
    }
    assert [place for place, text in places.items() if canary.casefold() in text.casefold()] == []
    assert [place for place, text in places.items() if "sk-test-never-printed" in text] == []
    assert [place for place, text in places.items() if "Traceback (most recent" in text] == []


def bad(canary: str) -> str:
    """Sections that break rules with the canary in every place that an error message could quote."""
    return json.dumps({"soul": {canary: canary, "personality_traits": canary}, canary: {}, "identity": {"ai_name": [canary]}})


def refusing(message: str) -> dict[str, Any]:
    return {"kind": "status", "status": 400, "message": message}
