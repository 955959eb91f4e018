"""Replays that workers carry while `full-pass replay` looks on, or doesn't."""

from __future__ import annotations

import json
import signal
import subprocess
from dataclasses import dataclass
from typing import Any

import pytest

from tests.acceptance.exports import a_small_export
from tests.acceptance.topics import OUTPUTS
from tests.acceptance.worker import FULL_PASS, until
from tests.acceptance.world import Said, User, World

LATER = "2026-11-21T12:00:00.000000Z"


USUAL_USD = 0.005
LIMIT_USD = 1.5 * USUAL_USD
KNOWN = (
    "INSERT INTO full_pass_runs (run_id, user_id, idempotency_key, completed_at, event, traceparent, status, finished_at,"
    " model_calls, input_tokens, output_tokens, cost_usd)"
    " SELECT gen_random_uuid(), $1, $2, $3::text::timestamptz, $4::jsonb, $5, $6, CASE $6 WHEN 'completed' THEN now() END,"
    " CASE $6 WHEN 'completed' THEN 3 ELSE 0 END, 2500, 500, $7::float8"
)


def known(world: World, user: User, status: str = "completed", completed_at: str | None = None) -> None:
    """A live run in the ledger; one that has completed has bought three answers, of which none is recorded any more."""
    at = completed_at or user.completed_at
    event = json.dumps({**user.event, "completed_at": at})
    world.execute(KNOWN, user.uuid, at, at, event, f"00-{'1' * 32}-{'2' * 16}-00", status, USUAL_USD)


def users_known(world: World, count: int) -> list[User]:
    users = [world.a_user(a_small_export(f"pottery{number}")) for number in range(count)]
    for user in users:
        known(world, user)
    return users


@dataclass(frozen=True)
class Story:
    """A replay of four users: begun while nothing worked, left, overtaken by a live event, stopped by its limit, resumed."""

    users: list[User]
    left: Said
    stopped: Said
    ended: dict[str, Any]
    runs: list[dict[str, Any]]
    live: dict[str, Any]


@pytest.fixture(scope="module")
def story(own_world: World) -> Story:
    world, users = own_world, users_known(own_world, 4)
    left = left_with_control_c(world, "replay", "--yes", "--max-cost-usd", str(LIMIT_USD))
    known(world, users[0], "pending", LATER)
    with world.worker(FULL_PASS_RUN_CONCURRENCY="1", FULL_PASS_MODEL_CONCURRENCY="1"):
        stopped = world.run("replay", "resume", "1", "--json")
        ended = world.run("replay", "resume", "1", "--max-cost-usd", "5", "--json").json
        until(lambda: not world.rows("SELECT FROM full_pass_outbox WHERE published_at IS NULL"), what="all was published")
    runs = world.rows("SELECT * FROM full_pass_runs WHERE generation = 1 ORDER BY started_at")
    [live] = [run for run in world.runs(users[0]) if run["completed_at"].day == 21]
    return Story(users, left, stopped, ended, runs, live)


def left_with_control_c(world: World, *words: str) -> Said:
    """Interrupted once it has said that the replay's runs are made."""
    with subprocess.Popen(
        [FULL_PASS, *words], env=world.environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "replay 1: its runs are in the ledger\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    return Said(process.returncode, out, err)


def test_left_with_control_c_it_says_that_the_replay_goes_on_and_how_to_see_or_end_it(story: Story) -> None:
    assert story.left.status == 130
    assert story.left.err.startswith("replay 1 goes on without this command: 'full-pass replay show 1' says how it stands")
    assert "'full-pass replay cancel 1'" in story.left.err


@pytest.mark.guarantee("G7")
def test_live_users_come_first_and_a_newer_event_ends_the_replays_run_as_superseded(story: Story) -> None:
    assert story.live["status"] == "completed"
    assert story.live["started_at"] < min(run["started_at"] for run in story.runs)
    [overtaken] = [run for run in story.runs if run["user_id"] == story.users[0].uuid]
    assert (overtaken["error_code"], overtaken["model_calls"]) == ("superseded", 0)


@pytest.mark.guarantee("G10")
def test_a_spent_limit_holds_the_other_runs_and_the_command_says_how_to_go_on(story: Story) -> None:
    assert story.stopped.status == 1
    assert "'full-pass replay resume 1 --max-cost-usd …' goes on with a higher limit" in story.stopped.err
    spent = json.loads(story.stopped.out)
    assert spent["state"] == "budget_spent"
    assert LIMIT_USD <= spent["cost_usd"] < LIMIT_USD + USUAL_USD  # and what was in flight
    assert spent["completed"] > 0
    assert spent["held"] == spent["open"] > 0


def test_with_a_higher_limit_the_held_runs_go_on_and_every_end_is_announced_once(story: Story, own_world: World) -> None:
    ended = story.ended
    assert (ended["state"], ended["completed"], ended["failed"], ended["superseded"], ended["held"]) == ("completed", 3, 1, 1, 0)
    assert ended["cost_usd"] == pytest.approx(float(sum(run["cost_usd"] for run in story.runs)))
    assert all(run["failures"] == 0 for run in story.runs)
    seen = [each.data["run_id"] for each in own_world.read(*OUTPUTS[1:]) if each.data["generation"] == 1]
    assert sorted(seen) == sorted(str(run["run_id"]) for run in story.runs)
