"""Manners of the command line: exit status, one readable line, one JSON document, help everywhere, no secret anywhere."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest

from tests.acceptance import reference
from tests.acceptance.exports import a_small_export
from tests.acceptance.topics import INPUT, LETTERS, OUTPUTS
from tests.acceptance.world import Said, User, World

Name = TypeVar("Name")
Call = tuple[tuple[str, ...], dict[str, str]]
"""Arguments, and what the environment has instead."""
SECRET = "hunter2"
NOBODY = "127.0.0.1:1"
RELEASED = Path(__file__).parents[2] / "schemas" / "released"
UNKNOWN = "00000000-0000-4000-8000-000000000000"
COMMANDS = (
    *((name,) for name in ("worker", "publish", "status", "demo", "estimate")),
    ("db", "upgrade"),
    ("topics", "create"),
    ("runs", "list"),
    ("runs", "show"),
    ("runs", "retry"),
    ("runs", "cancel"),
    *(("replay", name) for name in ("list", "show", "resume", "cancel")),
    ("pause",),
    ("resume",),
    ("dead-letters", "list"),
    ("dead-letters", "redrive"),
    ("users", "forget"),
    ("schemas", "export"),
    ("schemas", "compare"),
    ("sandbox", "up"),
    ("sandbox", "down"),
    ("sandbox", "seed"),
)
PUBLISH = ("publish", "--user-id", UNKNOWN, "--storage-path")

# A command, what its environment has instead, the exit status, and what its one line says.
MISTAKES: Mapping[str, tuple[tuple[str, ...], dict[str, str], int, str]] = {
    "no PostgreSQL": (("runs", "list"), {"DATABASE_URL": f"postgresql://u:{SECRET}@{NOBODY}/x"}, 1, "DATABASE_URL"),
    "no Kafka": (("topics", "create"), {"KAFKA_BOOTSTRAP_SERVERS": NOBODY}, 1, "KAFKA_BOOTSTRAP_SERVERS"),
    "no Kafka to publish to": ((*PUBLISH, "a/b"), {"KAFKA_BOOTSTRAP_SERVERS": NOBODY}, 1, "KAFKA_BOOTSTRAP_SERVERS"),
    "no Kafka for dead letters": (("dead-letters", "list"), {"KAFKA_BOOTSTRAP_SERVERS": NOBODY}, 1, "KAFKA_BOOTSTRAP_SERVERS"),
    "no topics": ((*PUBLISH, "a/b"), {"FULL_PASS_TOPIC_PREFIX": "nowhere-"}, 1, "full-pass topics create"),
    "no such run": (("runs", "show", UNKNOWN), {}, 1, "full-pass runs list"),
    "no such run to retry": (("runs", "retry", UNKNOWN), {}, 1, "full-pass runs list"),
    "stale contract": (("schemas", "export", "--check", "--to", "empty"), {}, 1, "full-pass schemas export"),
    "no PostgreSQL to forget in": (
        ("users", "forget", UNKNOWN), {"DATABASE_URL": f"postgresql://u:{SECRET}@{NOBODY}/x"}, 1, "DATABASE_URL"
    ),
    "no released contract": (("schemas", "compare", "--with", "empty"), {}, 1, "full-pass schemas export"),
    "no Kafka for a file": (
        ("publish", "--from-file", "/dev/null"), {"KAFKA_BOOTSTRAP_SERVERS": NOBODY}, 1, "KAFKA_BOOTSTRAP_SERVERS"
    ),
    "a file and a user": (("publish", "--from-file", "x", "--user-id", UNKNOWN), {}, 2, "--user-id"),
    "a folder of events": (("publish", "--from-file", "."), {}, 2, "--from-file"),
    "no such export": (("sandbox", "seed", "nowhere.zip"), {}, 1, "nowhere.zip"),
    "no setting": (("runs", "list"), {"DATABASE_URL": ""}, 2, "DATABASE_URL is not set"),
    "another database": (("runs", "list"), {"DATABASE_URL": f"mysql://u:{SECRET}@h/x"}, 2, "DATABASE_URL"),
    "no number": (("worker",), {"FULL_PASS_RUN_CONCURRENCY": SECRET}, 2, "FULL_PASS_RUN_CONCURRENCY"),
    "too short a lease": (("worker",), {"FULL_PASS_LEASE_SECONDS": "1"}, 2, "FULL_PASS_LEASE_SECONDS"),
    "no secret file": (
        ("worker",), {"ANTHROPIC_API_KEY": "", "ANTHROPIC_API_KEY_FILE": "/nowhere"}, 2, "ANTHROPIC_API_KEY_FILE"
    ),
    "another store": (("worker",), {"EXPORT_STORE_URL": f"ftp://u:{SECRET}@h"}, 2, "EXPORT_STORE_URL"),
    "no such part": (("worker", "--only", "nobody"), {}, 2, "--only"),
    "two options at once": (("worker", "--only", "relay", "--without", "relay"), {}, 2, "--without"),
    "no plain path": ((*PUBLISH, "a/../b"), {}, 2, "--storage-path"),
    "no zone": ((*PUBLISH, "a/b", "--completed-at", "2026-11-24T09:30:00"), {}, 2, "--completed-at"),
    "no user": (("publish", "--user-id", "me", "--storage-path", "a/b"), {}, 2, "--user-id"),
    "no retention": (("topics", "create", "--retention", "long"), {}, 2, "--retention"),
}  # fmt: skip
USAGE = {
    "no command": (),
    "unknown command": ("nonsense",),
    "unknown option": ("status", "--nonsense"),
    "missing option": ("publish",),
    "no UUID": ("runs", "show", "nonsense"),
    "no UUID to forget": ("users", "forget", "nonsense"),
    "unknown status": ("runs", "list", "--status", "lost"),
}


def all_at_once(world: World, calls: Mapping[Name, Call]) -> dict[Name, Said]:
    """Run commands side by side; most of a command's time goes into starting Python."""

    def run(call: Call) -> Said:
        return world.run(*call[0], **call[1])

    with ThreadPoolExecutor(3) as pool:
        return dict(zip(calls, pool.map(run, calls.values()), strict=True))


@pytest.fixture(scope="module")
def mistakes(shared: World) -> dict[str, Said]:
    return all_at_once(shared, {name: (call, changes) for name, (call, changes, _, _) in MISTAKES.items()})


@pytest.mark.guarantee("G9")
@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_readable_line_on_stderr_that_names_what_to_change(mistakes: dict[str, Said], name: str) -> None:
    said, (_, _, status, words) = mistakes[name], MISTAKES[name]
    assert said.status == status, said.err
    assert said.out == ""
    assert re.fullmatch(r"full-pass: [^\n]+\n", said.err), said.err
    assert words in said.err
    assert SECRET not in said.err


def test_wrong_usage_exits_with_2_and_says_how_to_get_help(shared: World) -> None:
    for name, said in all_at_once(shared, {name: (call, {}) for name, call in USAGE.items()}).items():
        assert said.status == 2, name
        assert "Traceback" not in said.err
        assert "--help" in said.err + said.out or "-h" in said.err, name


IN_ONE_PROCESS = """
import contextlib, io, json, sys
from consumer.commands import app
for arguments in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            app(arguments, prog_name="full-pass")
        except SystemExit as end:
            status = end.code
    print(json.dumps([status, out.getvalue(), err.getvalue()]))
"""


def one_after_the_other(world: World, calls: Mapping[Name, Sequence[str]]) -> dict[Name, Said]:
    """The command line itself, but in a single process: for calls that ask nothing of anybody."""
    done = subprocess.run(
        [sys.executable, "-c", IN_ONE_PROCESS], env=world.environment(DATABASE_URL=""), cwd=world.folder,
        input=json.dumps([list(call) for call in calls.values()]), capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return {name: Said(*json.loads(line)) for name, line in zip(calls, done.stdout.splitlines(), strict=True)}


def test_every_command_helps_and_the_help_lists_every_command(shared: World) -> None:
    groups = {command[:-1] for command in COMMANDS}
    helps = one_after_the_other(shared, {command: (*command, "--help") for command in (*COMMANDS, *groups)})
    for command, said in helps.items():
        assert (said.status, said.err) == (0, ""), command
        assert said.out.startswith(f"Usage: {' '.join(('full-pass', *command))} "), command
    for group in groups:
        listed = re.findall(r"^  ([a-z-]+)  ", helps[group].out.split("Commands:")[1], re.MULTILINE)
        known = {command[len(group)] for command in COMMANDS if command[: len(group)] == group}
        assert set(listed) == known | {each[0] for each in groups if each and not group}, group


def test_version_is_that_of_the_package(shared: World) -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    assert shared.run("--version").out == f"full-pass {project['project']['version']}\n"


@pytest.fixture(scope="module")
def user(shared: World) -> User:
    """Somebody whose run has failed after MEMORY, and one who was not found."""
    user = shared.a_user(a_small_export("tatting"))
    shared.script({"match": {"kind": "sections", "contains": "tatting"}, "times": 2, "fault": {"kind": "refusal"}})
    shared.publish(user)
    shared.until_ended(user)
    return user


@pytest.fixture(scope="module")
def documents(shared: World, user: User) -> dict[str, Said]:
    """What the commands say with `--json`, and without it."""
    (run,) = shared.runs(user)
    calls: dict[str, tuple[str, ...]] = {
        "list": ("runs", "list", "--user-id", user.id),
        "list failed": ("runs", "list", "--status", "failed", "--limit", "1"),
        "list nobody's": ("runs", "list", "--user-id", UNKNOWN),
        "show": ("runs", "show", str(run["run_id"])),
        "status": ("status",),
        "topics": ("topics", "create"),
        "upgrade": ("db", "upgrade"),
        "letters": ("dead-letters", "list"),
        "schemas": ("schemas", "export", "--to", "contract"),
        "compared": ("schemas", "compare", "--with", str(RELEASED)),
        "estimate": ("estimate", user.path),
        "seed": ("sandbox", "seed"),
    }
    said: dict[str, Call] = {name: ((*call, "--json"), {}) for name, call in calls.items()}
    said |= {f"plain {name}": (call, {}) for name, call in calls.items() if name not in {"seed", "list failed"}}
    return all_at_once(shared, said)


def test_each_command_says_the_same_to_people_without_a_json_document(documents: dict[str, Said]) -> None:
    for name, said in documents.items():
        if name.startswith("plain "):
            assert said.status == 0, name
            assert said.err == "" or (name == "plain list" and said.err.startswith("the newest 50 are shown")), name
            assert said.out.strip(), name
            assert said.out[0] not in "[{", name
    assert documents["plain list nobody's"].out == "no runs that fit\n"
    assert "model_refused" in documents["plain list"].out


def test_runs_list_is_an_array_newest_first_by_status_and_user(documents: dict[str, Said], user: User, shared: World) -> None:
    (listed,) = documents["list"].json
    (run,) = shared.runs(user)
    assert (listed["run_id"], listed["user_id"], listed["status"]) == (str(run["run_id"]), user.id, "failed")
    assert (listed["stage"], listed["error_code"], listed["attempt"]) == ("sections", "model_refused", 1)
    assert reference.moment(listed["finished_at"]) == run["finished_at"]
    assert len(documents["list failed"].json) == 1
    assert documents["list nobody's"].json == []


def test_runs_show_has_the_row_what_it_bought_and_what_it_announced(
    documents: dict[str, Said], user: User, shared: World
) -> None:
    shown = documents["show"].json
    (run,) = shared.runs(user)
    assert set(run) <= set(shown)
    assert shown["idempotency_key"] == user.key
    assert shown["cost_usd"] == float(run["cost_usd"])
    bought = {(call["kind"], call["verdict"]): call["answers"] for call in shown["calls"]}
    assert bought == {("facts", "usable"): 1, ("memory", "usable"): 1, ("sections", "refused"): 2}
    assert [event["event_type"] for event in shown["events"]] == ["memory-saved", "v2-failed"]
    assert all(event["published_at"] for event in shown["events"])


def test_status_counts_runs_failures_spend_and_names_the_dependencies(documents: dict[str, Said]) -> None:
    status = documents["status"].json
    assert set(status["runs"]) == {"pending", "running", "completed", "failed"}
    assert status["failures"]["model_refused"] >= 1
    assert status["spend_last_24_hours_usd"] > 0
    assert status["dependencies"] == {"postgresql": "ok", "kafka": "ok"}
    assert {"due", "oldest_due_at", "outbox_unpublished"} <= set(status)


def test_topics_create_and_db_upgrade_leave_alone_what_is_there(documents: dict[str, Said], shared: World) -> None:
    there = sorted(shared.prefix + name for name in (INPUT, LETTERS, *OUTPUTS))
    assert documents["topics"].json["created"] == []
    assert sorted(documents["topics"].json["existing"]) == there
    assert documents["upgrade"].json["revision"].startswith("full_pass_")


def test_dead_letters_list_is_an_array(documents: dict[str, Said]) -> None:
    assert isinstance(documents["letters"].json, list)


def test_schemas_export_writes_what_is_committed(documents: dict[str, Said], shared: World) -> None:
    assert len(documents["schemas"].json["files"]) == 5
    written = shared.folder / "contract"
    committed = Path(__file__).parents[2] / "schemas"
    for path in ("asyncapi.yaml", *(f"json/{name}.schema.json" for name in (INPUT, *OUTPUTS))):
        assert (written / path).read_bytes() == (committed / path).read_bytes()


def test_schemas_compare_finds_no_break_with_the_last_release_and_fails_at_one(documents: dict[str, Said], shared: World) -> None:
    version = documents["compared"].json["released"]
    assert documents["compared"].json["breaking"] == []
    old = shared.folder / "released" / version
    shutil.copytree(RELEASED / version, old)
    schema = old / "json" / "v2-completed.schema.json"
    schema.write_text(schema.read_text(encoding="utf-8").replace('"model"', '"engine"'), encoding="utf-8")
    said = shared.run("schemas", "compare", "--with", "released", "--json")
    assert said.status == 1
    assert said.err.startswith(f"full-pass: the contract breaks with {version}: v2-completed: engine: the field is gone")
    assert json.loads(said.out)["breaking"][0].startswith("v2-completed: engine: ")


def test_estimate_counts_without_a_model_call(documents: dict[str, Said], user: User, shared: World) -> None:
    estimate = documents["estimate"].json
    assert (estimate["conversations"], estimate["chunks"], estimate["messages"]) == (3, 3, 10)
    assert 0 < estimate["cost_usd"] < 1
    (run,) = shared.runs(user)
    assert estimate["calls"] <= run["model_calls"]


def test_sandbox_seed_says_what_to_publish(documents: dict[str, Said], shared: World) -> None:
    seeded = documents["seed"].json
    assert seeded["publish"] == f"full-pass publish --user-id {seeded['user_id']} --storage-path {seeded['storage_path']}"
    assert (shared.folder / "store" / seeded["storage_path"]).stat().st_size > 100_000
    (row,) = shared.rows("SELECT * FROM user_profiles WHERE user_id = $1", uuid.UUID(seeded["user_id"]))
    assert (row["full_pass_status"], row["memory_md"]) == ("pending", None)
    assert reference.is_json_text_of_section("soul", row["soul_md"])


def test_runs_retry_makes_a_new_generation_and_refuses_what_is_completed(shared: World, user: User) -> None:
    (run,) = shared.runs(user)
    again = shared.run("runs", "retry", str(run["run_id"]), "--json").json
    assert again["new"] is True
    assert str(shared.until_ended(user, runs=2)["run_id"]) == again["run_id"]
    refused = shared.run("runs", "retry", again["run_id"])
    assert (refused.status, refused.out) == (1, "")
    assert "completed" in refused.err
