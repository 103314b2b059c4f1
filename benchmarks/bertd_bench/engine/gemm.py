"""The rate at which this machine multiplies matrices of a model's shapes, by several libraries.

The linear layers of a packed batch are one product each of `[tokens, in]` and `[in, out]`; their
time at this rate is the least that an engine can take, attention and the rest left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from bertd_export.graph.operators import OPSET
from bertd_server.engine import sessions
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OWN = "ONNX Runtime"


def layer_shapes(hidden: int, intermediate: int) -> list[tuple[int, int]]:
    """`(in, out)` of the products of one layer: merged QKV, output, FFN up, FFN down."""
    return [(hidden, 3 * hidden), (hidden, hidden), (hidden, intermediate), (intermediate, hidden)]


def layer_flops(tokens: int, hidden: int, intermediate: int) -> float:
    """Floating-point operations of the linear layers of one layer."""
    return 2.0 * tokens * sum(a * b for a, b in layer_shapes(hidden, intermediate))


def attention_flops(lengths: Sequence[int], hidden: int) -> float:
    """Floating-point operations of scores and weighted values of one layer."""
    return 4.0 * hidden * sum(length * length for length in lengths)


def contestants(
    tokens: int, hidden: int, intermediate: int, threads: int
) -> dict[str, Callable[[], object]]:
    """Calls that do the products of one layer once, into buffers made beforehand."""
    rng = np.random.default_rng(0)
    shapes = layer_shapes(hidden, intermediate)
    inputs = [rng.standard_normal((tokens, a)).astype(np.float32) for a, _ in shapes]
    weights = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    outputs = [np.empty((tokens, b), np.float32) for _, b in shapes]
    tensors = [
        tuple(map(torch.from_numpy, three)) for three in zip(inputs, weights, outputs, strict=True)
    ]

    def numpy_layer() -> None:
        for x, w, out in zip(inputs, weights, outputs, strict=True):
            np.matmul(x, w, out=out)

    def torch_layer() -> None:
        with torch.inference_mode():
            for x, w, out in tensors:
                torch.matmul(x, w, out=out)

    session, feeds = _session(inputs, weights, threads)
    return {
        "numpy": numpy_layer,
        "torch": torch_layer,
        OWN: lambda: session.run(None, feeds),
    }


def _session(
    inputs: Sequence[NDArray[np.float32]], weights: Sequence[NDArray[np.float32]], threads: int
) -> tuple[Any, dict[str, NDArray[np.float32]]]:
    """ONNX Runtime on a graph of the products alone, weights prepacked, and its inputs."""
    value, kind = helper.make_tensor_value_info, TensorProto.FLOAT
    numbers = range(len(weights))
    graph = helper.make_graph(
        [helper.make_node("MatMul", [f"x{n}", f"w{n}"], [f"y{n}"]) for n in numbers],
        "products",
        [value(f"x{n}", kind, ["tokens", weights[n].shape[0]]) for n in numbers],
        [value(f"y{n}", kind, ["tokens", weights[n].shape[1]]) for n in numbers],
        [numpy_helper.from_array(weights[n], f"w{n}") for n in numbers],
    )
    opsets = [helper.make_opsetid("", OPSET)]
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = sessions.configured(threads, sessions.SessionOptions())
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session, {f"x{n}": inputs[n] for n in numbers}
