"""Runs that end without a MEMORY, because too little could be read or the model never wrote one."""

from __future__ import annotations

from typing import Any

import pytest

from tests.acceptance.exports import a_small_export
from tests.acceptance.world import User, World


def fault(kind: str, of: str, word: str, **more: Any) -> dict[str, Any]:
    return {"match": {"kind": of, "contains": word}, "times": None, "fault": {"kind": kind, **more}}


def assert_nothing_was_saved(world: World, user: User, code: str) -> None:
    profile = world.profile(user)
    assert (profile["memory_md"], profile["soulprint_text"], profile["profile_version"]) == (None, None, 0)
    assert profile["full_pass_status"] == "failed"
    assert profile["full_pass_error"].startswith(f"{code}: ")
    assert world.names_of(user) == ["v2-failed"]
    (failed,) = world.announced(user)
    assert (failed.data["error_code"], failed.data["memory_saved"]) == (code, False)


@pytest.mark.parametrize(("word", "kind", "attempts"), [("marquetry", "refusal", 1), ("lacemaking", "max_tokens", 6)])
def test_too_little_coverage_ends_the_run_at_once_where_all_was_refused_and_else_after_its_failures(
    shared: World, word: str, kind: str, attempts: int
) -> None:
    """Of three conversations, packed together, the two that hold the word's project and beliefs are never answered."""
    user = shared.a_user(a_small_export(word))
    shared.script(fault(kind, "facts", f"building a {word}"), fault(kind, "facts", f"I believe that {word}"))
    shared.publish(user)
    run = shared.until_ended(user)
    assert (run["status"], run["error_code"], run["stage"]) == ("failed", "coverage_too_low", "facts")
    assert run["coverage"] == pytest.approx(1 / 3)
    assert "1 of 3 chunks were answered" in run["error_detail"]
    assert run["attempt"] == attempts
    assert_nothing_was_saved(shared, user, "coverage_too_low")
    asked = len(shared.asked(word, "facts"))
    assert run["model_calls"] == asked == len({str(each["body"]) for each in shared.asked(word, "facts")})
    status = shared.run("status", "--json").json
    assert 0 < status["coverage_last_24_hours"] < 1
    assert status["failures"]["coverage_too_low"] >= 1


@pytest.mark.guarantee("G3")
def test_what_only_says_that_generation_failed_is_never_saved(shared: World) -> None:
    user = shared.a_user(a_small_export("papermaking"))
    headings = ["Preferences", "Projects", "Important Dates", "Beliefs & Values", "Decisions & Context"]
    apology = "I could not generate it.\n\n" + "\n".join(f"## {heading}\nNo data yet." for heading in headings)
    shared.script(fault("text", "memory", "papermaking", text=apology))
    shared.publish(user)
    run = shared.until_ended(user)
    assert (run["status"], run["error_code"], run["stage"], run["attempt"]) == ("failed", "model_output_invalid", "memory", 1)
    assert len({str(each["body"]) for each in shared.asked("papermaking", "memory")}) == 3
    assert_nothing_was_saved(shared, user, "model_output_invalid")
