"""deploy/kubernetes: schemas, and what one file says of another and of the server."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from bertd_server.observability.families import FAMILIES
from bertd_server.system.setting_types import parse_bytes
from helpers.deployed import DEPLOY, documents, effective, environment_of, patched, port, validate

FOLDER = DEPLOY / "kubernetes"
PAGES = {"/readyz", "/healthz", "/metrics"}
LATE = 5  # seconds that a last batch, the last spans and the end of the process may take


def _all() -> dict[str, Any]:
    """The resources of the kustomization, by kind; a second Service by its name."""
    (kustomization,) = documents(FOLDER / "kustomization.yaml")
    found: dict[str, Any] = {}
    for name in kustomization["resources"]:
        for document in documents(FOLDER / name):
            key = document["kind"]
            found[document["metadata"]["name"] if key in found else key] = document
    return found


@pytest.fixture(scope="module")
def resources() -> dict[str, Any]:
    return _all()


@pytest.fixture(scope="module")
def pod(resources: dict[str, Any]) -> Any:
    return resources["Deployment"]["spec"]["template"]["spec"]


@pytest.fixture(scope="module")
def with_tls(resources: dict[str, Any]) -> dict[str, Any]:
    (operations,) = documents(FOLDER / "tls/patch.yaml")
    return patched(resources["Deployment"], operations)


def test_resources_keep_to_the_schemas(resources: dict[str, Any], with_tls: dict[str, Any]) -> None:
    """Unknown fields are errors, as a slip of ours shows."""
    for document in (*resources.values(), with_tls):
        validate(document)
    slip = copy.deepcopy(resources["Deployment"])
    slip["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="livenesProbe"):
        validate(slip)


def test_every_manifest_is_in_the_kustomization() -> None:
    (kustomization,) = documents(FOLDER / "kustomization.yaml")
    others = {"kustomization.yaml", "prometheus-adapter.yaml"}
    assert {path.name for path in FOLDER.glob("*.yaml")} - others == set(kustomization["resources"])
    for folder in ("tls", "monitoring", "keda"):
        (component,) = documents(FOLDER / folder / "kustomization.yaml")
        assert component["kind"] == "Component"
        files = component.get("resources", []) + [
            one["path"] for one in component.get("patches", ())
        ]
        assert all((FOLDER / folder / name).is_file() for name in files)


def test_the_server_takes_its_flags_and_has_time_to_stop(pod: Any, tmp_path: Path) -> None:
    """And restarts itself before the kernel would kill it."""
    (container,) = pod["containers"]
    settings = effective(container["args"], environment_of(container), tmp_path)
    assert settings["insecure"]
    drain = settings["drain_delay_seconds"] + settings["drain_seconds"]
    assert pod["terminationGracePeriodSeconds"] >= drain + LATE
    assert settings["drain_delay_seconds"] > 0
    assert settings["max_connection_age_seconds"] > 0
    resources = container["resources"]
    assert resources["requests"] == resources["limits"]
    assert int(resources["limits"]["cpu"]) >= 1
    available = parse_bytes(resources["limits"]["memory"] + "B")
    assert 1.1 * parse_bytes(settings["memory_limit"]) <= available
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert {container["args"][0], settings["cache_folder"]} <= mounts.keys()
    assert set(mounts.values()) == {volume["name"] for volume in pod["volumes"]}


def test_with_tls_the_server_takes_its_flags_too(with_tls: dict[str, Any], tmp_path: Path) -> None:
    """Its files are where the secret is mounted."""
    (container,) = with_tls["spec"]["template"]["spec"]["containers"]
    settings = effective(container["args"], environment_of(container), tmp_path)
    assert not settings["insecure"]
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    for name in ("tls_certificate", "tls_key"):
        assert str(Path(settings[name]).parent) in mounts


def test_ports_probes_and_services_agree_with_the_server(
    resources: dict[str, Any], pod: Any
) -> None:
    (container,) = pod["containers"]
    ports = {one["name"]: one["containerPort"] for one in container["ports"]}
    assert ports == {"grpc": port("address"), "http": port("http_address")}
    for kind, path in (("startup", "/readyz"), ("readiness", "/readyz"), ("liveness", "/healthz")):
        assert container[f"{kind}Probe"]["httpGet"] == {"path": path, "port": "http"}
    labels = resources["Deployment"]["spec"]["template"]["metadata"]["labels"]
    headless, plain = resources["Service"], resources["bertd"]
    assert headless["spec"]["clusterIP"] == "None"
    for service in (headless, plain):
        (one,) = service["spec"]["ports"]
        assert (one["name"], one["port"], one["targetPort"]) == ("grpc", port("address"), "grpc")
        assert service["spec"]["selector"].items() <= labels.items()
    policy = resources["NetworkPolicy"]["spec"]
    assert {one["port"] for rule in policy["ingress"] for one in rule["ports"]} == ports.keys()
    (monitor,) = documents(FOLDER / "monitoring/podmonitor.yaml")
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] in ports
    assert endpoint["path"] in PAGES
    selectors = (
        resources["Deployment"]["spec"]["selector"],
        resources["PodDisruptionBudget"]["spec"]["selector"],
        policy["podSelector"],
        monitor["spec"]["selector"],
        *(one["labelSelector"] for one in pod["topologySpreadConstraints"]),
    )
    for selector in selectors:
        assert selector["matchLabels"].items() <= labels.items()
    assert labels[monitor["spec"]["jobLabel"]] == "bertd"  # as dashboard and alerts expect


def test_pods_meet_the_restricted_standard(resources: dict[str, Any], pod: Any) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted."""
    labels = resources["Namespace"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    context = pod["securityContext"]
    assert context["runAsNonRoot"]
    assert context["runAsUser"] > 0
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        own = container["securityContext"]
        assert own["allowPrivilegeEscalation"] is False
        assert own["readOnlyRootFilesystem"] is True
        assert own["capabilities"] == {"drop": ["ALL"]}


def test_it_scales_on_a_metric_that_is_exported(
    resources: dict[str, Any], tmp_path: Path, pod: Any
) -> None:
    """Through the adapter's rule, for each pod, up to the wait at which calls are refused."""
    autoscaler = resources["HorizontalPodAutoscaler"]["spec"]
    assert autoscaler["scaleTargetRef"]["name"] == resources["Deployment"]["metadata"]["name"]
    assert "replicas" not in resources["Deployment"]["spec"]
    (rule,) = documents(FOLDER / "prometheus-adapter.yaml")[0]["rules"]["custom"]
    pods, _ = autoscaler["metrics"]
    name = pods["pods"]["metric"]["name"]
    assert rule["name"]["as"] == name
    (series,) = re.findall(r"^(\w+)\{", rule["seriesQuery"])
    assert series == name
    assert name in {family.name for family in FAMILIES}
    assert {"namespace", "pod"} == rule["resources"]["overrides"].keys()
    (container,) = pod["containers"]
    settings = effective(container["args"], environment_of(container), tmp_path)
    assert f", {settings['max_queue_seconds']:.0f}))" in rule["metricsQuery"]


def test_keda_scales_as_the_autoscaler_does(
    resources: dict[str, Any], tmp_path: Path, pod: Any
) -> None:
    """On the same waits, within the same bounds; no answer is a fault, not a wait of 0."""
    (scaled,) = documents(FOLDER / "keda/scaledobject.yaml")
    spec, autoscaler = scaled["spec"], resources["HorizontalPodAutoscaler"]["spec"]
    assert spec["scaleTargetRef"]["name"] == autoscaler["scaleTargetRef"]["name"]
    assert spec["minReplicaCount"] == autoscaler["minReplicas"] >= 1
    assert spec["maxReplicaCount"] == autoscaler["maxReplicas"]
    behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert behavior == autoscaler["behavior"]
    waits, cpu = spec["triggers"]
    pods, theirs = autoscaler["metrics"]
    trigger = waits["metadata"]
    assert pods["pods"]["metric"]["name"] in trigger["query"]
    target = pods["pods"]["target"]
    assert waits["metricType"] == target["type"]
    assert f"{float(trigger['threshold']) * 1000:.0f}m" == target["averageValue"]
    (container,) = pod["containers"]
    settings = effective(container["args"], environment_of(container), tmp_path)
    assert trigger["query"].endswith(f", {settings['max_queue_seconds']:.0f})))")
    assert trigger["ignoreNullValues"] == "false"
    assert spec["fallback"]["behavior"] == "currentReplicasIfHigher"
    assert int(cpu["metadata"]["value"]) == theirs["resource"]["target"]["averageUtilization"]
    (removed,) = documents(FOLDER / "keda/autoscaler.yaml")
    assert removed["$patch"] == "delete"
    assert removed["kind"] == "HorizontalPodAutoscaler"
    assert removed["metadata"]["name"] == resources["HorizontalPodAutoscaler"]["metadata"]["name"]
