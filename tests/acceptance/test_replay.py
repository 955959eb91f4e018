"""`full-pass replay`, as an operator runs it: what it takes from topic and ledger, what it says, and when it doesn't."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.acceptance.topics import INPUT
from tests.acceptance.worker import FULL_PASS, until
from tests.acceptance.world import World

USERS = [str(uuid.UUID(int=number)) for number in range(1, 7)]
CHUNKS, COUNTED, UNKNOWN, BOUGHT, FAILED, OPEN = USERS
OTHER_MODEL = "claude-sonnet-5"


def event(user: str, day: int, **more: Any) -> dict[str, Any]:
    """A completion event of a day in November."""
    return {"user_id": user, "storage_path": f"exports/{user}.zip", "completed_at": f"2026-11-{day:02}T12:00:00Z", **more}


def published(world: World, *events: dict[str, Any] | bytes) -> None:
    """On partition by key, which is the user's."""
    values = [each if isinstance(each, bytes) else json.dumps(each).encode() for each in events]
    keys = [b"nobody" if isinstance(each, bytes) else str(each["user_id"]).encode() for each in events]
    world.produce([(key, value, []) for key, value in zip(keys, values, strict=True)])


@pytest.fixture(scope="module")
def story(own_world: World) -> World:
    """Six users whose events intake has taken, of which one has two; then one event that nobody has taken."""
    world = own_world
    published(
        world,
        event(CHUNKS, 1), event(CHUNKS, 9), event(COUNTED, 2, message_count=1_000), event(UNKNOWN, 3), event(BOUGHT, 4),
        b"no JSON", event(FAILED, 5), event(OPEN, 6),
    )  # fmt: skip
    with world.worker("--only", "intake"):
        until(lambda: len(world.rows("SELECT FROM full_pass_runs")) == 7, what="seven events were taken")
        until(lambda: committed(world) == 8, what="their offsets were committed")
    published(world, event(str(uuid.uuid4()), 7))
    end = "UPDATE full_pass_runs SET status = $2, finished_at = now(), model = $3, prompt_version = 1, "
    for user, status, more in (
        (CHUNKS, "completed", "coverage = 1"),
        (COUNTED, "completed", "coverage = 1"),
        (UNKNOWN, "failed", "error_code = 'internal'"),
        (FAILED, "failed", "error_code = 'coverage_too_low'"),
    ):
        world.execute(f"{end} {more} WHERE user_id = $1", uuid.UUID(user), status, OTHER_MODEL)
    bought = "model_calls = 10, input_tokens = 20000, output_tokens = 4000, cost_usd = 0.04"
    world.execute(f"{end} {bought} WHERE user_id = $1", uuid.UUID(BOUGHT), "completed", "claude-haiku-4-5-20251001")
    world.execute(
        "INSERT INTO full_pass_model_calls (user_id, request_sha256, run_id, kind, model, content, input_tokens, output_tokens,"
        " cost_usd) SELECT user_id, 'a', run_id, 'facts', model, '[]', 1, 1, 0.03 FROM full_pass_runs WHERE user_id = $1",
        uuid.UUID(BOUGHT),
    )
    world.execute(
        "INSERT INTO conversation_chunks SELECT $1, 'c' || n, 't', 'text', 1900, 0, 1, 8, 'medium', true, now()"
        " FROM generate_series(1, 20) AS n",
        uuid.UUID(CHUNKS),
    )
    return world


def committed(world: World) -> int:
    """How many records intake has committed, by its own word to the broker."""
    return sum(_committed(world).values())


def _committed(world: World) -> dict[int, int]:
    from aiokafka import TopicPartition
    from aiokafka.admin import AIOKafkaAdminClient

    async def ask() -> dict[int, int]:
        admin = AIOKafkaAdminClient(bootstrap_servers=world.bootstrap_servers)
        await admin.start()
        try:
            places = [TopicPartition(world.prefix + INPUT, number) for number in range(2)]
            found = await admin.list_consumer_group_offsets(f"{world.prefix}group", partitions=places)
        finally:
            await admin.close()
        return {place.partition: max(0, at.offset) for place, at in found.items()}

    return world._await(ask())


def dry(world: World, *options: str) -> dict[str, Any]:
    """What a dry run says."""
    found: dict[str, Any] = world.run("replay", "--dry-run", "--json", *options).json
    return found


def test_by_time_the_topic_is_read_and_what_is_not_replayed_is_counted(story: World) -> None:
    """Users and runs are exact; money stands on the best evidence of each user, and the share of each kind is said."""
    said = dry(story, "--since", "2026-11-01")
    assert (said["source"], said["source_reason"]) == ("topic", "the topic reaches back far enough")
    assert (said["users"], said["runs"], said["passed_over"], said["not_yet_taken"], said["invalid"]) == (5, 5, 1, 1, 1)
    assert said["known_from"] == {
        "recorded": {"runs": 1, "share": 0.2},
        "chunks": {"runs": 1, "share": 0.2},
        "message_count": {"runs": 1, "share": 0.2},
        "sample": {"runs": 2, "share": 0.4},
    }
    assert 0.04 < said["cost_usd"] < 5
    assert said["answers_save_usd_at_most"] == 0.03
    assert said["calls"] > 10
    assert said["seconds"] > 60
    assert not story.rows("SELECT FROM full_pass_replays")


def test_where_nobody_answers_nothing_is_spent_unless_told_so(story: World) -> None:
    said = story.run("replay", "--only-failed")
    assert said.status == 2
    question, mistake = said.err.splitlines()[-2:]
    assert re.fullmatch(r"Replay 2 users for about \$[0-9.]+\? \[y/N\]: ?", question)
    assert mistake.startswith("full-pass: --yes: expected, ")
    assert not story.rows("SELECT FROM full_pass_replays")


def test_a_terminal_shows_a_screen_and_is_asked_with_users_and_dollars_and_no_is_an_answer(story: World) -> None:
    """By offset: of the partition that is named alone, and without the last offset."""
    [place] = [seen for seen in story.read(INPUT) if seen.value and b"message_count" in seen.value]
    offsets = [f"--{end}-offset={place.partition}:{place.offset + (end == 'to')}" for end in ("from", "to")]
    ours, theirs = pty.openpty()
    command = [FULL_PASS, "replay", *offsets]
    with subprocess.Popen(
        command, env=story.environment(), text=True, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        os.write(ours, b"n\n")
        out, err = process.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)
    assert process.returncode == 1
    shown = dict(re.findall(r"^(\S(?:\S| (?! ))+) {2,}(.+?) *$", out, re.MULTILINE))
    assert (shown["source"], shown["users"], shown["known from"]) == ("topic (as asked)", "1", "100 % message_count (1)")
    assert f"Replay 1 user for about {shown['cost']}? [y/N]:" in err
    assert not story.rows("SELECT FROM full_pass_replays")


KEYS = 1_500


def crowded(world: World) -> None:
    """So many users in the ledger whose runs have ended; one more has a run open."""
    world.execute(
        "INSERT INTO full_pass_runs (run_id, user_id, idempotency_key, completed_at, event, traceparent, status, finished_at)"
        " SELECT gen_random_uuid(), lpad(to_hex(n), 32, '0')::uuid, 'key', '2026-11-20', '{\"storage_path\": \"a/b\"}', $1,"
        " 'completed', now() FROM generate_series(1, $2::int) AS n",
        f"00-{'1' * 32}-{'2' * 16}-00", KEYS,
    )  # fmt: skip
    again(world, 3)


def again(world: World, number: int) -> None:
    world.execute(AGAIN.format(number))


AGAIN = (
    "INSERT INTO full_pass_runs (run_id, user_id, idempotency_key, generation, completed_at, event, traceparent)"
    " SELECT gen_random_uuid(), user_id, idempotency_key, 1000, completed_at, event, traceparent FROM full_pass_runs"
    " WHERE user_id = lpad(to_hex({}), 32, '0')::uuid AND generation = 0"
)


def test_a_killed_fill_is_continued_by_the_same_command_and_a_cancelled_replay_ends_every_run(world: World) -> None:
    """It dies with a page of 1,000 keys made, while the next waits for a key that a transaction holds."""
    crowded(world)
    command = [FULL_PASS, "replay", "--yes", "--no-wait", "--json", "--max-cost-usd", "5"]
    environment = world.environment(FULL_PASS_LEASE_SECONDS="60")
    with world.holding(AGAIN.format(1_200)), subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        until(lambda: len(world.rows("SELECT FROM full_pass_runs WHERE generation = 1")) == 999, what="a page was made")
        process.kill()
    [row] = world.rows("SELECT * FROM full_pass_replays")
    assert (row["filled_at"], row["state"]) == (None, "running")

    again(world, 1_300)
    said = world.run(*command[1:])
    assert "replay 1 asks for the same and is not filled yet: what follows is its rest" in said.err
    document = said.json
    assert (document["generation"], document["state"], document["max_cost_usd"]) == (1, "running", 5)
    assert (document["runs"], document["passed_over"], document["open"]) == (KEYS - 2, 2, KEYS - 2)
    assert document["estimate"]["filled"] == 999
    assert world.rows("SELECT count(*) AS n, count(DISTINCT user_id) AS users FROM full_pass_runs WHERE generation = 1") == [
        {"n": KEYS - 2, "users": KEYS - 2}
    ]
    assert world.rows("SELECT DISTINCT priority FROM full_pass_runs WHERE generation = 1") == [{"priority": 10}]

    world.execute(
        "UPDATE full_pass_runs SET status = 'completed', finished_at = now()"
        " WHERE generation = 1 AND user_id > lpad('64', 32, '0')::uuid"
    )
    with ThreadPoolExecutor(2) as pool:
        shown, cancelled = pool.map(lambda word: world.run("replay", word, "1", "--json"), ["show", "cancel"])
    assert (shown.json["generation"], shown.json["selection"]["asked"]["only_failed"]) == (1, False)
    left = 0x64 - 1  # one of these users was passed over
    document = cancelled.json
    assert (document["state"], document["cancelled"], document["open"]) == ("cancelled", left, 0)
    assert (document["completed"], document["failed"]) == (KEYS - 2 - left, left)
    question = "SELECT event_type, data::jsonb ->> 'error_code' AS code, count(*) AS n FROM full_pass_outbox GROUP BY 1, 2"
    assert world.rows(question) == [{"event_type": "v2-failed", "code": "cancelled", "n": left}]
    listed = world.run("replay", "list")
    assert re.search(r"^1 +cancelled +ledger +1498 +1399 +99 +0 +0 +\$0\.00 of \$5\.00 ", listed.out, re.MULTILINE)
