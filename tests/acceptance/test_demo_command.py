"""`full-pass demo` as a newcomer types it: from nothing to the events, with an environment that means something else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.acceptance import reference
from tests.acceptance.exports import a_small_export
from tests.acceptance.worker import FULL_PASS, until

ELSEWHERE = {
    "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
    "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
    "KAFKA_SASL_MECHANISM": "PLAIN",
    "KAFKA_SASL_USERNAME": "somebody",
    "KAFKA_SASL_PASSWORD": "never-used",
    "DATABASE_URL": "postgresql://somebody:never-used@127.0.0.1:1/production",
    "EXPORT_STORE_URL": "s3://",
    "ANTHROPIC_API_KEY": "sk-never-used",
    "ANTHROPIC_BASE_URL": "http://127.0.0.1:1",
}
"""What somebody has in their shell who works with a real installation; nobody listens at any of these places."""
_SECONDS = 90


@dataclass(frozen=True)
class Demo:
    """A demo under way, with a folder for temporary files of its own."""

    process: subprocess.Popen[str]
    temporary: Path

    def left_behind(self) -> list[str]:
        """Files and processes that are there only because of the demo."""
        found = [str(path) for path in self.temporary.iterdir()]
        for process in psutil.process_iter():
            try:
                if process.environ().get("TMPDIR") == str(self.temporary):
                    found.append(" ".join(process.cmdline()))
            except psutil.Error:  # gone meanwhile, or somebody else's
                continue
        return found


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    export, temporary = tmp_path / "conversations.json", tmp_path / "temporary"
    export.write_text(json.dumps(a_small_export("sailmaking")))
    temporary.mkdir()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FULL_PASS_")}
    process = subprocess.Popen(
        [FULL_PASS, "demo", "--export", str(export), "--json"],
        env={**inherited, **ELSEWHERE, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    yield Demo(process, temporary)
    if process.poll() is None:
        process.terminate()
        process.communicate(timeout=_SECONDS)


def test_the_demo_shows_ones_own_export_as_one_document_and_leaves_nothing_behind(demo: Demo) -> None:
    out, err = demo.process.communicate(timeout=_SECONDS)
    assert demo.process.returncode == 0, err
    assert "Traceback" not in err
    document: dict[str, Any] = json.loads(out)
    assert (document["run"]["status"], document["run"]["failures"], document["run"]["profile_version"]) == ("completed", 0, 2)
    assert [event["topic"] for event in document["events"]] == ["memory-saved", "v2-completed"]
    saved, completed = (event["data"] for event in document["events"])
    assert "sailmaking" in document["profile"]["memory_md"]
    assert saved["memory_sha256"] == reference.sha256(document["profile"]["memory_md"])
    assert completed["soulprint_sha256"] == reference.sha256(document["profile"]["soulprint_text"])
    prompts = document["prompts"]
    shown = [(prompts[name]["version"], prompts[name]["cached"]) for name in ("cached", "fresh", "cached_again")]
    assert shown == [(0, True), (2, False), (2, True)]
    assert document["profile"]["memory_md"] in prompts["fresh"]["text"]
    assert len(prompts["dropped"]) == 1
    assert demo.left_behind() == []


def test_ctrl_c_ends_the_demo_with_everything_that_it_started(demo: Demo) -> None:
    until(lambda: list(demo.temporary.glob("*/worker.log")), seconds=_SECONDS, what="the demo had started its worker")
    demo.process.send_signal(signal.SIGINT)
    _, err = demo.process.communicate(timeout=_SECONDS)
    assert demo.process.returncode == 130
    assert "Traceback" not in err
    assert demo.left_behind() == []
