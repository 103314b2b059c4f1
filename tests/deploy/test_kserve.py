"""deploy/kserve, held to the fields that KServe documents.

https://kserve.github.io/website/docs/reference/crd-api
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
from helpers.deployed import DEPLOY, documents, effective, environment_of, port, validate
from pydantic import BaseModel, Field, ValidationError

Protocol = Literal["v1", "v2", "grpc-v1", "grpc-v2"]


class Strict(BaseModel, extra="forbid"):
    """An object whose unknown fields are errors."""


class Metadata(Strict):
    name: str = Field(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$")
    annotations: dict[str, str] = {}


class SupportedFormat(Strict):
    name: str
    version: str
    autoSelect: bool  # noqa: N815 - KServe's name
    priority: int = Field(ge=1)


class RuntimeSpec(Strict):
    """ServingRuntimeSpec, with ServingRuntimePodSpec inlined; Kubernetes' own types are checked
    by its schemas."""

    annotations: dict[str, str]
    supportedModelFormats: list[SupportedFormat]  # noqa: N815
    protocolVersions: list[Protocol]  # noqa: N815
    multiModel: bool  # noqa: N815
    containers: list[dict[str, Any]] = Field(min_length=1)
    volumes: list[dict[str, Any]]


class Runtime(Strict):
    apiVersion: Literal["serving.kserve.io/v1alpha1"]  # noqa: N815
    kind: Literal["ClusterServingRuntime"]
    metadata: Metadata
    spec: RuntimeSpec


class ModelFormat(Strict):
    name: str
    version: str


class Model(Strict):
    modelFormat: ModelFormat  # noqa: N815
    runtime: str
    protocolVersion: Protocol  # noqa: N815
    storageUri: str = Field(pattern=r"^[a-z0-9]+://")  # noqa: N815


class Predictor(BaseModel, extra="allow"):
    """PredictorSpec; what more it has is of a PodSpec, and checked as one."""

    minReplicas: int = Field(ge=0)  # noqa: N815
    maxReplicas: int = Field(ge=1)  # noqa: N815
    scaleMetric: Literal["cpu", "memory", "concurrency", "rps"]  # noqa: N815
    scaleTarget: int  # noqa: N815
    model: Model


class ServiceSpec(Strict):
    predictor: Predictor


class Service(Strict):
    apiVersion: Literal["serving.kserve.io/v1beta1"]  # noqa: N815
    kind: Literal["InferenceService"]
    metadata: Metadata
    spec: ServiceSpec


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    return Runtime.model_validate(documents(DEPLOY / "kserve/runtime.yaml")[0])


@pytest.fixture(scope="module")
def service() -> Service:
    return Service.model_validate(documents(DEPLOY / "kserve/inference-service.yaml")[0])


def test_unknown_fields_are_refused() -> None:
    (document,) = documents(DEPLOY / "kserve/runtime.yaml")
    document["spec"]["multimodel"] = False
    with pytest.raises(ValidationError, match="multimodel"):
        Runtime.model_validate(document)


def test_its_pods_keep_to_kubernetes_schemas(runtime: Runtime, service: Service) -> None:
    """The runtime's containers and volumes with what the service adds."""
    spec = {
        "containers": runtime.spec.containers,
        "volumes": runtime.spec.volumes,
        **(service.spec.predictor.model_extra or {}),
    }
    validate({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bertd"}, "spec": spec})


def test_the_runtime_speaks_grpc_v2_on_a_port_named_h2c(runtime: Runtime, tmp_path: Path) -> None:
    """One model, from where KServe puts it."""
    (container,) = runtime.spec.containers
    assert container["name"] == "kserve-container"
    assert runtime.spec.protocolVersions == ["grpc-v2"]
    assert not runtime.spec.multiModel
    (one,) = container["ports"]
    assert (one["name"], one["containerPort"]) == ("h2c", port("address"))
    assert container["readinessProbe"]["grpc"] == {"port": port("address")}
    assert runtime.spec.annotations["prometheus.kserve.io/port"] == str(port("http_address"))
    assert container["args"][0] == "/mnt/models"
    settings = effective(container["args"], environment_of(container), tmp_path)
    (mount,) = container["volumeMounts"]
    assert mount["mountPath"] == settings["cache_folder"]


def test_the_service_fits_the_runtime(runtime: Runtime, service: Service, tmp_path: Path) -> None:
    predictor = service.spec.predictor
    (known,) = runtime.spec.supportedModelFormats
    wanted = predictor.model
    assert (wanted.modelFormat.name, wanted.modelFormat.version) == (known.name, known.version)
    assert wanted.runtime == runtime.metadata.name
    assert wanted.protocolVersion in runtime.spec.protocolVersions
    (container,) = runtime.spec.containers
    settings = effective(container["args"], environment_of(container), tmp_path)
    drain = settings["drain_delay_seconds"] + settings["drain_seconds"]
    grace = (predictor.model_extra or {})["terminationGracePeriodSeconds"]
    assert grace > drain
