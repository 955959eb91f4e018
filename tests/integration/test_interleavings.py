"""Order and versions: whatever happens in whatever order, a reader that keeps the highest `profile_version` is right."""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given, seed, settings
from hypothesis import strategies as st

from consumer.postgres.runs import Claim
from schemas.events import SECTION_NAMES
from tests.integration.interleavings import State, Story, sha256
from tests.integration.postgres_world import World, a_world

ONCE = (Phase.explicit, Phase.generate)  # two steps at a time may end in two ways: what failed once is told as it was
SEED = int(os.environ.get("INTERLEAVINGS_SEED", "12"))
EXAMPLES = int(os.environ.get("INTERLEAVINGS_EXAMPLES", "40"))
OFTEN = ("accept", "claim", "go_on", "go_on", "go_on", "go_on")
SELDOM = ("fail", "hand_back", "fall_silent", "retry", "replay", "write_beside", "make_anew", "delete", "forget")
GOING = {"make_anew", "delete", "forget"}
STEPS = st.lists(
    st.tuples(st.sampled_from(OFTEN + SELDOM), st.integers(0, 5), st.sampled_from((None, None, None, *OFTEN, "write_beside"))),
    min_size=8,
    max_size=32,
)
Step = tuple[str, int, str | None]
"""A step, a number for its choices, and another step that is taken at the same time."""


def plain(*names: str) -> list[Step]:
    """Steps one after the other; a digit behind a name is its number."""
    return [(name.rstrip("0123456789"), int(name[-1]) if name[-1].isdigit() else 0, None) for name in names]


OLDER_WAITS_WITH_ITS_MEMORY = plain(
    "accept0", "claim", "go_on", "go_on", "hand_back", "accept3", "claim", "go_on", "go_on", "go_on", "claim", "go_on"
)
EQUAL_TIMES = plain("accept1", "accept2", *["claim", "go_on", "go_on", "go_on"] * 2)
MADE_ANEW = plain(
    "accept0", "claim", *["go_on"] * 3, "make_anew", "accept1", "claim", *["go_on"] * 3, "forget0", "make_anew", "forget0"
)
FORGOTTEN_AND_MADE_ANEW = plain("accept0", "claim", *["go_on"] * 3, "forget1", "make_anew", "accept1", "claim", *["go_on"] * 3)
TAKEN_OVER = plain("accept0", "claim", "go_on0", "fall_silent", "claim", "go_on1", "go_on1", "go_on0", "go_on0")
RETRIED_BESIDE_LIVE = plain("accept0", "claim", "fail2", "retry", "accept3", "claim", "go_on", "go_on", "claim", *["go_on"] * 3)


@pytest.mark.guarantee("G2")
@pytest.mark.guarantee("G3")
@pytest.mark.guarantee("G4")
@pytest.mark.guarantee("G5")
@pytest.mark.guarantee("G6")
@pytest.mark.guarantee("G7")
def test_whatever_the_order_readers_of_the_highest_version_are_right(database_url: str) -> None:
    """Random steps of several runs of one user, two at a time now and then; after each all guarantees are looked at."""
    print(f"seed {SEED}")  # noqa: T201 - shown where the test fails

    with asyncio.Runner() as runner:
        opened = a_world(database_url)
        world = runner.run(opened.__aenter__())

        @seed(SEED)
        @settings(max_examples=EXAMPLES, deadline=None, database=None, phases=ONCE, suppress_health_check=list(HealthCheck))
        @given(STEPS)
        @example(OLDER_WAITS_WITH_ITS_MEMORY)
        @example(EQUAL_TIMES)
        @example(MADE_ANEW)
        @example(FORGOTTEN_AND_MADE_ANEW)
        @example(TAKEN_OVER)
        @example(RETRIED_BESIDE_LIVE)
        def holds(steps: list[Step]) -> None:
            runner.run(tell(world, steps))

        try:
            holds()
        finally:
            runner.run(opened.__aexit__(None, None, None))


async def tell(world: World, steps: list[Step]) -> None:
    """A story from a user's first profile row to the end of all runs."""
    for table in ("full_pass_runs", "full_pass_outbox"):
        await world.sql(f"DELETE FROM {table}")
    story = Story(world)
    await world.sql("INSERT INTO user_profiles (user_id, soul_md) VALUES (:id, 'v1')", id=story.user)
    for name, number, beside in steps:
        # What another writer adds in the very moment in which its row goes, nobody can know of.
        await take(story, name, number, None if (name in GOING and beside == "write_beside") else beside)
    await bring_to_an_end(story)


async def bring_to_an_end(story: Story) -> None:
    """Each hand comes to its end, and so does each run that is still open (guarantee G1)."""
    for _ in range(200):
        while story.hands:
            await take(story, "go_on", 0, None)
        await take(story, "claim", 0, None)
        if not story.hands:
            break
    runs = (await story.state()).runs
    assert {run["status"] for run in runs.values()} <= {"completed", "failed"}


async def take(story: Story, name: str, number: int, beside: str | None) -> None:
    """One step, or two at once, and what must hold after it."""
    before = await story.state()
    hand = story.hands[number % len(story.hands)].claim if story.hands else None
    if beside is None:
        await getattr(story, name)(number)
    else:
        await asyncio.gather(getattr(story, name)(number), getattr(story, beside)(number + 1))
    after = await story.state()
    highest = max(story.contents, default=0)
    each_version_is_one_content(story, after)
    each_run_is_told_once(after)
    events_carry_what_they_announce(story, after)
    sections_are_of_one_run(after)
    memory_is_the_newest(after)
    if beside is None:
        the_version_rises_by_one(highest, name, before, after)
        if name in {"go_on", "fail", "hand_back"} and hand is not None and not holds_it(before, hand):
            assert unleased(after) == unleased(before), "a hand that had lost its run has written"


def holds_it(state: State, claim: Claim) -> bool:
    run = state.runs.get(claim.run_id)
    return run is not None and (run["status"], run["attempt"]) == ("running", claim.attempt)


def unleased(state: State) -> tuple[Any, ...]:
    return state.profile, state.events, state.runs


def each_version_is_one_content(story: Story, now: State) -> None:
    """Or a reader that has a version already would go on with the other content. 0 is a row that we have not written yet."""
    if now.version:
        assert story.contents.setdefault(now.version, now.documents) == now.documents


def the_version_rises_by_one(highest: int, name: str, before: State, after: State) -> None:
    """With each change, above all that any reader has seen; and without one it stays. A row made anew has the application's 0."""
    if name in {"make_anew", "delete"} or after.profile is None:
        return
    if after.documents != before.documents:
        assert after.version == highest + 1
    elif name not in {"write_beside", "forget"}:
        assert after.version == before.version
    else:
        assert after.version in {before.version, highest + 1}


def each_run_is_told_once(now: State) -> None:
    told = Counter((event["run_id"], event["type"] == "memory-saved") for event in now.events)
    assert set(told.values()) <= {1}, "a run has two ends, or saved two MEMORYs"
    assert len({(run["idempotency_key"], run["generation"]) for run in now.runs.values()}) == len(now.runs)
    assert sum(run["status"] == "running" for run in now.runs.values()) <= 1
    types = {(event["run_id"], event["type"]) for event in now.events}
    for run_id, run in now.runs.items():
        assert ((str(run_id), "memory-saved") in types) == (run["memory_saved_at"] is not None)
        assert ((str(run_id), "v2-completed") in types) == (run["status"] == "completed")
        assert ((str(run_id), "v2-failed") in types) == (run["status"] == "failed")
    for run_id in now.runs:
        assert [event["type"] for event in now.events if event["run_id"] == str(run_id)][1:] != ["memory-saved"], "told too late"


def events_carry_what_they_announce(story: Story, now: State) -> None:
    changes = [event for event in now.events if event["type"] != "v2-failed"]
    versions = [event["profile_version"] for event in changes]
    assert versions == sorted(set(versions)), "versions rise in the order of the changes"
    for event in changes:
        content = story.contents.get(event["profile_version"])
        if content is not None:
            place, name = (0, "memory_sha256") if event["type"] == "memory-saved" else (-1, "soulprint_sha256")
            assert sha256(content[place]) == event[name]


def sections_are_of_one_run(now: State) -> None:
    if now.profile is None or now.profile["soulprint_text"] is None:
        return
    sections = {now.profile[f"{name}_md"] for name in SECTION_NAMES}
    assert {json.loads(section)["of"] for section in sections} == {json.loads(now.profile["soulprint_text"])["of"]}


def memory_is_the_newest(now: State) -> None:
    """Of the runs that saved one, the newest has the last word (guarantee G7)."""
    memory = (now.profile or {}).get("memory_md") or ""
    saved = [run for run in now.runs.values() if run["memory_saved_at"] is not None]
    owner = memory.removeprefix("MEMORY of ").split(" ")[0]
    if memory.startswith("MEMORY of ") and owner in {str(run["run_id"]) for run in saved}:
        newest = max(saved, key=lambda run: (run["completed_at"], run["generation"], run["run_id"]))
        assert owner == str(newest["run_id"])
