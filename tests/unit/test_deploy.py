"""Alerts, dashboard and manifests name things that exist."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import Histogram

from consumer.metrics import Metrics
from consumer.settings import Settings, variable_of

DEPLOY = Path(__file__).parents[2] / "deploy"
METRICS = Metrics()


def samples() -> set[str]:
    """The names under which a worker's metrics can be asked for."""
    names = set()
    for family in METRICS.registry.collect():
        names |= {family.name if family.type == "gauge" else f"{family.name}_total"}
        if family.type == "histogram":
            names |= {f"{family.name}_{part}" for part in ("bucket", "sum", "count")}
    return names


def expressions() -> list[str]:
    rules = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text(encoding="utf-8"))
    board = json.loads((DEPLOY / "grafana/full-pass.json").read_text(encoding="utf-8"))
    alerts = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    return alerts + [target["expr"] for panel in board["panels"] for target in panel["targets"]]


@pytest.mark.parametrize("expression", expressions())
def test_an_expression_asks_for_metrics_and_labels_that_exist(expression: str) -> None:
    named = set(re.findall(r"full_pass_\w+", expression))
    assert named <= samples()
    assert named or "up{" in expression
    labels = {label for family in vars(METRICS).values() if hasattr(family, "_labelnames") for label in family._labelnames}
    asked = {label for by in re.findall(r"by \(([^)]*)\)", expression) for label in by.split(", ")}
    assert asked <= labels | {"le"}


@pytest.mark.parametrize("expression", [each for each in expressions() if each.endswith("> 0")])
def test_a_counter_whose_first_event_wakes_somebody_is_shown_before_it(expression: str) -> None:
    """`increase` takes a counter that is born at 1 for one that has always been 1."""
    [name] = re.findall(r"increase\((full_pass_\w+)", expression)
    shown = [sample for family in METRICS.registry.collect() for sample in family.samples if sample.name == name]
    assert shown
    assert {sample.value for sample in shown} == {0}


def test_the_dashboard_shows_every_histogram() -> None:
    text = "".join(expressions())
    histograms = [metric._name for metric in vars(METRICS).values() if isinstance(metric, Histogram)]
    assert histograms
    assert all(name in text for name in histograms)


def manifests() -> list[dict[str, Any]]:
    found = [yaml.safe_load_all(path.read_text(encoding="utf-8")) for path in sorted((DEPLOY / "kubernetes").glob("*.yaml"))]
    return [manifest for documents in found for manifest in documents]


def test_manifests_set_variables_that_exist() -> None:
    known = {variable_of(name, field) for name, field in Settings.model_fields.items()}
    of_kind = {manifest["kind"]: manifest for manifest in manifests()}
    literals = {literal.split("=")[0] for literal in of_kind["Kustomization"]["configMapGenerator"][0]["literals"]}
    needed = {"KAFKA_BOOTSTRAP_SERVERS", "EXPORT_STORE_URL", "DATABASE_URL", "ANTHROPIC_API_KEY"}
    assert literals | of_kind["Secret"]["stringData"].keys() == needed
    assert needed <= known


def test_every_container_of_the_manifests_is_locked_down() -> None:
    pods = [manifest["spec"]["template"]["spec"] for manifest in manifests() if "template" in manifest.get("spec", {})]
    assert len(pods) == 2
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in (*pod["containers"], *pod.get("initContainers", ())):
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_a_worker_pod_has_longer_to_stop_than_it_takes() -> None:
    pod = next(manifest for manifest in manifests() if manifest["kind"] == "Deployment")["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > Settings.model_fields["shutdown_seconds"].default
