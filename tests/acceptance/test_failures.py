"""How runs fail: after MEMORY, before it, for a new user and for one who is well; and how they are tried again."""

from __future__ import annotations

import gzip
import json
import uuid
from typing import Any

import pytest

from schemas.events import SECTION_NAMES, event_id_of
from tests.acceptance.exports import V1_SECTIONS, a_small_export, conversation
from tests.acceptance.worker import Worker, until
from tests.acceptance.world import TRACE, User, World


def invalid_sections(word: str, times: int, kind: str = "wrong_schema") -> dict[str, Any]:
    return {"match": {"kind": "sections", "contains": word}, "times": times, "fault": {"kind": kind}}


def sections_of(world: World, user: User) -> dict[str, str]:
    profile = world.profile(user)
    return {name: profile[f"{name}_md"] for name in SECTION_NAMES}


@pytest.mark.guarantee("G3")
@pytest.mark.guarantee("G4")
def test_sections_invalid_twice_leave_memory_and_v1_sections_and_a_retry_makes_them_new(shared: World) -> None:
    user = shared.a_user(a_small_export("falconry"))
    shared.script(invalid_sections("falconry", 2))
    shared.publish(user)
    run = shared.until_ended(user)

    assert [each["outcome"]["fault"] for each in shared.asked("falconry", "sections")] == ["wrong_schema"] * 2
    assert "wrong with your previous answer" in str(shared.asked("falconry", "sections")[1]["body"]["messages"])
    assert (run["status"], run["stage"], run["error_code"]) == ("failed", "sections", "model_output_invalid")
    (memory_saved, failed) = shared.announced(user)
    assert failed.headers["ce_id"] == str(event_id_of(run["run_id"], "v2-failed")).encode()
    assert failed.headers["traceparent"].decode().split("-")[1] == TRACE
    assert failed.data == {
        "user_id": user.id,
        "idempotency_key": user.key,
        "generation": 0,
        "run_id": str(run["run_id"]),
        "profile_version": 1,
        "error_code": "model_output_invalid",
        "error_detail": run["error_detail"],
        "stage": "sections",
        "attempts": 1,
        "memory_saved": True,
        "failed_at": run["finished_at"].isoformat(timespec="microseconds").replace("+00:00", "Z"),
    }
    assert "soul" in run["error_detail"] or "tools" in run["error_detail"]
    profile = shared.profile(user)
    assert sections_of(shared, user) == V1_SECTIONS
    assert profile["memory_md"].startswith("## Preferences\n- ")
    assert (profile["full_pass_status"], profile["full_pass_error"], profile["profile_version"]) == ("complete", None, 1)
    assert profile["soulprint_text"] is None

    bought = len(shared.asked("falconry"))
    again = shared.run("runs", "retry", str(run["run_id"]), "--json").json
    second = shared.until_ended(user, runs=2)
    assert again == {"run_id": str(second["run_id"]), "new": True}
    assert second["generation"] > 0
    assert (second["idempotency_key"], second["status"], second["profile_version"]) == (user.key, "completed", 3)
    events = {(seen.headers["ce_type"], seen.data["generation"]): seen.data for seen in shared.announced(user)}
    assert events[b"memory-saved", second["generation"]]["profile_version"] == 2
    assert events[b"v2-completed", second["generation"]]["profile_version"] == 3
    assert len(events) == 4
    assert [each["kind"] for each in shared.asked("falconry")[bought:]] == ["sections"]
    assert sections_of(shared, user) != V1_SECTIONS
    assert memory_saved.data["profile_version"] == 1


def test_sections_invalid_once_are_asked_for_again_with_the_errors_and_go_well(shared: World) -> None:
    user = shared.a_user(a_small_export("scrimshaw"))
    shared.script(invalid_sections("scrimshaw", 1, "invalid_json"))
    shared.publish(user)
    assert shared.until_ended(user)["status"] == "completed"
    assert [each["outcome"]["fault"] for each in shared.asked("scrimshaw", "sections")] == ["invalid_json", None]


@pytest.mark.guarantee("G3")
def test_a_rerun_that_fails_before_memory_leaves_a_healthy_user_as_they_were(shared: World) -> None:
    user = shared.a_user(a_small_export("quilting"))
    shared.publish(user)
    shared.until_ended(user)
    healthy = shared.profile(user)
    shared.store(user.path, [])

    later = User(user.id, user.path, "2026-11-21T09:00:00.000000Z")
    shared.publish(later)
    run = shared.until_ended(later, runs=2)
    assert (run["status"], run["error_code"], run["stage"]) == ("failed", "export_empty", "reading")
    assert shared.profile(user) == healthy
    (failed,) = [seen.data for seen in shared.announced(user) if seen.headers["ce_type"] == b"v2-failed"]
    assert (failed["profile_version"], failed["memory_saved"]) == (2, False)
    assert len(shared.chunks(user)) == 3


UNREADABLE = {
    "no export": b"<html>Your download link has expired</html>",
    "cut off": gzip.compress(json.dumps(a_small_export()).encode())[:-40],
    "text behind its end": json.dumps(a_small_export()).encode() + b" and more",
}
EMPTY: dict[str, Any] = {
    "an empty array": [],
    "no visible message": [conversation("nothing", "  \n ", "")],
}


@pytest.mark.parametrize(
    ("export", "code"),
    [
        *(pytest.param(export, "export_unreadable", id=name) for name, export in UNREADABLE.items()),
        *(pytest.param(export, "export_empty", id=name) for name, export in EMPTY.items()),
    ],
)
@pytest.mark.guarantee("G1")
def test_a_first_run_whose_export_is_no_use_makes_the_profile_failed_with_the_code(shared: World, export: Any, code: str) -> None:
    user = shared.a_user(export)
    shared.publish(user)
    run = shared.until_ended(user)
    assert_failed_before_memory(shared, user, run, code)
    assert (run["attempt"], run["stage"], run["model_calls"]) == (1, "reading", 0)


def assert_failed_before_memory(world: World, user: User, run: dict[str, Any], code: str) -> None:
    profile = world.profile(user)
    assert (run["status"], run["error_code"]) == ("failed", code)
    assert (profile["full_pass_status"], profile["profile_version"]) == ("failed", 0)
    assert profile["full_pass_error"] == f"{code}: {run['error_detail']}"
    assert len(profile["full_pass_error"]) <= 500
    assert (profile["memory_md"], profile["soulprint_text"], profile["full_pass_completed_at"]) == (None, None, None)
    assert sections_of(world, user) == V1_SECTIONS
    (seen,) = world.announced(user)
    assert seen.topic.endswith("v2-failed")
    assert (seen.data["error_code"], seen.data["memory_saved"], seen.data["profile_version"]) == (code, False, 0)
    assert seen.data["error_detail"] == run["error_detail"]
    assert world.chunks(user) == []


def test_export_and_profile_that_never_come_end_the_run_after_the_grace(shared: World) -> None:
    """Four seconds of grace; looking again costs the run no failure and no model call."""
    without_export, without_profile = shared.a_user(), shared.a_user(a_small_export("basketry"), profile=False)
    shared.publish(without_export)
    shared.publish(without_profile)
    run = shared.until_ended(without_export)
    assert_failed_before_memory(shared, without_export, run, "export_not_found")
    other = shared.until_ended(without_profile)
    assert (other["status"], other["error_code"], other["model_calls"]) == ("failed", "profile_not_found", 0)
    (seen,) = shared.announced(without_profile)
    assert seen.data["profile_version"] is None
    for each in (run, other):
        assert (each["finished_at"] - each["created_at"]).total_seconds() >= 4
        assert each["attempt"] > 1
        assert each["failures"] == 0
    assert shared.asked("basketry") == []


def test_a_profile_row_that_appears_two_seconds_after_the_event_is_waited_for(shared: World) -> None:
    user = shared.a_user(a_small_export("carving"), profile=False)
    shared.publish(user)
    until(lambda: older_than_two_seconds(shared, user), what="the run had waited two seconds")
    shared.insert_profile(user)
    run = shared.until_ended(user)
    assert (run["status"], run["failures"]) == ("completed", 0)
    assert run["attempt"] > 1
    assert shared.names_of(user) == ["memory-saved", "v2-completed"]


def test_an_export_that_appears_two_seconds_after_the_event_is_waited_for(shared: World) -> None:
    user = shared.a_user()
    shared.publish(user)
    until(lambda: older_than_two_seconds(shared, user), what="the run had waited two seconds")
    assert shared.profile(user)["full_pass_status"] == "processing"
    shared.store(user.path, a_small_export("printing"))
    run = shared.until_ended(user)
    assert (run["status"], run["failures"]) == ("completed", 0)
    assert shared.names_of(user) == ["memory-saved", "v2-completed"]


def older_than_two_seconds(world: World, user: User) -> list[dict[str, Any]]:
    return world.rows(
        "SELECT FROM full_pass_runs WHERE user_id = $1 AND clock_timestamp() > created_at + interval '2 seconds'", user.uuid
    )


@pytest.mark.guarantee("G7")
def test_an_older_event_ends_as_superseded_without_a_model_call_once_a_newer_one_saved_memory(shared: World) -> None:
    newer = shared.a_user(a_small_export("smithing"))
    shared.publish(newer)
    shared.until_ended(newer)
    before = shared.profile(newer)
    shared.store(newer.path, a_small_export("forging"))

    older = User(newer.id, newer.path, "2026-11-19T12:00:00Z")
    shared.publish(older)
    until(lambda: len(shared.runs(newer)) == 2, what="the older event was taken")
    shared.until_ended(newer, runs=2)
    (run,) = [row for row in shared.runs(newer) if row["idempotency_key"] == older.key]
    assert (run["status"], run["error_code"], run["model_calls"], run["attempt"]) == ("failed", "superseded", 0, 1)
    (seen,) = [seen for seen in shared.announced(newer) if seen.data["run_id"] == str(run["run_id"])]
    assert (seen.headers["ce_type"], seen.data["error_code"]) == (b"v2-failed", "superseded")
    assert (seen.data["stage"], seen.data["memory_saved"], seen.data["profile_version"]) == ("starting", False, 2)
    assert shared.asked("forging") == []
    assert shared.profile(newer) == before
    assert {row["title"] for row in shared.chunks(newer)} == {each["title"] for each in a_small_export("smithing")}


@pytest.mark.guarantee("G1")
def test_an_invalid_message_becomes_a_dead_letter_as_it_came_and_blocks_nothing(shared: World, worker: Worker) -> None:
    user = shared.a_user(a_small_export("felting"))
    secret = f"secret-{uuid.uuid4().hex}"
    broken = f'{{"user_id": "{secret}", "storage_path": "exports/a.json"'.encode()
    wrong = json.dumps({**user.event, "completed_at": f"yesterday, {secret}"}).encode()
    headers = [("ce_type", b"quick-pass-completed"), ("x-origin", b"\xff\x00 bytes")]
    bare = json.dumps(user.event).encode()
    before = len(shared.read("quick-pass-completed-dead-letters"))
    shared.produce([(b"\x00key", broken, headers), (None, wrong, []), (b"k", bare, [])])

    assert shared.until_ended(user)["status"] == "completed"
    until(lambda: len(shared.read("quick-pass-completed-dead-letters")) == before + 2, what="both letters were written")
    letters = [seen for seen in shared.read("quick-pass-completed-dead-letters") if secret.encode() in (seen.value or b"")]
    by_value = {letter.value: letter for letter in letters}
    originals = {seen.value: seen for seen in shared.read("quick-pass-completed")}
    for value, key, own, reason, field in [
        (broken, b"\x00key", dict(headers), b"not_json", "JSON"),
        (wrong, None, {}, b"invalid_field", "completed_at"),
    ]:
        letter, original = by_value[value], originals[value]
        assert letter.key == key
        assert {name: text for name, text in letter.headers.items() if not name.startswith("dead_letter_")} == own
        assert letter.headers["dead_letter_reason"] == reason
        assert field in letter.headers["dead_letter_detail"].decode()
        assert secret not in letter.headers["dead_letter_detail"].decode()
        assert letter.headers["dead_letter_topic"].decode() == original.topic
        assert int(letter.headers["dead_letter_partition"]) == original.partition
        assert int(letter.headers["dead_letter_offset"]) == original.offset
        assert letter.headers["dead_letter_at"].endswith(b"Z")
    assert worker.metric('full_pass_messages_dead_lettered_total{reason="not_json"}') >= 1

    listed = shared.run("dead-letters", "list", "--json")
    assert secret not in listed.out
    places = {(each["partition"], each["offset"]): each for each in listed.json}
    letter = by_value[wrong]
    assert places[letter.partition, letter.offset] == {
        "partition": letter.partition,
        "offset": letter.offset,
        "at": letter.headers["dead_letter_at"].decode(),
        "topic": originals[wrong].topic,
        "source_partition": originals[wrong].partition,
        "source_offset": originals[wrong].offset,
        "reason": "invalid_field",
        "detail": letter.headers["dead_letter_detail"].decode(),
    }
    shown = shared.run("dead-letters", "list")
    assert shown.status == 0
    assert "invalid_field" in shown.out
    assert secret not in shown.out
