"""A real S3 server in a process of its own (moto's), set up as somebody with MinIO or Supabase Storage would: no region given."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import obstore
import pytest
from obstore.store import S3Store

from consumer.errors import NotThereYet, OperatorTrouble, Outage
from consumer.exports import buckets
from consumer.exports.conversations import Conversation, read_conversations
from consumer.exports.store import ExportStore
from tests.unit.exports.examples import LIMITS, simple

FULL_PASS = str(Path(sys.executable).with_name("full-pass"))
EXPORT = [simple("x" * 400, "y", "z") for _ in range(20)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the server listens; it is ended by its process id."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    log = tmp_path_factory.mktemp("s3") / "log"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with log.open("wb") as said, subprocess.Popen(command, stdout=said, stderr=said) as process:
        try:
            _wait_for(url, process, log)
            yield url
        finally:
            process.terminate()


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except urllib.error.URLError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, "moto's server doesn't answer"
            time.sleep(0.05)
        else:
            return


@pytest.fixture
def variables(server: str) -> dict[str, str]:
    """What such a user sets."""
    return {"AWS_ENDPOINT_URL": server, "AWS_ACCESS_KEY_ID": "minio", "AWS_SECRET_ACCESS_KEY": "secret"}


@pytest.fixture
def bucket(server: str, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> S3Store:
    """The bucket `exports`, as the application that uploads has it."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(buckets, "BLOCK_BYTES", 1_000)
    urllib.request.urlopen(urllib.request.Request(f"{server}/exports", method="PUT"), timeout=10).close()
    return S3Store("exports", client_options={"allow_http": True})


def test_an_export_is_streamed_in_ranges(bucket: S3Store) -> None:
    content = json.dumps(EXPORT).encode()
    obstore.put(bucket, "ada/Zoë's 100 % + file?.json", content)
    with ExportStore.from_url("s3://").open("exports/ada/Zoë's 100 % + file?.json") as file:
        read = [each for each in read_conversations(file, LIMITS) if isinstance(each, Conversation)]
        assert (file.size, len(read)) == (len(content), 20)
        assert file.etag.strip('"')


def test_a_file_that_is_replaced_while_it_is_read_is_noticed(bucket: S3Store) -> None:
    obstore.put(bucket, "a.json", b"x" * 5_000)
    with ExportStore.from_url("s3://").open("exports/a.json") as file:
        assert file.read(1_000) == b"x" * 1_000
        obstore.put(bucket, "a.json", b"y" * 5_000)
        with pytest.raises(Outage, match="replaced"):
            file.read(1_000)


def test_an_empty_file_is_read(bucket: S3Store) -> None:
    obstore.put(bucket, "empty.json", b"")
    with ExportStore.from_url("s3://").open("exports/empty.json") as file:
        assert (file.size, file.read()) == (0, b"")


def test_a_missing_object_may_come_yet_and_a_missing_bucket_is_the_operators_trouble(bucket: S3Store) -> None:
    store = ExportStore.from_url("s3://")
    with pytest.raises(NotThereYet):
        store.open("exports/nothing.json")
    with pytest.raises(OperatorTrouble, match="no such bucket"):
        store.open("no-such-bucket/a.json")


def test_the_command_line_reads_an_export_with_nothing_set_but_endpoint_and_key(
    bucket: S3Store, variables: dict[str, str], tmp_path: Path
) -> None:
    obstore.put(bucket, "ada/export.json", json.dumps(EXPORT).encode())
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "EXPORT_STORE_URL": "s3://", **variables}
    # as docker compose passes on what isn't set: empty
    environment |= {"AWS_REGION": "", "AWS_SESSION_TOKEN": "", "AWS_ENDPOINT_URL_S3": ""}
    command = [FULL_PASS, "estimate", "exports/ada/export.json", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    answer = json.loads(done.stdout)
    assert (answer["conversations"], answer["messages"]) == (20, 60)
