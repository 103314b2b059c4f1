"""What clients are told of the server and its models: metadata, configuration, statistics."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict

from bertd import bundle
from bertd.oip import grpc_service_pb2 as pb
from bertd.oip import model_config_pb2 as config_pb

from bertd_server.models.model import Model
from bertd_server.rpc.v2.parameters import Parameter
from bertd_server.rpc.v2.surface import TensorSpec, surface_of
from bertd_server.rpc.v2.tensors import BYTES, FP32, INT64
from bertd_server.scheduling.statistics import Histogram

PLATFORM, BACKEND = "bertd_onnx", "bertd"
# Triton's names for what is there.
EXTENSIONS = (
    "binary_tensor_data",
    "model_configuration",
    "parameters",
    "schedule_policy",
    "statistics",
)

_TYPES = {BYTES: config_pb.TYPE_STRING, INT64: config_pb.TYPE_INT64, FP32: config_pb.TYPE_FP32}
_PRIORITIES = 2


def metadata(model: Model) -> pb.ModelMetadataResponse:
    """The tensors of a model."""
    surface = surface_of(model.manifest)
    response = pb.ModelMetadataResponse(
        name=model.name, versions=[model.version], platform=PLATFORM
    )
    for name, slot in surface.inputs.items():
        response.inputs.add(name=name, datatype=slot.datatype, shape=(-1, *slot.dims))
    for name, slot in surface.outputs.items():
        response.outputs.add(name=name, datatype=slot.datatype, shape=(-1, *slot.dims))
    return response


def config(model: Model, *, max_texts: int, caches: bool) -> config_pb.ModelConfig:
    """The configuration of a model.

    Args:
        model: that is described.
        max_texts: inputs that a call may have.
        caches: whether results are kept.
    """
    manifest, surface = model.manifest, surface_of(model.manifest)
    described = config_pb.ModelConfig(
        name=model.name,
        platform=PLATFORM,
        backend=BACKEND,
        max_batch_size=max_texts,
        default_model_filename=bundle.GRAPH_NAME,
    )
    described.version_policy.specific.versions.append(int(model.version))
    for name, slot in surface.inputs.items():
        described.input.add(name=name, data_type=_TYPES[slot.datatype], dims=slot.dims)
    for name, slot in surface.outputs.items():
        described.output.add(name=name, data_type=_TYPES[slot.datatype], dims=slot.dims)
    batching = described.dynamic_batching
    batching.priority_levels = _PRIORITIES
    batching.default_priority_level = 1
    batching.default_queue_policy.allow_timeout_override = True
    described.model_transaction_policy.decoupled = False
    if caches:
        described.response_cache.enable = True
    for name, value in {
        "task": manifest.task,
        "precision": manifest.precision,
        "max_tokens": str(manifest.max_tokens),
        "vocab_size": str(manifest.vocab_size),
        "labels": json.dumps(manifest.labels, ensure_ascii=False),
        "optional_inputs": _slots(surface.more_inputs),
        "optional_outputs": _slots(surface.more_outputs),
        "parameters": _parameters(surface.parameters),
    }.items():
        described.parameters[name].string_value = value
    return described


def statistics(model: Model) -> pb.ModelStatistics:
    """What has happened to a model, over all protocols."""
    counted, gauges = model.statistics, model.gauges()
    described = pb.ModelStatistics(
        name=model.name,
        version=model.version,
        last_inference=round(1000 * counted.last_answer),
        inference_count=counted.answered,
        execution_count=counted.compute.count,
    )
    stages = described.inference_stats
    _take(stages.success, counted.total)
    _take(stages.queue, counted.queue)
    _take(stages.compute_input, counted.tokenize)
    _take(stages.compute_infer, counted.compute)
    stages.fail.count = counted.refused.total() + counted.failed + counted.expired
    stages.cache_hit.count = gauges.cache_hits
    stages.cache_miss.count = gauges.cache_misses
    return described


def _take(duration: pb.StatisticDuration, counted: Histogram) -> None:
    duration.count, duration.ns = counted.count, round(1e9 * counted.total)


def _slots(slots: Mapping[str, TensorSpec]) -> str:
    return json.dumps(
        {
            name: {"datatype": slot.datatype, "shape": [-1, *slot.dims], "meaning": slot.meaning}
            for name, slot in slots.items()
        }
    )


def _parameters(parameters: Mapping[str, Parameter]) -> str:
    return json.dumps(
        {
            name: asdict(one) | {"kind": one.kind.__name__}
            for name, one in sorted(parameters.items())
        }
    )
