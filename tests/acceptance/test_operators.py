"""`full-pass runs` and `status` over a ledger in which everything that can be is: filters, one, many, all, and one screen."""

from __future__ import annotations

import json
import os
import re
import subprocess
import uuid
from pathlib import Path
from typing import Any

import pytest

from schemas.events import ErrorCode
from tests.acceptance.terminal import COLUMNS, ROWS, at_a_terminal
from tests.acceptance.test_commands import UNKNOWN, Call, all_at_once
from tests.acceptance.worker import FULL_PASS
from tests.acceptance.world import World

WAITS, LATER, AGAIN, OLD, DONE, TWICE, OPEN, HELD, RUNS, OUTAGE = (
    f"{number:08}-0000-4000-8000-000000000000" for number in range(1, 11)
)
KEYS = {OPEN: TWICE, DONE: OLD}
"""Runs of the same user and key as another, of a later generation."""
REPLAY = 9
RUN = (
    "INSERT INTO full_pass_runs (run_id, user_id, idempotency_key, generation, status, stage, error_code, due_at, created_at,"
    " finished_at, held_up_since, lease_until, attempt, completed_at, event, traceparent)"
    " VALUES ($1::uuid, $2::uuid, 'key', $3, $4, $5, $6, coalesce($7::text::timestamptz, now()), $8::text::timestamptz,"
    " CASE WHEN $4 IN ('completed', 'failed') THEN now() END, $9::text::timestamptz,"
    " CASE WHEN $4 = 'running' THEN now() + interval '1 h' END, 1, '2026-11-20', '{\"storage_path\": \"a/b\"}', '00-1-2-00')"
)


def a_run(world: World, run_id: str, status: str, code: str | None = None, **more: Any) -> None:
    user = uuid.uuid5(uuid.NAMESPACE_OID, KEYS.get(run_id, run_id))
    world.execute(
        RUN, run_id, str(user), more.get("generation", 0), status, more.get("stage", "facts"), code, more.get("due_at"),
        more.get("created_at", "2026-11-20T12:00:00Z"), more.get("held_up_since"),
    )  # fmt: skip


def a_ledger(world: World) -> None:
    """Ten runs, one of each kind, and a replay that has spent its budget."""
    world.execute("TRUNCATE full_pass_runs, full_pass_replays, full_pass_outbox, full_pass_pause CASCADE")
    world.execute("SELECT setval('full_pass_generation_seq', 100)")
    replay = "INSERT INTO full_pass_replays (generation, source, selection, state, max_cost_usd, cost_usd, filled_at)"
    world.execute(f"{replay} VALUES ($1, 'ledger', '{{}}', 'budget_spent', 5, 5.25, now())", REPLAY)
    a_run(world, WAITS, "pending", stage="starting", created_at="2026-11-22T12:00:00Z")
    a_run(world, LATER, "pending", due_at="2100-01-01T00:00:00Z")
    a_run(world, AGAIN, "failed", "model_unavailable", stage="memory")
    a_run(world, OLD, "failed", "model_unavailable", created_at="2026-11-10T12:00:00Z")
    a_run(world, DONE, "completed", stage="sections", generation=3)
    a_run(world, TWICE, "failed", "internal")
    a_run(world, OPEN, "pending", generation=4)
    a_run(world, HELD, "pending", due_at="infinity", generation=REPLAY)
    a_run(world, RUNS, "running", created_at="2026-11-21T12:00:00Z")
    a_run(world, OUTAGE, "pending", due_at="2100-01-01T00:00:00Z", held_up_since="2026-11-24T12:00:00Z")


@pytest.fixture
def ledger(own_world: World) -> World:
    a_ledger(own_world)
    return own_world


def passed_over(report: dict[str, Any]) -> dict[str, str]:
    return {each["run_id"]: each["reason"] for each in report["passed_over"]}


def test_runs_list_takes_what_fits_all_that_is_asked_for(ledger: World) -> None:
    asked: dict[tuple[str, ...], set[str]] = {
        ("--error-code", "model_unavailable", "--error-code", "internal", "--until", "2026-11-21"): {AGAIN, OLD, TWICE},
        ("--error-code", "model_unavailable", "--stage", "memory"): {AGAIN},
        ("--generation", "0", "--status", "pending"): {WAITS, LATER, OUTAGE},
        ("--since", "2026-11-21T13:00:00+01:00", "--until", "2026-11-22"): {RUNS},
    }
    said = all_at_once(ledger, {call: (("runs", "list", *call, "--json"), {}) for call in asked})
    assert {call: {run["run_id"] for run in each.json} for call, each in said.items()} == asked


def test_a_run_that_waits_for_its_stopped_replay_is_held_and_due_at_no_time(ledger: World) -> None:
    said = all_at_once(
        ledger,
        {
            "json": (("runs", "list", "--generation", str(REPLAY), "--json"), {}),
            "shown": (("runs", "show", HELD), {}),
            "status": (("status", "--json"), {}),
        },
    )
    (held,) = said["json"].json
    assert (held["due_at"], held["held"]) == (None, True)
    assert re.search(r"^due_at +held", said["shown"].out, re.MULTILINE)
    assert "9999" not in said["shown"].out
    assert said["status"].json["backlog"] == {"due": 2, "running": 1, "waiting_for_outage": 1, "due_later": 1, "held": 1}


def test_retry_of_all_that_fit_takes_failed_and_waiting_runs_and_says_why_it_passed_others_over(ledger: World) -> None:
    a_run(ledger, UNKNOWN, "failed", "superseded")
    report = ledger.run("runs", "retry", "--all", "--yes", "--json").json
    assert passed_over(report) == {
        HELD: "its replay is stopped",
        OLD: "tried again since",
        TWICE: "another run of its key is open",
        UNKNOWN: "superseded",
    }
    done = {each["run_id"]: (each["again"], each["new"]) for each in report["done"]}
    assert set(done) == {WAITS, LATER, OPEN, OUTAGE, AGAIN}
    assert done[LATER] == (LATER, False)
    again, new = done[AGAIN]
    assert new
    (made,) = ledger.rows("SELECT status, generation, priority FROM full_pass_runs WHERE run_id = $1::uuid", again)
    assert (made["status"], made["priority"]) == ("pending", 0)
    assert not ledger.rows("SELECT FROM full_pass_runs WHERE due_at > now() AND due_at < 'infinity'")
    (held,) = ledger.rows("SELECT due_at = 'infinity' AS held FROM full_pass_runs WHERE run_id = $1::uuid", HELD)
    assert held["held"]


def test_retry_of_several_tells_of_each_that_was_not_and_fails(ledger: World) -> None:
    said = ledger.run("runs", "retry", AGAIN, DONE, RUNS, UNKNOWN)
    assert said.status == 1
    assert said.out.splitlines()[0] == "1 tried again, 3 passed over"
    told = {line.strip() for line in said.out.splitlines()[1:]}
    assert told == {f"{DONE}: completed", f"{RUNS}: under way", f"{UNKNOWN}: no such run"}
    assert said.err == "full-pass: 3 of 4 runs were not tried again\n"


def test_cancel_ends_one_several_and_all_that_fit_and_announces_each(ledger: World) -> None:
    one = ledger.run("runs", "cancel", RUNS, "--json").json
    assert one == {"done": [{"run_id": RUNS, "error_code": "cancelled"}], "passed_over": []}
    calls: dict[str, Call] = {"ended": (("runs", "cancel", RUNS), {}), "several": (("runs", "cancel", WAITS, DONE, "--json"), {})}
    said = all_at_once(ledger, calls)
    assert (said["ended"].status, said["ended"].out) == (1, "")
    assert said["ended"].err == f"full-pass: run {RUNS} is failed; only a waiting or a running run can be cancelled\n"
    assert said["several"].status == 1
    assert passed_over(json.loads(said["several"].out)) == {DONE: "completed"}
    rest = ledger.run("runs", "cancel", "--all", "--generation", "0", "--yes").out
    assert rest == "2 cancelled, 0 passed over\n"
    left = ledger.rows("SELECT run_id FROM full_pass_runs WHERE status IN ('pending', 'running')")
    assert {str(row["run_id"]) for row in left} == {OPEN, HELD}
    events = ledger.rows("SELECT run_id, data::jsonb ->> 'error_code' AS code FROM full_pass_outbox")
    assert {(str(row["run_id"]), row["code"]) for row in events} == {
        (run_id, "cancelled") for run_id in (RUNS, WAITS, LATER, OUTAGE)
    }


def test_all_is_asked_about_at_a_terminal_with_the_count_and_no_leaves_everything(ledger: World) -> None:
    with at_a_terminal(ledger, "runs", "cancel", "--all", "--status", "pending") as terminal:
        terminal.until(re.escape("Cancel 5 runs? [y/N]:"))
        terminal.type("n")
        assert terminal.ended() == 1
    assert len(ledger.rows("SELECT FROM full_pass_runs WHERE status = 'pending'")) == 5


@pytest.mark.parametrize("command", ["runs cancel --all", "runs retry --all", "replay", f"users forget {WAITS} --json"])
def test_ctrl_c_at_a_question_is_an_answer_at_once(ledger: World, command: str) -> None:
    before = ledger.rows("SELECT * FROM full_pass_runs ORDER BY run_id")
    with at_a_terminal(ledger, *command.split()) as terminal:
        terminal.until(r"\[y/N\]")
        terminal.interrupt()
        assert terminal.ended() == 1
    assert "Traceback" not in terminal.text
    assert ledger.rows("SELECT * FROM full_pass_runs ORDER BY run_id") == before


def output_to(world: World, where: Any, *command: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [FULL_PASS, *command], env=world.environment(), stdout=where, stderr=subprocess.PIPE, timeout=60, check=False
    )


def test_a_reader_who_leaves_is_no_failure_and_a_disk_that_is_full_is_one(ledger: World) -> None:
    for command in ("runs list", "runs list --json", "status --watch"):
        ours, theirs = os.pipe()
        os.close(ours)
        done = output_to(ledger, theirs, *command.split())
        os.close(theirs)
        assert (done.returncode, done.stderr) == (0, b""), command
    with Path("/dev/full").open("wb") as full:
        done = output_to(ledger, full, "runs", "list")
    assert (done.returncode, done.stderr) == (1, b"full-pass: the answer can't be written to stdout: No space left on device\n")


def crowded(world: World) -> None:
    """As much as a screen ever has to tell."""
    for number, code in enumerate(ErrorCode):
        a_run(world, str(uuid.UUID(int=100 + number)), "failed", code.value)
    replay = "INSERT INTO full_pass_replays (generation, source, selection, cost_usd) VALUES ($1, 'topic', '{}', 12.5)"
    for generation in range(20, 27):
        world.execute(replay, generation)
    world.execute("INSERT INTO full_pass_pause (reason) VALUES ($1)", "because " * 25)
    world.execute(
        "INSERT INTO full_pass_outbox (event_id, event_type, run_id, user_id, data, traceparent, occurred_at)"
        " SELECT gen_random_uuid(), 'memory-saved', gen_random_uuid(), gen_random_uuid(), '{}', '', now() - interval '3 h'"
        " FROM generate_series(1, 12)"
    )
    world.execute("UPDATE full_pass_runs SET finished_at = '2026-10-01' WHERE error_code = 'internal'")


def test_status_fits_one_screen_and_tells_all_that_an_operator_asks_first(ledger: World) -> None:
    crowded(ledger)
    document = ledger.run("status", "--json", FULL_PASS_MAX_COST_USD_PER_DAY="7").json
    assert document["paused"]["reason"] == "because " * 25
    assert document["failures"]["internal"] == 2
    assert "internal" not in document["failures_last_24_hours"]
    assert document["failures_last_24_hours"]["model_refused"] == 1
    assert [replay["generation"] for replay in document["replays"]] == [26, 25, 24, 23, 22, 21, 20, REPLAY]
    assert {"state": "budget_spent", "runs": 1, "ended": 0, "cost_usd": 5.25, "max_cost_usd": 5.0}.items() <= document["replays"][
        -1
    ].items()
    with at_a_terminal(ledger, "status", FULL_PASS_MAX_COST_USD_PER_DAY="7", FULL_PASS_TOPIC_PREFIX="nowhere-") as terminal:
        assert terminal.ended() == 0
    lines = terminal.text.splitlines()
    assert len(lines) <= ROWS - 1, terminal.text  # the last is the prompt's
    assert max(map(len, lines)) <= COLUMNS
    said = re.sub(r"\s+", " ", terminal.text)
    for words in (
        "executors paused since", "intake Kafka does not say",
        "2 due, 1 running, 1 waiting for an outage, 1 due later, 1 held", "model_unavailable 3",
        "$0.00 of $7.00 a day", "12 events wait, the oldest since", "3 h ago", "replay 26 filling; 0 of 0 ended; $12.50",
        "5 more; see 'full-pass replay list'", "postgresql ok", "full-pass topics create",
    ):  # fmt: skip
        assert words in said, words


def test_status_without_postgresql_says_so_and_still_looks_at_kafka(ledger: World) -> None:
    said = ledger.run("status", "--json", DATABASE_URL="postgresql://nobody:secret@127.0.0.1:1/none")
    assert said.status == 1
    assert json.loads(said.out)["dependencies"] == {"postgresql": said.err.strip().removeprefix("full-pass: "), "kafka": "ok"}
    assert "is not available" in said.err
    assert "secret" not in said.out + said.err


def test_a_replay_that_has_ended_is_not_cancelled(ledger: World) -> None:
    ledger.execute("INSERT INTO full_pass_replays (generation, source, selection, filled_at) VALUES (3, 'ledger', '{}', now())")
    said = ledger.run("replay", "cancel", "3")
    assert (said.status, said.err) == (1, "full-pass: replay 3 is completed: no run of it is open\n")
    assert ledger.rows("SELECT state FROM full_pass_replays WHERE generation = 3") == [{"state": "running"}]


def test_status_counts_the_records_that_wait_for_intake(ledger: World) -> None:
    for _ in range(3):
        ledger.publish(ledger.a_user())
    assert ledger.run("status", "--json").json["intake"] == {"waiting": 3, "removed_unread": 0}
    assert re.search(r"intake +3 records of the topic wait *\n", ledger.run("status").out)


def test_status_watch_draws_again_in_place_until_ctrl_c(ledger: World) -> None:
    with at_a_terminal(ledger, "status", "--watch", "--every", "0.2") as terminal:
        terminal.until("not paused")
        ledger.execute("INSERT INTO full_pass_pause (reason) VALUES ('a look')")
        terminal.until(r"paused since \S+ \(a look\)")
        assert "\x1b[1A" in terminal.raw  # the cursor went up to where the screen began
        terminal.interrupt()
        assert terminal.ended() == 0
    assert "Traceback" not in terminal.text


def test_the_table_of_runs_has_a_line_for_each_at_a_hundred_columns(ledger: World) -> None:
    with at_a_terminal(ledger, "runs", "list") as terminal:
        assert terminal.ended() == 0
    lines = terminal.text.splitlines()
    assert max(map(len, lines)) <= COLUMNS
    (row,) = [line for line in lines if AGAIN in line]
    assert "model_unavailable" in row
    assert len(lines) == 11
