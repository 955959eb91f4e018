"""`full-pass publish --from-file`, as a publisher or an operator runs it."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.topics import INPUT
from tests.acceptance.worker import FULL_PASS, until
from tests.acceptance.world import Said, World

USERS = [f"00000000-0000-4000-8000-{number:012}" for number in range(4)]
SECRET = "hunter2"


def a_line(number: int, **changes: Any) -> str:
    user = USERS[number % len(USERS)]
    event = {"user_id": user, "storage_path": f"exports/{user}.zip", "completed_at": f"2026-11-20T12:00:{number:02}Z"}
    return json.dumps(event | changes)


def start(world: World, *arguments: str, **streams: Any) -> subprocess.Popen[str]:
    """The command, with its streams as given."""
    command = [FULL_PASS, "publish", "--from-file", *arguments]
    return subprocess.Popen(command, env=world.environment(), cwd=world.folder, text=True, **streams)


def published(world: World, from_second: int, to_second: int) -> list[int]:
    """The numbers of the lines whose events lie on the topic, of a range."""
    found = [int(seen.data["completed_at"][17:19]) for seen in world.read(INPUT)]
    return sorted(number for number in found if from_second <= number < to_second)


def in_a_file(world: World) -> Said:
    lines = [a_line(0), a_line(1, storage_path=f"../{SECRET}"), "", SECRET, a_line(2)]
    (world.folder / "events.jsonl").write_text("\n".join(lines))
    return world.run("publish", "--from-file", "events.jsonl")


def in_a_pipe(world: World) -> Said:
    piped = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with start(world, "-", "--json", **piped) as process:
        out, err = process.communicate("\n".join((a_line(10), a_line(11, user_id=SECRET))) + "\n", timeout=60)
    return Said(process.returncode, out, err)


def on_a_terminal(world: World) -> Said:
    """Standard error is a terminal; what is read of it are the bytes that move its cursor."""
    (world.folder / "good.jsonl").write_text(a_line(20) + "\n")
    ours, theirs = pty.openpty()
    with start(world, "good.jsonl", stdin=theirs, stdout=subprocess.PIPE, stderr=theirs) as process:
        os.close(theirs)
        shown = bytearray()
        try:
            while piece := os.read(ours, 65_536):
                shown += piece
        except OSError:  # how a terminal of Linux ends
            pass
        out, _ = process.communicate(timeout=60)
    os.close(ours)
    return Said(process.returncode, out, shown.decode())


def interrupted(world: World) -> Said:
    """Ctrl-C while more may come, after two events have arrived; this one runs alone, since it looks at the topic."""
    with start(world, "-", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(f"{a_line(30)}\n{a_line(31)}\n")
        process.stdin.flush()
        until(lambda: published(world, 30, 40) == [30, 31], what="two events on the topic")
        process.send_signal(signal.SIGINT)
        process.wait(30)
        out, err = process.communicate()
    return Said(process.returncode, out, err)


@pytest.fixture(scope="module")
def said(own_world: World) -> dict[str, Said]:
    with ThreadPoolExecutor(3) as pool:
        ways = (in_a_file, in_a_pipe, on_a_terminal)
        found = dict(zip((way.__name__ for way in ways), pool.map(lambda way: way(own_world), ways), strict=True))
    return found | {"interrupted": interrupted(own_world)}


@pytest.mark.guarantee("G9")
def test_the_good_lines_are_published_and_the_others_named_by_number_and_reason(said: dict[str, Said], own_world: World) -> None:
    way, topic = said["in_a_file"], f"{own_world.prefix}{INPUT}"
    assert way.status == 1
    assert way.out.startswith(f"2 events published to {topic} in ")
    refused = way.err.splitlines()
    assert refused[0].startswith("line 2: storage_path_invalid: storage_path: expected bucket/key")
    assert refused[1] == "line 4: not_json: expected JSON, stopped at character 0"
    assert refused[2].startswith(
        "full-pass: 2 of 4 lines were refused: 1 storage_path_invalid, 1 not_json. The other 2 are published."
    )
    assert len(refused) == 3
    assert SECRET not in way.err + way.out
    assert published(own_world, 0, 10) == [0, 2]


def test_a_script_gets_one_json_document_and_no_bar_and_the_same_status(said: dict[str, Said], own_world: World) -> None:
    way = said["in_a_pipe"]
    assert way.status == 1
    document = json.loads(way.out)
    assert document.pop("seconds") > 0
    assert document == {
        "topic": f"{own_world.prefix}{INPUT}",
        "published": 1,
        "refused": 1,
        "refused_by_reason": {"invalid_field": 1},
        "refused_lines": [{"line": 2, "reason": "invalid_field", "detail": "user_id: expected a UUID"}],
    }
    assert way.err.startswith("full-pass: 1 of 2 lines were refused")
    assert way.err.count("\n") == 1
    assert published(own_world, 10, 20) == [10]


def test_a_terminal_shows_a_bar_with_what_was_published(said: dict[str, Said], own_world: World) -> None:
    way = said["on_a_terminal"]
    assert way.status == 0
    assert "1 published, 0 refused" in way.err
    assert "100%" in way.err
    assert "\x1b" not in way.out
    assert published(own_world, 20, 30) == [20]


def test_control_c_ends_it_cleanly_and_says_what_is_published(said: dict[str, Said]) -> None:
    way = said["interrupted"]
    assert (way.status, way.out) == (130, "")
    assert way.err == "stopped: 2 events are published; for the rest publish the same again: what is there does nothing\n"


def test_what_is_published_from_a_file_is_the_event_as_publish_sends_it(said: dict[str, Said], own_world: World) -> None:
    assert said["in_a_file"].status == 1
    (seen,) = [seen for seen in own_world.read(INPUT) if seen.data["completed_at"].startswith("2026-11-20T12:00:02")]
    assert seen.key == USERS[2].encode()
    assert seen.data == {**json.loads(a_line(2)), "completed_at": "2026-11-20T12:00:02.000000Z"}
    attributes = ("specversion", "id", "source", "type", "subject", "time", "dataschema")
    assert set(seen.headers) == {*(f"ce_{name}" for name in attributes), "content-type", "traceparent"}


def test_the_file_is_read_before_kafka_is_asked(own_world: World, tmp_path: Path) -> None:
    wrong = own_world.run("publish", "--from-file", str(tmp_path / "nowhere"), KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")
    assert (wrong.status, wrong.out) == (2, "")
    assert wrong.err == f"full-pass: --from-file: can't read {tmp_path / 'nowhere'}: No such file or directory\n"
