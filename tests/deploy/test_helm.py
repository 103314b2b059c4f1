"""deploy/helm: the chart makes what deploy/kubernetes has, and refuses what cannot work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import bertd
import pytest
import yaml
from helpers.deployed import DEPLOY, documents, effective, environment_of, validate
from helpers.kubectl import CHART, compared, kustomized, run, templated
from helpers.paths import ROOT

KUBERNETES = DEPLOY / "kubernetes"
COMPONENTS = {
    "": (),
    "tls": ("tls.secret=bertd-tls",),
    "monitoring": ("podMonitor=true",),
    "keda": ("autoscaling.by=keda",),
}
REFUSED = {
    "autoscaling.min=30": "raise max, or lower min",
    "tls.clientCa=true": "name the secret",
    "settings.insecure=x": "settings.insecure is set by the chart",
    "settings.access-log=true": "got boolean",
    "resources.cpu=1.5": "want integer",
    "replicas=3": "not allowed",
}


def _values() -> dict[str, Any]:
    (values,) = documents(CHART / "values.yaml")
    found: dict[str, Any] = values
    return found


def _names(values: dict[str, Any], before: str = "") -> set[str]:
    """Of all values; what users fill themselves is one."""
    found: set[str] = set()
    for name, value in values.items():
        inner = isinstance(value, dict) and name not in {"settings", "pod"}
        found |= _names(value, f"{before}{name}.") if inner else {before + name}
    return found


def test_the_chart_is_of_this_version_and_takes_what_the_manifests_take() -> None:
    (chart,) = documents(CHART / "Chart.yaml")
    (kustomization,) = documents(KUBERNETES / "kustomization.yaml")
    (image,) = kustomization["images"]
    assert chart["version"] == chart["appVersion"] == bertd.__version__ == image["newTag"]
    assert _values()["image"]["repository"] == image["newName"]


def test_each_value_has_a_schema_and_a_row_in_the_document() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    text = (ROOT / "docs/deployment.md").read_text(encoding="utf-8")
    for name in _names(_values()):
        place = schema
        for part in name.split("."):
            place = place["properties"][part]
        assert f"`{name}`" in text, f"docs/deployment.md does not say what {name} does"


@pytest.mark.slow
@pytest.mark.parametrize("component", COMPONENTS)
def test_it_makes_what_the_manifests_make(component: str, tmp_path: Path) -> None:
    """With each component of the kustomization, and the value that stands for it."""
    base = KUBERNETES.relative_to(ROOT)
    (tmp_path / "deploy").symlink_to(DEPLOY)  # kustomize takes no absolute path
    overlay = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [f"../{base}"],
        "components": [f"../{base}/{component}"] if component else [],
    }
    (tmp_path / "overlay").mkdir()
    (tmp_path / "overlay/kustomization.yaml").write_text(yaml.safe_dump(overlay))
    theirs = compared(kustomized(tmp_path / "overlay"))
    ours = compared(templated(*COMPONENTS[component]))
    assert ours == theirs


@pytest.mark.slow
def test_every_value_at_once_is_valid(tmp_path: Path) -> None:
    """And the server takes the flags, numbers above a million and fractions too."""
    made = templated(
        "model.repository=true",
        "tls.secret=tls",
        "tls.clientCa=true",
        "keys.secret=keys",
        "loadReports=true",
        "autoscaling.by=none",
        "autoscaling.queueSeconds=0.5",
        "networkPolicy.enabled=false",
        "image.pullSecrets={one}",
        "settings.max-queue-characters=5000000",
        "settings.max-queue-seconds=2.5",
        "settings.drain-seconds=60",
        "pod.nodeSelector.disk=fast",
    )
    kinds = {one["kind"]: one for one in made}
    assert kinds.keys() == {"Deployment", "Service", "PodDisruptionBudget"}
    for one in made:
        validate(one)
    assert kinds["Deployment"]["spec"]["replicas"] == 2
    pod = kinds["Deployment"]["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] == 75
    assert pod["nodeSelector"] == {"disk": "fast"}
    (container,) = pod["containers"]
    assert container["args"][0] == "--repository=/mnt/models"
    arguments = [str(tmp_path), *container["args"][1:]]
    settings = effective(arguments, environment_of(container), tmp_path)
    assert settings["max_queue_characters"] == 5_000_000
    assert settings["max_queue_seconds"] == 2.5
    assert settings["load_reports"] == "on"
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    for name in ("tls_certificate", "tls_key", "tls_client_ca", "api_keys"):
        assert str(Path(settings[name]).parent) in mounts


@pytest.mark.slow
def test_fractions_are_numbers_for_both_autoscalers() -> None:
    """`--set` makes strings of them."""
    fractions = ("autoscaling.queueSeconds=0.5", "settings.max-queue-seconds=2.5")
    found = {one["kind"]: one["spec"] for one in templated(*fractions)}
    pods = found["HorizontalPodAutoscaler"]["metrics"][0]["pods"]
    assert pods["target"]["averageValue"] == "500m"
    found = {one["kind"]: one["spec"] for one in templated("autoscaling.by=keda", *fractions)}
    trigger = found["ScaledObject"]["triggers"][0]["metadata"]
    assert trigger["threshold"] == "0.5"
    assert trigger["query"].endswith(", 2.5)))")


@pytest.mark.slow
def test_helm_finds_no_fault() -> None:
    linted = run("helm", "lint", "--strict", str(CHART))
    assert linted.returncode == 0, linted.stdout + linted.stderr


@pytest.mark.slow
@pytest.mark.parametrize("value", REFUSED)
def test_what_cannot_work_is_refused(value: str) -> None:
    made = run("helm", "template", "bertd", str(CHART), "--set", value)
    assert made.returncode != 0
    assert REFUSED[value] in made.stderr
