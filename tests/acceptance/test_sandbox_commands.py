"""The README's way to a sandbox of one's own, typed into a shell as it stands there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.acceptance.exports import a_small_export

README = Path(__file__).parents[2] / "README.md"
AFTERWARDS = """
for _ in $(seq 60); do
    full-pass runs list --status completed --json > completed.json
    grep -q run_id completed.json && break
done
run=$(sed -n 's/.*"run_id": "\\(.*\\)".*/\\1/p' completed.json)
full-pass runs show "$run" --json > run.json
full-pass status > status.txt
full-pass sandbox up --json > again.json
env > environment.txt
kill %1
wait %1
echo "$?" > worker.status
"""


def lines_of_readme() -> list[str]:
    """The block of the README that begins with `sandbox up`."""
    blocks = re.findall(r"```(?:sh|bash|shell|console)?\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    (block,) = [block for block in blocks if "sandbox up" in block]
    return [line for line in block.splitlines() if line.strip()]


@pytest.mark.timeout(300)
def test_the_four_lines_of_the_readme_take_an_export_through_and_down_ends_everything(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "my-export.zip", "w") as archive:
        archive.writestr("conversations.json", json.dumps(a_small_export("shoemaking")))
    lines = lines_of_readme()
    assert [name for name in ("sandbox up", "worker", "seed", "runs list") if any(name in line for line in lines)] != []
    ours = ("FULL_PASS_", "KAFKA_", "DATABASE_URL", "EXPORT_STORE_URL", "ANTHROPIC_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    full_pass = str(Path(sys.executable).with_name("full-pass"))
    try:
        shell = subprocess.run(
            ["/bin/bash", "-c", "\n".join([*lines, AFTERWARDS])],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
        assert "Traceback" not in shell.stderr, shell.stderr
        run = json.loads((tmp_path / "run.json").read_text())
        assert (run["status"], run["profile_version"], run["failures"]) == ("completed", 2, 0)
        assert {event["event_type"] for event in run["events"]} == {"memory-saved", "v2-completed"}
        assert "ok" in (tmp_path / "status.txt").read_text()
        assert "published to quick-pass-completed" in shell.stdout
        assert (tmp_path / "worker.status").read_text() == "0\n"
        again = json.loads((tmp_path / "again.json").read_text())
        pasted = (tmp_path / "environment.txt").read_text().splitlines()
        assert [f"{name}={value}" for name, value in again.items() if f"{name}={value}" not in pasted] == []
        assert {"KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL", "EXPORT_STORE_URL", "ANTHROPIC_BASE_URL"} <= set(again)
    finally:
        down = subprocess.run(
            [full_pass, "sandbox", "down", "--dir", str(tmp_path / ".sandbox"), "--wipe", "--json"],
            env=environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert json.loads(down.stdout) == {"folder": str(tmp_path / ".sandbox"), "wiped": True}
    assert not (tmp_path / ".sandbox").exists()
