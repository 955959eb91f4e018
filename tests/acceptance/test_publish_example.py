"""`examples/publish.py`: an upstream service that knows nothing of this project but the contract."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.exports import a_small_export
from tests.acceptance.topics import INPUT
from tests.acceptance.world import User, World

EXAMPLE = Path(__file__).parents[2] / "examples" / "publish.py"
TRACE = "5b8aa5a2d2c872e8321cf37308d69df2"


def publish(world: World, user: User, *more: str) -> subprocess.CompletedProcess[str]:
    """Run the example for a user, away from this project's folder."""
    arguments = {
        "--bootstrap-servers": world.bootstrap_servers,
        "--topic": world.prefix + INPUT,
        "--user-id": user.id,
        "--storage-path": user.path,
        "--completed-at": user.completed_at,
        "--export-folder": str(world.folder / "store"),
    }
    words = [word for pair in arguments.items() for word in pair]
    command = [sys.executable, "-I", str(EXAMPLE), *words, *more]
    return subprocess.run(command, cwd=world.folder, capture_output=True, text=True, timeout=60, check=False)


def test_it_needs_aiokafka_and_python_alone() -> None:
    tree = ast.parse(EXAMPLE.read_text(encoding="utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in imported} - sys.stdlib_module_names == {"aiokafka"}


@pytest.mark.guarantee("G2")
def test_its_event_starts_one_run_in_its_trace_however_often_it_is_published(shared: World) -> None:
    user = shared.a_user(a_small_export("quilting"))
    for _ in range(2):
        said = publish(shared, user, "--traceparent", f"00-{TRACE}-b7ad6b7169203331-01")
        assert (said.returncode, said.stderr) == (0, "")
        assert said.stdout.startswith(f"published to {shared.prefix}{INPUT}, partition ")
    run = shared.until_ended(user)
    assert (run["status"], run["idempotency_key"]) == ("completed", user.key)
    first, second = [seen for seen in shared.read(INPUT) if seen.key == user.id.encode()]
    assert (first.headers, first.value) == (second.headers, second.value)
    assert {seen.headers["traceparent"].decode().split("-")[1] for seen in [first, *shared.announced(user)]} == {TRACE}
    announced = shared.announced(user)[0].headers
    assert first.headers.keys() == announced.keys()
    assert first.headers["ce_type"] == INPUT.encode()


def test_without_the_export_it_publishes_nothing(shared: World) -> None:
    user = shared.a_user()
    said = publish(shared, user)
    assert (said.returncode, said.stdout) == (1, "")
    assert said.stderr.startswith("not published: the export can't be read at storage_path")
    assert not [seen for seen in shared.read(INPUT) if seen.key == user.id.encode()]
