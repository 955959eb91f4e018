"""The MEMORY stage, through the real gate and record, against the stand-in on the wire."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import pytest

from consumer.errors import FinalError, Outage
from consumer.full_pass.categories import CATEGORIES, facts_of
from consumer.full_pass.memory import missing_headings, write_memory
from consumer.full_pass.memory_prompt import HEADINGS
from consumer.full_pass.reduction import FACTS_TOKENS_MAX
from schemas.events import ErrorCode
from tests.integration.stages.world import World, fault, in_a_world, large_body

FACTS = facts_of({"preferences": ["I like tea.", "I like trains."], "beliefs": ["I believe in slow mornings."]})


def test_memory_is_written_from_the_facts_as_one_json_object(database_url: str) -> None:
    async def main(world: World) -> None:
        memory = await write_memory(FACTS, await world.run())
        assert not missing_headings(memory)
        assert "- I like tea." in memory
        [user] = world.asked("memory")
        assert list(json.loads(user.split("\n")[1])) == list(CATEGORIES)
        body = world.stand_in.requests("memory")[0]["body"]
        assert body["max_tokens"] == 4_096
        assert "output_config" not in body

    in_a_world(database_url, main)


def test_a_memory_without_facts_is_made_without_the_model(database_url: str) -> None:
    async def main(world: World) -> None:
        memory = await write_memory(facts_of({}), await world.run())
        assert not missing_headings(memory)
        assert memory.count("No data yet.") == 5
        assert not world.stand_in.requests()

    in_a_world(database_url, main)


@pytest.mark.parametrize(
    "unusable", [{"kind": "text", "text": "## Preferences\nNo data yet."}, {"kind": "max_tokens"}, {"kind": "refusal"}]
)
def test_an_unusable_memory_is_asked_for_twice_again_and_then_written(database_url: str, unusable: dict[str, Any]) -> None:
    async def main(world: World) -> None:
        await world.stand_in.script(fault(of="memory", times=2, **unusable))
        assert "- I like tea." in await write_memory(FACTS, await world.run())
        assert len(set(world.asked("memory"))) == len(world.asked("memory")) == 3
        assert "request 3 of 3" in world.asked("memory")[2]
        assert len(await world.verdicts()) == 2

    in_a_world(database_url, main)


@pytest.mark.parametrize(
    ("unusable", "code"),
    [
        ({"kind": "text", "text": "I could not generate it."}, ErrorCode.MODEL_OUTPUT_INVALID),
        ({"kind": "max_tokens"}, ErrorCode.MODEL_OUTPUT_INVALID),
        ({"kind": "refusal"}, ErrorCode.MODEL_REFUSED),
    ],
)
def test_after_three_unusable_answers_there_is_no_memory(database_url: str, unusable: dict[str, Any], code: ErrorCode) -> None:
    async def main(world: World) -> None:
        await world.stand_in.script(fault(of="memory", **unusable))
        with pytest.raises(FinalError) as caught:
            await write_memory(FACTS, await world.run())
        assert caught.value.code is code
        assert "generate" not in caught.value.detail
        assert len(world.asked("memory")) == 3

    in_a_world(database_url, main)


@large_body
def test_facts_that_the_estimate_takes_for_short_are_cut_to_what_the_context_holds(database_url: str) -> None:
    """A character of Japanese is a token or more: 199,000 estimated tokens are 800,000 real ones."""

    async def main(world: World) -> None:
        facts = facts_of({"preferences": [f"{number}番目のお茶が好きです" * 10 for number in range(5_000)]})
        assert facts.to_tokens() <= FACTS_TOKENS_MAX
        memory = await write_memory(facts, await world.run())
        assert "- 4999番目" in memory
        assert world.stand_in.requests("count_tokens")

    in_a_world(database_url, main)


def test_after_a_crash_the_same_run_goes_on_with_the_next_request_and_buys_none_again(database_url: str) -> None:
    """No two requests are equal, so each unusable answer stands in the record under its own."""

    async def main(world: World) -> None:
        await world.stand_in.script([*fault("max_tokens", "memory", times=2), *fault("status", "memory", times=None, status=500)])
        run_id = uuid4()
        run = await world.run(run_id)
        with pytest.raises(Outage):
            await write_memory(FACTS, run)
        await world.stand_in.clear_script()
        before = world.asked("memory")
        assert "- I like tea." in await write_memory(FACTS, world.next_attempt(run_id))
        assert len(set(before)) == 3
        assert world.asked("memory")[len(before) :] == [before[-1]]

    in_a_world(database_url, main)


def test_each_request_for_a_memory_says_what_was_missing_and_which_time_it_is(database_url: str) -> None:
    async def main(world: World) -> None:
        empty = "\n".join(f"{heading}\nNo data yet." for heading in HEADINGS)
        script = [
            *fault("text", "memory", times=1, text=empty),
            *fault("text", "memory", times=1, text=empty.replace("## Projects", "## Project")),
        ]
        await world.stand_in.script(script)
        await write_memory(FACTS, await world.run())
        first, second, third = world.asked("memory")
        told = "\n\nThis is request {} of 3. Your previous answer can't be used: it {}."
        nothing = "has 0 lines of facts where at least 3 were expected"
        assert second == first + told.format(2, nothing)
        assert third == first + told.format(3, f"lacks '## Projects' and {nothing}")

    in_a_world(database_url, main)


def test_a_memory_in_a_code_fence_is_saved_without_it(database_url: str) -> None:
    async def main(world: World) -> None:
        memory = "\n".join([*HEADINGS, "- One.", "- Two.", "- Three."])
        await world.stand_in.script(fault("text", "memory", text=f"Here it is:\n```markdown\n{memory}\n```"))
        assert await write_memory(FACTS, await world.run()) == memory + "\n"
        assert len(world.asked("memory")) == 1

    in_a_world(database_url, main)
