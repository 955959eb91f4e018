"""How Kafka's jars are got: once, whoever asks, and only what the lock names."""

from __future__ import annotations

import functools
import http.server
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox import kafka_jars
from sandbox.errors import SandboxError
from sandbox.server import free_port, silent

STARTER = "from sandbox import kafka_jars; kafka_jars.class_path(lambda message: print(message, flush=True))"


class Registry(http.server.ThreadingHTTPServer):
    """A Maven repository with the jars that this machine has got before."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), functools.partial(_Handler, directory=str(folder)))
        self.asked: Counter[str] = Counter()
        self.spoiled = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Registry)
        self.server.asked[self.path] += 1
        if self.server.spoiled and self.path.endswith(self.server.spoiled):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"something else")
        else:
            super().do_GET()

    def log_message(self, *_: Any) -> None:
        """Nobody reads it."""


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """The only repository that `jgo` knows, and an empty cache."""
    kafka_jars.class_path(silent)
    with Registry(kafka_jars.cache_folder() / f"kafka-{kafka_jars.KAFKA_VERSION}" / "jars") as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        _use_central(tmp_path, server.url, monkeypatch)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        yield server
        server.shutdown()
        serving.join()


def _use_central(folder: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "jgo.conf").write_text(f"[repositories]\ncentral = {url}\n")
    monkeypatch.setenv("JGO_CONFIG_FILE", str(folder / "jgo.conf"))


def test_processes_that_start_at_once_get_each_jar_once(registry: Registry) -> None:
    started = [subprocess.Popen([sys.executable, "-c", STARTER], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = [process.communicate(timeout=60)[0] for process in started]

    assert [process.returncode for process in started] == [0, 0, 0]
    assert sorted(said) == ["", "", "getting Kafka (45 MB, once)…\n"]
    jars = {path: times for path, times in registry.asked.items() if path.endswith(".jar")}
    assert len(jars) == 46
    assert set(jars.values()) == {1}


def test_a_jar_that_is_not_the_locked_one_is_refused_and_not_kept(registry: Registry) -> None:
    registry.spoiled = "re2j-1.8.jar"
    with pytest.raises(SandboxError, match=r"re2j:1\.8 came with SHA-256"):
        kafka_jars.class_path(silent)
    assert list(kafka_jars.cache_folder().rglob("re2j-1.8.jar")) == []

    registry.spoiled = ""
    assert len(kafka_jars.class_path(silent)) == 46


def test_a_jar_that_an_interrupted_download_left_half_is_got_again(registry: Registry) -> None:
    [whole] = [path for path in kafka_jars.class_path(silent) if path.name == "re2j-1.8.jar"]
    content = whole.read_bytes()
    whole.write_bytes(content[:1000])
    for complete in kafka_jars.cache_folder().rglob("complete-*"):
        complete.unlink()

    kafka_jars.class_path(silent)

    assert whole.read_bytes() == content
    assert registry.asked["/com/google/re2j/re2j/1.8/re2j-1.8.jar"] == 2


def test_a_registry_that_can_not_be_reached_is_said_in_a_line(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _use_central(tmp_path, f"http://127.0.0.1:{free_port()}", monkeypatch)
    with pytest.raises(SandboxError, match=r"Kafka could not be got from Maven Central.*KAFKA_BOOTSTRAP_SERVERS"):
        kafka_jars.class_path(silent)
