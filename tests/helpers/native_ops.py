"""Operators of bertd-native alone, each in a graph of one node, and what they should give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from bertd.bundle.arrays import Float32Array, Int64Array
from onnx import helper, numpy_helper

_TYPES = {"float32": onnx.TensorProto.FLOAT, "int64": onnx.TensorProto.INT64}


def session(  # noqa: PLR0913 - what one session is of
    name: str,
    inputs: Mapping[str, Any],
    isa: str,
    threads: int = 1,
    *,
    constants: Mapping[str, Any] | None = None,
    attention: str = "fp32",
    **attributes: Any,
) -> Any:
    """A session that runs one operator.

    Args:
        name: of the operator.
        inputs: arrays by their names, for their types and ranks.
        isa: the instruction set.
        threads: of a run.
        constants: further inputs, behind the others, which the graph holds.
        attention: precision of attention's products.
        attributes: of the node.
    """
    import bertd_native  # noqa: PLC0415 - it may be missing: the tests are then skipped

    value = helper.make_tensor_value_info
    held = constants or {}
    node = helper.make_node(name, [*inputs, *held], ["out"], domain="bertd", **attributes)
    graph = helper.make_graph(
        [node],
        "one",
        [
            value(key, _TYPES[array.dtype.name], [None] * array.ndim)
            for key, array in inputs.items()
        ],
        [value("out", onnx.TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, key) for key, array in held.items()],
    )
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid("bertd", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    options.add_session_config_entry(bertd_native.ISA_ENTRY, isa)
    options.add_session_config_entry(bertd_native.ATTENTION_ENTRY, attention)
    options.register_custom_ops_library(str(bertd_native.LIBRARY))
    return ort.InferenceSession(model.SerializeToString(), options)


def run(one: Any, inputs: Mapping[str, Any]) -> Float32Array:
    (out,) = one.run(None, dict(inputs))
    result: Float32Array = out
    return result


def bounds(lengths: Sequence[int]) -> Int64Array:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def attention(
    rows: tuple[Float32Array, Float32Array, Float32Array],
    heads: int,
    scale: float,
    window: int | None = None,
    distances: Float32Array | None = None,
) -> Float32Array:
    """Of one sequence, in float64.

    Every query sees the keys at most ``window`` away, and ``distances[head, query - key]``, counted
    from 1 - longest on, is added to its scores.
    """
    q, k, v = rows
    size = q.shape[1] // heads
    out = np.empty(q.shape)
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        scores = scale * (q[:, part].astype(float) @ k[:, part].astype(float).T)
        away = np.subtract(*np.indices(scores.shape))
        if window is not None:
            scores[abs(away) > window] = -np.inf
        if distances is not None:
            scores += distances[head, away + distances.shape[1] // 2]
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        out[:, part] = weights / weights.sum(axis=1, keepdims=True) @ v[:, part].astype(float)
    return out.astype(np.float32)
