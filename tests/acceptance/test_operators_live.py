"""`runs show`, `runs cancel` and `dead-letters` while workers are at it."""

from __future__ import annotations

import json
import re

from tests.acceptance.exports import a_small_export
from tests.acceptance.terminal import COLUMNS, at_a_terminal
from tests.acceptance.test_commands import all_at_once
from tests.acceptance.topics import INPUT
from tests.acceptance.worker import until
from tests.acceptance.world import World


def test_runs_show_tells_the_story_of_a_run_and_where_in_kafka_its_events_are(shared: World) -> None:
    user = shared.a_user(a_small_export("glassblowing"))
    shared.script({"match": {"kind": "memory", "contains": "glassblowing"}, "times": 1, "fault": {"kind": "refusal"}})
    shared.publish(user)
    run = shared.until_ended(user)
    shared.clear_script()
    run_id = str(run["run_id"])
    shown = shared.run("runs", "show", run_id, "--json").json
    (attempt,) = shown["attempts"]
    assert (attempt["attempt"], attempt["ended"]) == (1, "completed")
    assert [stage["stage"] for stage in attempt["stages"]] == ["reading", "facts", "memory", "sections"]
    took = [stage["seconds"] for stage in attempt["stages"]]
    assert 0 < sum(took) <= attempt["seconds"]
    assert [entry["what"] for entry in shown["story"]] == ["claimed", "reading", "facts", "memory", "sections", "completed"]
    assert sum(call["input_tokens"] for call in shown["calls"]) == shown["input_tokens"]
    places = [(event["event_type"], event["kafka_partition"], event["kafka_offset"]) for event in shown["events"]]
    assert places == [(seen.topic.removeprefix(shared.prefix), seen.partition, seen.offset) for seen in shared.announced(user)]
    with at_a_terminal(shared, "runs", "show", run_id) as terminal:
        assert terminal.ended() == 0
    assert max(map(len, terminal.text.splitlines())) <= COLUMNS
    place = f"{places[1][1]} +{places[1][2]}"
    assert re.search(rf"^v2-completed +\S{{36}} +{place} +\S+ \S+ *$", terminal.text, re.MULTILINE), terminal.text
    assert re.search(r"^1 +\S+ \S+ +[\d.]+ +reading [\d.]+ s, facts", terminal.text, re.MULTILINE), terminal.text


def test_a_run_under_way_that_is_cancelled_saves_nothing_more_and_the_worker_goes_on(shared: World) -> None:
    user = shared.a_user(a_small_export("bookbinding"))
    shared.script(
        {"match": {"kind": "memory", "contains": "bookbinding"}, "times": 1, "fault": {"kind": "latency", "seconds": 20}}
    )
    shared.publish(user)
    shared.until_stage(user, "memory")
    (run,) = shared.runs(user)
    said = shared.run("runs", "cancel", str(run["run_id"]))
    assert (said.status, said.out) == (0, "1 cancelled, 0 passed over\n")
    ended = shared.until_ended(user)
    assert (ended["error_code"], ended["error_detail"]) == ("cancelled", "cancelled by an operator")
    assert shared.names_of(user) == ["v2-failed"]
    assert shared.profile(user)["memory_md"] is None
    shared.clear_script()


def test_a_dead_letter_that_is_redriven_after_the_mistake_was_mended_becomes_one_run_however_often(world: World) -> None:
    """A store's paths were forbidden by mistake; beside it lies a message that nothing can mend."""
    user = world.a_user()
    value = json.dumps(user.event).encode()
    world.produce([(user.id.encode(), value, [("x-source", b"import"), ("x-source", b"\xff")]), (b"k", b"broken", [])])
    with world.worker("--only", "intake", FULL_PASS_STORAGE_PATH_PATTERN="elsewhere/*") as mistaken:
        until(lambda: len(world.read(f"{INPUT}-dead-letters")) == 2, what="two dead letters")
        assert mistaken.stop() == 0  # leaves its group, so that the next one needn't wait for it
    (letter,) = [each for each in world.read(f"{INPUT}-dead-letters") if each.value == value]
    asked = {
        ("list", "--reason", "storage_path_not_allowed"),
        ("redrive", "--all", "--dry-run"),
        ("redrive", "--offset", f"{letter.partition}:{letter.offset}", "--offset", "1:99"),
    }
    said = all_at_once(world, {call: (("dead-letters", *call, "--json"), {}) for call in asked})
    by_name = {call[1]: each for call, each in said.items()}
    (listed,) = by_name["--reason"].json
    assert (listed["partition"], listed["offset"]) == (letter.partition, letter.offset)
    assert by_name["--all"].json == {"dry_run": True, "redrivable": 2, "redriven": [], "not_redriven": []}
    assert by_name["--offset"].status == 1
    (nothing,) = json.loads(by_name["--offset"].out)["not_redriven"]
    assert nothing == {"partition": 1, "offset": 99, "why": "there is no dead letter at that place"}

    with at_a_terminal(world, "dead-letters", "redrive", "--all") as terminal:
        terminal.until(re.escape("Redrive 2 dead letters? [y/N]:"))
        terminal.type("y")
        assert terminal.ended() == 0
    assert "2 redriven, 0 not" in terminal.text
    first, *again = [each for each in world.read(INPUT) if each.value == value]
    assert len(again) == 2  # by its place, and with all
    for each in again:
        assert (each.key, each.headers, each.partition) == (first.key, first.headers, first.partition)
    with world.worker("--only", "intake"):
        until(lambda: world.runs(user), what="a run was made")
        until(lambda: len(world.read(f"{INPUT}-dead-letters")) == 3, what="what is still wrong was buried again")
    assert len(world.runs(user)) == 1
    once_more = world.run("dead-letters", "redrive", "--all", "--dry-run", "--json").json
    assert once_more["redrivable"] == 2  # the one that came back is the one that was there, and is not doubled each time
    (same,) = once_more["not_redriven"]
    assert same["why"].startswith("it is the same message")
