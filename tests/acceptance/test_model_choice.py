"""The model is a setting, and what only an operator can mend keeps runs waiting instead of failing user after user."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from tests.acceptance.exports import a_small_export
from tests.acceptance.topics import OUTPUTS
from tests.acceptance.worker import until
from tests.acceptance.world import User, World

TOO_SHORT = "max_tokens: 8192 > 4096, which is the maximum allowed number of output tokens for claude-haiku-4-5-20251001"
OPERATORS: dict[str, tuple[dict[str, Any], str]] = {
    "a retired model": ({"kind": "status", "status": 404, "message": "model: claude-haiku-4-5-20251001"}, "FULL_PASS_MODEL"),
    "a model with shorter answers": ({"kind": "status", "status": 400, "message": TOO_SHORT}, "FULL_PASS_MODEL"),
    "a key without permission": ({"kind": "status", "status": 403}, "ANTHROPIC_API_KEY"),
    "an empty account": ({"kind": "credit"}, "no credit left"),
}


def test_what_only_an_operator_can_mend_makes_runs_wait_and_goes_on_without_a_restart(world: World) -> None:
    """One worker meets one trouble after the other. No run fails or is given up; each goes on when the trouble has ended."""
    with world.worker(FULL_PASS_GIVE_UP_AFTER_SECONDS="0.1", FULL_PASS_MAX_FAILURES="1") as worker:
        worker.ready()
        for name, (fault, named) in OPERATORS.items():
            user = world.a_user(a_small_export(name.replace(" ", "-")))
            world.script({"times": None, "fault": fault})
            world.publish(user)
            reasons = until(lambda: worker.reasons().get("model"), what=f"it was not ready for {name}")
            assert named in reasons, name
            tried_again = partial(has_been_tried_again, world, user)
            until(tried_again, what=f"the run was tried again in spite of {name}")
            (run,) = world.runs(user)
            assert (run["failures"], run["held_up_since"], run["finished_at"]) == (0, None, None), name
            assert worker.metric("full_pass_pace_open") == 0

            world.clear_script()
            run = world.until_ended(user)
            assert (run["status"], run["failures"]) == ("completed", 0), name
            worker.ready()
        assert not world.read(OUTPUTS[2])


def has_been_tried_again(world: World, user: User) -> bool:
    (run,) = world.runs(user)
    return bool(run["attempt"] > 1)


def test_another_model_is_a_setting_and_thinking_takes_nothing_from_its_answers(world: World) -> None:
    user = world.a_user(a_small_export("thatching"))
    with world.worker(FULL_PASS_MODEL="claude-sonnet-5-5") as worker:
        worker.ready()
        world.publish(user)
        run = world.until_ended(user)
    assert (run["status"], run["model_calls"]) == ("completed", 3)
    asked = [request["body"] for request in world.asked("thatching")]
    assert {(body["model"], body["thinking"]["type"]) for body in asked} == {("claude-sonnet-5-5", "between_tools")}
    (completed,) = [seen for seen in world.announced(user) if seen.topic.endswith("v2-completed")]
    usage = completed.data["usage"]
    assert completed.data["model"] == "claude-sonnet-5-5"
    assert usage["cost_usd"] == pytest.approx((usage["input_tokens"] * 2 + usage["output_tokens"] * 10) / 1e6)
