"""How fast a device's own memory is read and copied, by ONNX Runtime's kernels on it.

Reading is the largest of float32, copying their negation; both stay on the device.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from bertd_export.graph.operators import OPSET
from bertd_server.engine import providers, sessions
from bertd_server.system.setting_types import Provider
from onnx import TensorProto, helper

from bertd_bench.hardware.bandwidth import Bandwidth
from bertd_bench.hardware.products import device_of
from bertd_bench.harness import rounds
from bertd_bench.harness.noise import Watch
from bertd_bench.harness.system import Calls

_WAYS = {"read": ("ReduceMax", 1), "copy": ("Neg", 2)}  # operator, how often a byte moves


def measure(
    total: int, threads: int, provider: Provider, schedule: rounds.Schedule, watch: Watch | None
) -> list[Bandwidth]:
    """Read and copy so many bytes, in turns.

    Raises:
        CannotServeError: the provider is not there, or does not start.
    """
    systems = [
        Calls(way, threads, [_call(operator, total, threads, provider)])
        for way, (operator, _) in _WAYS.items()
    ]
    seen = rounds.run(
        systems,
        0,
        schedule,
        random.Random(0),  # noqa: S311 - the order of turns is no secret
        watch=watch,
    )
    return [
        Bandwidth(way=way, threads=threads, bytes_moved=total * times, measured=each)
        for (way, (_, times)), each in zip(_WAYS.items(), seen, strict=True)
    ]


def _call(operator: str, total: int, threads: int, provider: Provider) -> Callable[[], object]:
    attributes: dict[str, Any] = {"keepdims": 0} if operator == "ReduceMax" else {}
    value, kind = helper.make_tensor_value_info, TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node(operator, ["x"], ["y"], **attributes)],
        operator,
        [value("x", kind, ["n"])],
        [value("y", kind, [] if attributes else ["n"])],
    )
    model: onnx.ModelProto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10
    )
    session: Any = ort.InferenceSession(
        model.SerializeToString(),
        sessions.configured(threads, sessions.SessionOptions(provider)),
        providers=providers.chain(provider),
    )
    providers.check_started(provider, session.get_providers())
    device = device_of(provider)
    binding = session.io_binding()
    values = np.ones(total // 4, np.float32)
    binding.bind_ortvalue_input("x", ort.OrtValue.ortvalue_from_numpy(values, device, 0))
    kept = ort.OrtValue.ortvalue_from_shape_and_type(
        [] if attributes else [total // 4], np.float32, device, 0
    )
    binding.bind_ortvalue_output("y", kept)

    def run() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return run
