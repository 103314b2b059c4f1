"""What models a server has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from bertd.v1 import models_pb2 as pb

from bertd_client.calling.asking import SingleRequest


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model as the server describes it."""

    name: str
    version: str
    task: str
    architecture: str
    precision: str
    dimensions: int
    max_tokens: int
    pooling: tuple[str, ...]
    normalized: bool
    prompts: Mapping[str, str]
    default_prompt_name: str
    graph_sha256: str
    labels: tuple[str, ...]
    vocab_size: int
    mask_token: str


def _model(model: pb.Model) -> ModelInfo:
    return ModelInfo(
        name=model.name,
        version=model.version,
        task=model.task,
        architecture=model.architecture,
        precision=model.precision,
        dimensions=model.dimensions,
        max_tokens=model.max_tokens,
        pooling=tuple(model.pooling),
        normalized=model.normalized,
        prompts=MappingProxyType(dict(model.prompts)),
        default_prompt_name=model.default_prompt_name,
        graph_sha256=model.graph_sha256,
        labels=tuple(model.labels),
        vocab_size=model.vocab_size,
        mask_token=model.mask_token,
    )


def list_models(*, timeout: float | None = None) -> SingleRequest[list[ModelInfo]]:
    """Describes every model of the server."""

    def read(response: pb.ListModelsResponse) -> list[ModelInfo]:
        return list(map(_model, response.models))

    return SingleRequest(pb.ListModelsRequest(), read, timeout)


def get_model(name: str = "", *, timeout: float | None = None) -> SingleRequest[ModelInfo]:
    """Describes one model; the empty name means the server's default."""

    def read(response: pb.GetModelResponse) -> ModelInfo:
        return _model(response.model)

    return SingleRequest(pb.GetModelRequest(name=name), read, timeout)
