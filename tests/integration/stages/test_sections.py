"""The sections stage, through the real gate and record, against the stand-in on the wire."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from consumer.errors import FinalError
from consumer.full_pass.richest import Block, Formatted
from consumer.full_pass.sections import Sections, regenerate_sections
from schemas.events import SECTION_NAMES, ErrorCode
from tests.integration.stages.world import World, fault, in_a_world, large_body

MEMORY = "## Preferences\n- I like tea.\n"
BLOCK = Block(
    (
        Formatted(('=== Conversation: "Tea" (2025-03-14) ===', "User: I like green tea most of all.", "Assistant: Noted.")),
        Formatted(('=== Conversation: "Trains" (2025-03-15) ===', "User: I prefer night trains.", "Assistant: Good.")),
    )
)


async def sections_of(world: World, block: Block = BLOCK) -> Sections:
    return await regenerate_sections(block, MEMORY, await world.run())


def test_five_sections_with_every_field_come_from_one_request(database_url: str) -> None:
    async def main(world: World) -> None:
        result = await sections_of(world)
        assert tuple(result.sections) == SECTION_NAMES
        assert result.conversations_sampled == 2
        [request] = world.stand_in.requests()
        assert request["body"]["max_tokens"] == 8_192
        expected = f"{BLOCK.text}\n\n## MEMORY (verified facts about this user)\n{MEMORY}"
        assert request["body"]["messages"][0]["content"] == expected

    in_a_world(database_url, main)


@pytest.mark.parametrize(
    ("unusable", "verdict", "told"),
    [
        ({"kind": "invalid_json"}, "invalid", "- the answer is not JSON"),
        ({"kind": "wrong_schema"}, "invalid", "- soul.emotional_patterns: is missing"),
        ({"kind": "max_tokens"}, "truncated", "- it was cut off at 8192 tokens"),
        ({"kind": "refusal"}, "refused", "- it was a refusal"),
    ],
)
def test_sections_that_are_not_valid_are_asked_for_once_more_with_what_was_wrong(
    database_url: str, unusable: dict[str, Any], verdict: str, told: str
) -> None:
    async def main(world: World) -> None:
        await world.stand_in.script(fault(of="sections", times=1, **unusable))
        result = await sections_of(world)
        assert tuple(result.sections) == SECTION_NAMES
        first, again = world.asked("sections")
        assert again.startswith(first)
        assert told in again.removeprefix(first)
        assert await world.verdicts() == [verdict]

    in_a_world(database_url, main)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("invalid_json", ErrorCode.MODEL_OUTPUT_INVALID),
        ("wrong_schema", ErrorCode.MODEL_OUTPUT_INVALID),
        ("refusal", ErrorCode.MODEL_REFUSED),
    ],
)
def test_after_a_second_unusable_answer_there_are_no_sections(database_url: str, kind: str, code: ErrorCode) -> None:
    async def main(world: World) -> None:
        await world.stand_in.script(fault(kind, "sections"))
        with pytest.raises(FinalError) as caught:
            await sections_of(world)
        assert caught.value.code is code
        assert len(world.asked("sections")) == 2

    in_a_world(database_url, main)


@large_body
def test_a_block_that_is_too_long_by_the_apis_count_keeps_as_many_conversations_as_fit(database_url: str) -> None:
    """600,000 characters are 150,000 tokens of English, and far more of Japanese."""

    async def main(world: World) -> None:
        lines = ("User: 私はお茶が好きです。" * 200, "Assistant: はい。")
        block = Block(tuple(Formatted((f'=== Conversation: "{number}" (2025-03-14) ===', *lines)) for number in range(200)))
        result = await sections_of(world, block)
        [request] = world.stand_in.requests("sections")
        assert 10 < result.conversations_sampled < 200
        kept = Block(block.conversations[: result.conversations_sampled])
        assert request["body"]["messages"][0]["content"].startswith(f"{kept.text}\n\n## MEMORY")
        assert len(world.stand_in.requests("count_tokens")) <= 10
        one_more = Block(block.conversations[: result.conversations_sampled + 1])
        assert len(one_more.text) / len(kept.text) * request["usage"]["input_tokens"] > 180_000

    in_a_world(database_url, main)


@large_body
def test_the_only_conversation_left_is_shortened_to_its_first_messages(database_url: str) -> None:
    async def main(world: World) -> None:
        lines = tuple(f"User: {number} " + "お茶" * 1_000 for number in range(300))
        result = await sections_of(world, Block((Formatted(('=== Conversation: "Tea" (2025-03-14) ===', *lines)),)))
        assert result.conversations_sampled == 1
        [user] = world.asked("sections")
        assert user.startswith('=== Conversation: "Tea" (2025-03-14) ===\nUser: 0 ')
        assert 10 < user.count("\nUser: ") < 300

    in_a_world(database_url, main)


def test_what_is_wrong_with_sections_goes_to_the_model_and_none_of_it_into_log_or_error(
    database_url: str, logged: Callable[[], list[dict[str, Any]]]
) -> None:
    """The answer is full of what people said; its errors are told by the names of our own fields (guarantee G9)."""

    async def main(world: World) -> None:
        await world.stand_in.script(fault("text", "sections", text='{"soul": {"swordfish": "swordfish"}, "swordfish": 1}'))
        with pytest.raises(FinalError) as caught:
            await sections_of(world)
        assert "soul: has 1 properties too many" in caught.value.detail
        assert "- soul: has 1 properties too many\n" in world.asked("sections")[1]
        assert "swordfish" not in caught.value.detail + world.asked("sections")[1] + str(logged())
        assert [line["event"] for line in logged()].count("sections_unusable") == 2

    in_a_world(database_url, main)


@large_body
def test_what_is_asked_for_again_still_fits(database_url: str) -> None:
    """The block was cut to what the context holds, to the last message; what was wrong comes on top of that."""

    async def main(world: World) -> None:
        lines = tuple(f"User: {number:04}{'茶' * 40}" for number in range(5_000))
        await world.stand_in.script(fault("text", "sections", times=1, text=json.dumps({name: {} for name in SECTION_NAMES})))
        await sections_of(world, Block((Formatted(('=== Conversation: "Tea" (2025-03-14) ===', *lines)),)))
        first, again = [request["usage"]["input_tokens"] for request in world.stand_in.requests("sections")]
        assert first + 100 < again <= 200_000 - 8_192

    in_a_world(database_url, main)
