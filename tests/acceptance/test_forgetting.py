"""`full-pass users forget`, while the user's run is under way, and with its events still on the topic."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.acceptance.exports import V1_SECTIONS, a_small_export
from tests.acceptance.reference import moment
from tests.acceptance.worker import until
from tests.acceptance.world import Said, User, World

pytestmark = pytest.mark.guarantee("G11")

STAGES = ("reading", "facts", "memory", "sections")
HANG: dict[str, Any] = {"kind": "hang"}
TABLES = ("full_pass_runs", "full_pass_outbox", "full_pass_model_calls", "full_pass_forgotten", "conversation_chunks")
COLUMNS = [f"{name}_md" for name in V1_SECTIONS]


@dataclass(frozen=True)
class Story:
    """Four users, each forgotten with a run in another stage; then their events came again."""

    world: World
    users: dict[str, User]
    said: dict[str, Said]
    asked_before: dict[str, int]


@pytest.fixture(scope="module")
def forgotten(own_world: World) -> Iterator[Story]:
    """Each is forgotten once (`sections` with its profile) while the model, or a lock on the chunks, holds its run up."""
    world = own_world
    users = {stage: world.a_user(a_small_export(f"{stage}lace")) for stage in STAGES}
    held = {"facts": "readinglace"} | {kind: f"{kind}lace" for kind in STAGES[2:]}
    rules = [*held.items(), ("facts", "factslace")]  # `reading` is held once more, when its chunks are saved
    world.script(*({"match": {"kind": kind, "contains": word}, "times": None, "fault": HANG} for kind, word in rules))
    with world.worker().ready() as worker, ThreadPoolExecutor(3) as beside:
        for stage in STAGES[1:]:
            world.publish(users[stage])
        for stage in STAGES[1:]:
            world.until_stage(users[stage], stage)
        until(lambda: all(len(world.asked(f"{stage}lace", stage)) == 1 for stage in STAGES[1:]), what="a request of each hung")
        with world.holding("LOCK TABLE conversation_chunks IN ACCESS EXCLUSIVE MODE"):
            world.publish(users["reading"])
            world.until_stage(users["reading"], "reading")
            until(lambda: waits_for_chunks(world), what="the chunks of the run waited to be saved")
            reading = beside.submit(world.run, "users", "forget", users["reading"].id, "--json")
            until(lambda: looks_at_chunks(world), what="the command waited for the chunks")
        profile = {stage: ["--profile"] if stage == "sections" else [] for stage in STAGES}
        saying = {
            stage: beside.submit(world.run, "users", "forget", users[stage].id, "--json", *profile[stage]) for stage in STAGES[1:]
        }
        said = {stage: done.result() for stage, done in {"reading": reading, **saying}.items()}
        until(lambda: worker.metric("full_pass_leases_lost_total") == 4, what="the worker had let go of all four runs")
        asked = {stage: len(world.asked(f"{stage}lace")) for stage in STAGES}
        world.clear_script()
        repeated = worker.metric("full_pass_messages_repeated_total")
        for user in users.values():
            world.publish(user)
        until(lambda: worker.metric("full_pass_messages_repeated_total") == repeated + 4, what="their events had come again")
        yield Story(world, users, said, asked)


def waits_for_chunks(world: World) -> bool:
    return bool(world.rows("SELECT FROM pg_locks WHERE NOT granted AND relation = 'conversation_chunks'::regclass"))


def looks_at_chunks(world: World) -> bool:
    return bool(world.rows("SELECT FROM pg_locks WHERE NOT granted AND locktype = 'advisory'"))


def mentions(world: World, user: User) -> dict[str, int]:
    """The tables in which the user stands, and how often."""
    found = {each: world.rows(f"SELECT FROM {each} AS it WHERE it::text LIKE $1", f"%{user.id}%") for each in TABLES}
    return {table: len(rows) for table, rows in found.items() if rows}


@pytest.mark.parametrize("stage", STAGES)
def test_nothing_is_left_of_a_user_who_was_forgotten_in_the_middle_of_a_run(forgotten: Story, stage: str) -> None:
    erased = forgotten.said[stage].json
    assert (erased["user_id"], erased["runs"]) == (forgotten.users[stage].id, 1)
    bought = {"reading": 0, "facts": 0, "memory": 1, "sections": 2}[stage]
    assert (erased["recorded_answers"], erased["chunks"], erased["outbox_rows"]) == (bought, 3, int(stage == "sections"))
    assert any("Kafka" in place for place in erased["beyond_reach"])
    assert mentions(forgotten.world, forgotten.users[stage]) == {}


@pytest.mark.parametrize("stage", STAGES)
def test_its_run_ends_without_an_event_and_buys_nothing_more(forgotten: Story, stage: str) -> None:
    world, user = forgotten.world, forgotten.users[stage]
    assert world.names_of(user) == (["memory-saved"] if stage == "sections" else [])
    asked = len(world.asked(f"{stage}lace"))
    assert forgotten.asked_before[stage] == asked
    assert asked in ({0, 1} if stage == "reading" else {STAGES.index(stage)})


@pytest.mark.parametrize("stage", STAGES)
def test_the_profile_is_as_the_application_left_it_or_empty_where_that_was_asked_for(forgotten: Story, stage: str) -> None:
    profile = forgotten.world.profile(forgotten.users[stage])
    assert (profile["full_pass_status"], profile["full_pass_error"], profile["memory_md"]) == ("pending", None, None)
    if stage == "sections":
        assert [profile[column] for column in (*COLUMNS, "soulprint_text")] == [None] * 6
        assert profile["profile_version"] == forgotten.said[stage].json["profile_version"] == 2
    else:
        assert [profile[column] for column in COLUMNS] == list(V1_SECTIONS.values())
        assert profile["profile_version"] == 0


def test_what_stays_is_a_hash_for_each_of_them(forgotten: Story) -> None:
    rows = forgotten.world.rows("SELECT * FROM full_pass_forgotten")
    assert len(rows) == 4
    assert {row["forgotten_at"] for row in rows} == {moment(said.json["forgotten_at"]) for said in forgotten.said.values()}


@pytest.mark.guarantee("G5")
def test_an_event_that_is_completed_later_runs_and_its_versions_are_above(forgotten: Story) -> None:
    world, user = forgotten.world, forgotten.users["sections"]
    world.publish(user, completed_at=datetime.now(UTC).isoformat())
    assert world.until_ended(user)["status"] == "completed"
    versions = [seen.data["profile_version"] for seen in world.announced(user)]
    assert versions == [1, 3, 4]  # memory-saved of the run that was forgotten is on its topic still
    assert world.profile(user)["profile_version"] == 4


def test_people_are_told_what_went_and_what_is_beyond_reach(forgotten: Story) -> None:
    said = forgotten.world.run("users", "forget", str(uuid.uuid4()))
    assert (said.status, said.err) == (0, "")
    assert "Not reached from here" in said.out
    for place in ("Kafka", "dead letters", "backups", "model API", "caches"):
        assert place in said.out
