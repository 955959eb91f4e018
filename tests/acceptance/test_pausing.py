"""`full-pass pause` and `resume`: every executor rests, nothing is lost, and readiness says who did it and what goes on."""

from __future__ import annotations

import re

import pytest

from tests.acceptance.exports import a_small_export
from tests.acceptance.worker import until
from tests.acceptance.world import World

WHY = "the price list is wrong"


@pytest.mark.guarantee("G8")
def test_a_pause_hands_a_run_back_in_the_middle_and_a_resume_lets_it_go_on_without_buying_its_answers_again(world: World) -> None:
    """Two workers that would not look again for a minute. Events are still taken meanwhile."""
    user, late = world.a_user(a_small_export("sculling")), world.a_user(a_small_export("rowing"))
    world.script({"match": {"kind": "memory"}, "times": 1, "fault": {"kind": "latency", "seconds": 30}})
    patient = {"FULL_PASS_POLL_SECONDS": "60", "FULL_PASS_LEASE_SECONDS": "60"}
    with world.worker(**patient) as one, world.worker(**patient) as two:
        one.ready(), two.ready()
        world.publish(user)
        until(lambda: world.asked("sculling", "memory"), what="asked for MEMORY")
        said = world.run("pause", "--reason", WHY)
        assert said.status == 0
        assert re.fullmatch(rf"paused by an operator since \S+Z \({WHY}\); 'full-pass resume' goes on\n", said.out)
        until(lambda: WHY in one.reasons().get("executor", "") and WHY in two.reasons().get("executor", ""), what="both rest")
        until(lambda: world.runs(user)[0]["status"] == "pending", what="handed back")
        world.publish(late)
        until(lambda: world.runs(late), what="the late event was taken")
        again = world.run("pause", "--json").json
        assert (again["paused"], again["new"], again["reason"]) == (True, False, WHY)
        assert world.run("pause").out.startswith("it was paused already: paused by an operator since ")
        assert world.runs(late)[0]["attempt"] == 0

        gone_on = world.run("resume", "--json").json
        assert (gone_on["paused"], gone_on["was_paused"], gone_on["paused_at"]) == (False, True, again["paused_at"])
        for each in (user, late):
            run = world.until_ended(each)
            assert (run["status"], run["failures"], run["error_code"]) == ("completed", 0, None)
        one.ready(), two.ready()
        assert world.run("resume").out == "it was not paused; the executors work\n"
    assert len(world.asked("sculling", "facts")) == 1
    assert len(world.asked("sculling", "memory")) == 2  # the one in flight alone is bought again


@pytest.mark.parametrize("reason", ["x" * 201, "two\nlines"])
def test_a_reason_that_readiness_can_not_show_in_a_line_is_refused(shared: World, reason: str) -> None:
    said = shared.run("pause", "--reason", reason)
    assert (said.status, said.out) == (2, "")
    assert "expected one line of at most 200 characters" in " ".join(said.err.split())
    assert not shared.rows("SELECT FROM full_pass_pause")
