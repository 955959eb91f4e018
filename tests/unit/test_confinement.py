"""Containers: nobody in particular, on a read-only file system with a writable /tmp, without capabilities and without secrets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
MANIFESTS = [
    manifest
    for path in sorted((ROOT / "deploy/kubernetes").glob("*.yaml"))
    for manifest in yaml.safe_load_all(path.read_text(encoding="utf-8"))
]
PODS: dict[str, Any] = {
    manifest["metadata"]["name"]: manifest["spec"]["template"]["spec"]
    for manifest in MANIFESTS
    if "template" in manifest.get("spec", {})
}
CONTAINERS = [
    pytest.param(pod, container, id=container["name"])
    for pod in PODS.values()
    for container in (*pod["containers"], *pod.get("initContainers", ()))
]


@pytest.mark.parametrize("name", PODS)
def test_a_pod_is_nobody_in_particular_and_has_no_key_to_the_cluster(name: str) -> None:
    pod = PODS[name]
    context = pod["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] == context["runAsGroup"] == context["fsGroup"] == 10001
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()


@pytest.mark.parametrize(("pod", "container"), CONTAINERS)
def test_a_container_of_a_pod_writes_to_tmp_alone(pod: dict[str, Any], container: dict[str, Any]) -> None:
    context = container["securityContext"]
    assert context == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    (mount,) = container["volumeMounts"]
    assert mount["mountPath"] == "/tmp"
    (volume,) = (each for each in pod["volumes"] if each["name"] == mount["name"])
    assert volume["emptyDir"]["sizeLimit"]


@pytest.mark.parametrize(("pod", "container"), CONTAINERS)
def test_secrets_come_from_a_secret(pod: dict[str, Any], container: dict[str, Any]) -> None:
    assert {"secretRef": {"name": "full-pass"}} in container["envFrom"]
    assert "env" not in container
    (config,) = (manifest for manifest in MANIFESTS if manifest["kind"] == "Kustomization")
    (example,) = (manifest for manifest in MANIFESTS if manifest["kind"] == "Secret")
    public = {literal.split("=")[0] for literal in config["configMapGenerator"][0]["literals"]}
    assert not public & example["stringData"].keys()
    assert not [name for name in public if re.search("KEY|PASSWORD|SECRET|DATABASE_URL", name)]
    assert not {"secret.example.yaml"} & set(config["resources"])


@pytest.mark.parametrize("name", ["worker", "migrate", "topics", "stand-in"])
def test_a_service_of_ours_has_no_capability_and_gains_no_privilege(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "user" not in service
    assert not service.get("privileged")


def test_no_secret_is_built_into_the_image() -> None:
    """The build sees only what .dockerignore lets through, and takes no argument."""
    assert not re.search(r"^(ARG|ADD)\b", DOCKERFILE, re.MULTILINE)
    assert not re.search(r"(KEY|PASSWORD|SECRET|TOKEN|DATABASE_URL)\w*=", DOCKERFILE)
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split("\n")
    assert "*" in ignored
    assert {line for line in ignored if line.startswith("!")} == {
        "!pyproject.toml", "!README.md", "!LICENSE", "!consumer/", "!schemas/", "!sandbox/", "!deploy/", "!deploy/image/",
    }  # fmt: skip


def test_ci_looks_for_known_vulnerabilities_with_every_change_and_every_week() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    assert "make --no-print-directory audit" in [step.get("run") for step in workflow["jobs"]["audit"]["steps"]]
    assert workflow[True]["schedule"]  # YAML 1.1 reads `on` as true
