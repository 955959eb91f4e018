"""Exports in a folder, and which folder."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from consumer.errors import ConfigurationError, FinalError, NotThereYet, OperatorTrouble, Outage, RunError
from consumer.exports.store import ExportStore
from schemas.events import ErrorCode


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "a store"
    (folder / "exports" / "ada").mkdir(parents=True)
    (folder / "exports" / "ada" / "é x.json").write_bytes(b"0123456789")
    return folder


def _fails(root: Path, path: str) -> RunError:
    with pytest.raises(RunError) as caught:
        ExportStore.from_url(root.as_uri()).open(path)
    assert str(root) not in str(caught.value)
    return caught.value


def test_bucket_and_key_are_the_path_below_the_folder(root: Path) -> None:
    for url in (root.as_uri(), root.as_uri() + "/", f"file://{root}", f"file://localhost{root}"):
        with ExportStore.from_url(url).open("exports/ada/é x.json") as file:
            assert (file.size, file.read(4), file.seek(8), file.read(9), file.read(9)) == (10, b"0123", 8, b"89", b"")


def test_a_link_that_leads_out_of_the_folder_is_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_bytes(b"[]")
    (root / "exports" / "link.json").symlink_to(tmp_path / "secret.json")
    (root / "out").symlink_to(tmp_path)
    for path in ("exports/link.json", "out/secret.json", "exports/../../secret.json"):
        error = _fails(root, path)
        assert type(error) is FinalError
        assert error.code is ErrorCode.EXPORT_UNAVAILABLE


def test_a_link_inside_the_folder_is_followed(root: Path) -> None:
    (root / "exports" / "link.json").symlink_to(root / "exports" / "ada" / "é x.json")
    with ExportStore.from_url(root.as_uri()).open("exports/link.json") as file:
        assert file.size == 10


@pytest.mark.parametrize(
    "path", ["exports/no.json", "exports/ada", "exports/ada/é x.json/more", "other/no.json", "exports/" + "x" * 300]
)
def test_where_nothing_lies_something_may_come_yet(root: Path, path: str) -> None:
    error = _fails(root, path)
    assert type(error) is NotThereYet
    assert error.code is ErrorCode.EXPORT_NOT_FOUND


def test_a_loop_of_links_is_nothing(root: Path) -> None:
    (root / "exports" / "loop.json").symlink_to(root / "exports" / "loop.json")
    assert type(_fails(root, "exports/loop.json")) is NotThereYet


def test_a_pipe_is_refused_without_waiting_for_its_writer(root: Path) -> None:
    os.mkfifo(root / "exports" / "pipe.json")
    assert type(_fails(root, "exports/pipe.json")) is FinalError


def test_in_an_empty_folder_nothing_is_found_and_the_detail_asks_whether_it_is_mounted(tmp_path: Path) -> None:
    error = _fails(tmp_path, "exports/a.json")
    assert type(error) is NotThereYet
    assert error.detail.endswith(", and none in the whole store: is its folder mounted?")


def test_a_folder_that_is_missing_is_the_operators_trouble(root: Path, tmp_path: Path) -> None:
    """A store that isn't there must not end every run as `export_not_found`."""
    assert type(_fails(tmp_path / "nowhere", "exports/a.json")) is OperatorTrouble
    assert type(_fails(root / "exports" / "ada" / "é x.json", "exports/a.json")) is OperatorTrouble


@pytest.fixture
def foreign() -> Iterator[Path]:
    """A folder of somebody else's with two files, read by a process that isn't root, as far as this one can stop being root."""
    folder = Path(tempfile.mkdtemp(prefix="full-pass-"))
    (folder / "exports" / "ada").mkdir(parents=True)
    for name in ("exports/a.json", "exports/ada/b.json"):
        (folder / name).write_bytes(b"[]")
    folder.chmod(0o755)
    was_root = os.geteuid() == 0
    if was_root:
        os.setresuid(65534, 65534, 0)
    yield folder
    if was_root:
        os.setresuid(0, 0, 0)
    for path in (folder / "exports", folder):
        path.chmod(0o755)
    shutil.rmtree(folder)


def _without_rights(path: Path) -> None:
    """Only its owner can take a file's rights away."""
    user = os.geteuid()
    os.setresuid(path.stat().st_uid, path.stat().st_uid, -1)
    path.chmod(0)
    os.setresuid(user, user, -1)


def test_one_file_that_is_denied_ends_its_own_run(foreign: Path) -> None:
    _without_rights(foreign / "exports" / "a.json")
    _without_rights(foreign / "exports" / "ada")
    for path in ("exports/a.json", "exports/ada/b.json"):
        error = _fails(foreign, path)
        assert type(error) is FinalError
        assert error.code is ErrorCode.EXPORT_UNAVAILABLE


@pytest.mark.parametrize("denied", [".", "exports"])
def test_a_folder_that_is_denied_is_the_operators_trouble(foreign: Path, denied: str) -> None:
    _without_rights(foreign / denied)
    error = _fails(foreign, "exports/a.json")
    assert type(error) is OperatorTrouble
    assert "EXPORT_STORE_URL" in error.detail


@pytest.mark.parametrize("change", ["append", "overwrite", "truncate"])
def test_a_file_that_changes_while_it_is_read_is_noticed(root: Path, change: str) -> None:
    path = root / "exports" / "ada" / "é x.json"
    os.utime(path, (1, 1))
    with ExportStore.from_url(root.as_uri()).open("exports/ada/é x.json") as file:
        file.read(3)
        path.write_bytes({"append": b"0123456789a", "overwrite": b"9876543210", "truncate": b""}[change])
        with pytest.raises(Outage):
            file.read(3)


def test_a_file_whose_name_another_one_takes_is_read_to_its_end(root: Path) -> None:
    path = root / "exports" / "ada" / "é x.json"
    with ExportStore.from_url(root.as_uri()).open("exports/ada/é x.json") as file:
        (root / "new").write_bytes(b"new")
        (root / "new").replace(path)
        assert file.read(20) == b"0123456789"


@pytest.mark.parametrize(
    "url",
    [None, "", "/data", "data", "file://data", "file:data", "file://host/data", "http://x", "s3://bucket", "s3://bucket/", "gs://b/k",
     "az:///x", "s3:///x", "ftp://", "file:///data?x=1", "file:///data#x", "s3", "file://[x/data"],
)  # fmt: skip
def test_a_wrong_url_is_a_configuration_error_that_names_the_variable(url: str | None) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ExportStore.from_url(url)
    assert "EXPORT_STORE_URL" in str(caught.value)


@pytest.mark.parametrize("url", ["s3://", "gs://", "az://", "S3://"])
def test_a_scheme_alone_names_a_store_whose_buckets_the_paths_name(url: str) -> None:
    ExportStore.from_url(url)
