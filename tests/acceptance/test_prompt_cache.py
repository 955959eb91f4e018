"""`examples/prompt_cache.py` beside a worker: no chat gets a prompt older than what its cache has seen announced."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.redis import RedisServer
from tests.acceptance.chats import EXAMPLE, Chats, ReaderProcess
from tests.acceptance.exports import a_small_export
from tests.acceptance.worker import until
from tests.acceptance.world import User, World


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis") as server:
        yield server


def test_it_needs_aiokafka_asyncpg_redis_and_python_alone() -> None:
    tree = ast.parse(EXAMPLE.read_text(encoding="utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in imported} - sys.stdlib_module_names == {"aiokafka", "asyncpg", "redis"}


@pytest.mark.guarantee("G5")
def test_no_chat_gets_a_stale_prompt_with_a_worker_killed_and_the_topic_replayed(
    world: World, redis_server: RedisServer, tmp_path: Path
) -> None:
    """The worker dies between MEMORY and sections. The reader is stopped, misses events and then reads all topics again."""
    held, twice = (world.a_user(a_small_export(word)) for word in ("archery", "bookbinding"))
    again = User(twice.id, twice.path, "2026-11-21T12:00:00.000000Z")  # a later export of the same user
    world.script({"match": {"kind": "sections", "contains": "archery"}, "times": None, "fault": {"kind": "hang"}})
    worker = world.worker().ready()
    with (
        ReaderProcess(world, redis_server.url, tmp_path / "reader-1.log") as reader,
        Chats(world, redis_server.url, [held, twice]) as chats,
    ):
        chats.until_served(held, 0)
        world.publish(held)
        world.publish(twice)
        world.until_ended(twice)
        world.until_stage(held, "sections")
        chats.until_served(twice, 2)
        chats.until_served(held, 1)
        worker.kill()
        assert reader.stop() == 0
        assert reader.said.count("was announced: an older prompt is dropped") >= 2
        assert "all prompts are dropped" in reader.said

        world.clear_script()
        world.worker()
        world.publish(again)
        world.until_ended(held)
        world.until_ended(twice, runs=2)
        chats.rewind()
        with ReaderProcess(world, redis_server.url, tmp_path / "reader-2.log") as replaying:
            chats.until_served(held, 2)
            chats.until_served(twice, 4)
            until(lambda: chats.seen == {held.uuid: 2, twice.uuid: 4}, what="the reader had taken everything")
            assert "all prompts are dropped" not in replaying.said
    assert chats.stale == []
    last = dict(chats.answers)
    for user in (held, twice):
        row = world.profile(user)
        assert (last[user.uuid].version, last[user.uuid].cached) == (row["profile_version"], True)
        assert row["memory_md"] in last[user.uuid].text
        assert json.loads(row["soul_md"])["communication_style"] in last[user.uuid].text


def test_a_person_can_ask_for_a_prompt(shared: World, redis_server: RedisServer) -> None:
    user = shared.a_user()

    def asked(user_id: str) -> object:
        places = {"DATABASE_URL": shared.database_url, "REDIS_URL": redis_server.url}
        command = [sys.executable, "-I", str(EXAMPLE), user_id]
        said = subprocess.run(command, env=os.environ | places, capture_output=True, text=True, timeout=60, check=False)
        assert (said.returncode, said.stderr) == (0, "")
        return json.loads(said.stdout)

    first, second = asked(user.id), asked(user.id)
    assert isinstance(first, dict)
    assert (first["version"], first["cached"]) == (0, False)
    assert "the quick pass said this of soul" in first["text"]
    assert second == {**first, "cached": True}
    assert asked("00000000-0000-4000-8000-000000000000") is None
