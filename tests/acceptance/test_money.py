"""What runs may cost: the limit of one run, the limit of the day, and the estimate that comes first."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.acceptance.exports import a_small_export
from tests.acceptance.sample_run import Passed
from tests.acceptance.topics import OUTPUTS
from tests.acceptance.worker import Worker, until
from tests.acceptance.world import User, World

LATER = "2026-11-21T12:00:00.000000Z"


def estimated(world: World, user: User) -> dict[str, Any]:
    """What `full-pass estimate --json` says of the user's export."""
    found: dict[str, Any] = world.run("estimate", user.path, "--json").json
    return found


@pytest.mark.guarantee("G10")
def test_a_run_above_its_limit_buys_nothing_and_a_re_import_whose_answers_are_recorded_is_below_it(world: World) -> None:
    """The same export costs a new user too much, and costs nothing for one whose answers to the facts requests are recorded."""
    first, second = world.a_user(a_small_export("glazing")), world.a_user(a_small_export("glazing"))
    estimate = estimated(world, first)
    assert estimate["calls"] == 3
    with world.worker() as worker:
        worker.ready()
        world.publish(first)
        assert world.until_ended(first)["status"] == "completed"
        assert worker.stop() == 0
    asked = len(world.asked())

    limit = estimate["cost_usd"] - 0.0005
    with world.worker(FULL_PASS_MAX_RUN_COST_USD=f"{limit:.6f}") as worker:
        worker.ready()
        world.publish(second)
        run = world.until_ended(second)
        assert (run["status"], run["error_code"], run["attempt"], run["failures"]) == ("failed", "budget_exceeded", 1, 0)
        assert f"${estimate['cost_usd']:.4f}" in run["error_detail"]
        assert "FULL_PASS_MAX_RUN_COST_USD" in run["error_detail"]
        assert (len(world.asked()), run["model_calls"], run["cost_usd"]) == (asked, 0, 0)
        (event,) = world.announced(second)
        assert (event.topic, event.data["error_code"]) == (world.prefix + OUTPUTS[2], "budget_exceeded")
        assert event.data["error_detail"] == run["error_detail"]
        profile = world.profile(second)
        assert (profile["full_pass_status"], profile["memory_md"]) == ("failed", None)

        world.publish(first, completed_at=LATER)
        run = world.until_ended(first, runs=2)
        assert (run["status"], run["model_calls"], run["cost_usd"]) == ("completed", 0, 0)
        assert len(world.asked()) == asked


@pytest.mark.guarantee("G10")
def test_beyond_the_days_limit_runs_of_all_workers_wait_until_there_is_room_again(world: World) -> None:
    """Two workers, one limit. The run that meets it is handed back, the next is not begun, nothing fails, and all say why."""
    limit = {"FULL_PASS_MAX_COST_USD_PER_DAY": "1", "FULL_PASS_GIVE_UP_AFTER_SECONDS": "0.1", "FULL_PASS_MAX_FAILURES": "1"}
    world.settings.update(limit)
    first, second = world.a_user(a_small_export("etching")), world.a_user(a_small_export("engraving"))
    world.execute("INSERT INTO full_pass_spend VALUES (date_trunc('hour', now(), 'UTC') - interval '3 hours', 0.999999)")
    with world.worker() as one, world.worker() as two:
        one.ready(), two.ready()
        world.publish(first)
        until(lambda: [run for run in world.runs(first) if (run["status"], run["attempt"]) == ("pending", 1)], what="handed back")
        until(lambda: _say_why(one) and _say_why(two), what="both workers said why")
        world.publish(second)
        until(lambda: world.runs(second), what="the second event was accepted")

        with ThreadPoolExecutor(2) as pool:
            document, text = pool.map(lambda options: world.run("status", *options), [("--json",), ()])
        status = document.json
        assert status["held_back_by_day_limit"] is True
        assert status["spend_last_24_hours_usd"] >= status["max_cost_usd_per_day"] == 1
        until_then = f"{status['room_again_at'][:10]} {status['room_again_at'][11:16]}"
        assert f"of $1.00 a day; the limit holds runs back until {until_then}" in text.out
        (held,), (waiting,) = world.runs(first), world.runs(second)
        (spend,) = world.rows("SELECT sum(cost_usd) AS usd, min(hour) + interval '25 hours' AS room_at FROM full_pass_spend")
        assert (held["status"], held["attempt"], held["failures"], held["held_up_since"]) == ("pending", 1, 0, None)
        assert held["due_at"] >= spend["room_at"]
        assert (waiting["status"], waiting["attempt"]) == ("pending", 0)
        assert len(world.asked("etching")) == held["model_calls"] == 1  # overspent by what was in flight
        assert not world.asked("engraving")
        assert not world.announced(first)

        world.execute("UPDATE full_pass_spend SET hour = hour - interval '25 hours' WHERE cost_usd > 0.9")
        for user in (first, second):
            run = world.until_ended(user)
            assert (run["status"], run["failures"], run["model_calls"]) == ("completed", 0, 3)
        one.ready(), two.ready()


def _say_why(worker: Worker) -> bool:
    return "FULL_PASS_MAX_COST_USD_PER_DAY" in worker.reasons().get("budget", "")


def test_the_estimate_of_the_sample_is_near_what_its_run_bought_and_not_below(passed: Passed) -> None:
    """Calls are known exactly if no answer has to be asked for twice; of tokens, the answers' are the guess."""
    estimate, run = estimated(passed.world, passed.user), passed.run
    assert estimate["calls"] == run["model_calls"]
    assert 0.9 < estimate["input_tokens"] / run["input_tokens"] < 1.2
    assert 1 < estimate["cost_usd"] / float(run["cost_usd"]) < 2
    assert estimate["seconds"] > 0


def test_an_estimate_that_cannot_be_made_is_one_line_that_says_why(shared: World) -> None:
    said = shared.run("estimate", "exports/nobody/e.json", "--json")
    assert (said.status, said.out) == (1, "")
    assert re.fullmatch(r"full-pass: export_not_found: [^\n]+\n", said.err)
