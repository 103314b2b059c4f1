"""One fp32 linear layer, as the exporter writes it, with random constants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from bertd_export.graph.linear_functions import write_linear_functions
from bertd_export.graph.operators import OPSET
from helpers.int8_layers import session
from onnx import TensorProto, helper, numpy_helper

__all__ = ["FOLLOWS", "Layer", "called", "feeds", "plain", "session"]

FOLLOWS = ("", "Gelu", "GeluTanh", "Norm")


@dataclass(frozen=True)
class Layer:
    """What the nodes of one linear layer are; see `linear_functions`."""

    follow: str = ""
    inputs: int = 37
    outputs: int = 96

    @property
    def name(self) -> str:
        """The function's."""
        return f"Fp32Linear{self.follow}"


def plain(layer: Layer, seed: int = 0) -> onnx.ModelProto:
    """The layer as stock nodes."""
    random = np.random.default_rng(seed)
    shape = (layer.inputs, layer.outputs)
    constants = {
        "weight": random.normal(size=shape) / np.sqrt(layer.inputs),
        "bias": random.normal(size=layer.outputs),
    }
    inputs = ["x"]
    nodes = [helper.make_node("MatMul", ["x", "weight"], ["product"])]
    if layer.follow == "Norm":
        inputs.append("stream")
        constants["gamma"] = random.uniform(0.5, 2, layer.outputs)
        constants["beta"] = random.normal(size=layer.outputs)
        nodes.append(helper.make_node("Sum", ["stream", "product", "bias"], ["sum"]))
        norm = ["sum", "gamma", "beta"]
        nodes.append(helper.make_node("LayerNormalization", norm, ["y"], axis=-1, epsilon=1e-6))
    elif layer.follow:
        form = "tanh" if layer.follow == "GeluTanh" else "none"
        nodes.append(helper.make_node("Add", ["product", "bias"], ["biased"]))
        nodes.append(helper.make_node("Gelu", ["biased"], ["y"], approximate=form))
    else:
        nodes.append(helper.make_node("Add", ["product", "bias"], ["y"]))
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "layer",
        [value(name, TensorProto.FLOAT, ["rows", f"{name}_width"]) for name in inputs],
        [value("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(one.astype(np.float32), name) for name, one in constants.items()],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("bertd", 1)]
    return helper.make_model(graph, opset_imports=opsets)


def called(layer: Layer, seed: int = 0) -> onnx.ModelProto:
    """The layer as a call of its function."""
    model = plain(layer, seed)
    write_linear_functions(model)
    assert [function.name for function in model.functions] == [layer.name]
    assert [node.op_type for node in model.graph.node] == [layer.name]
    return model


def feeds(layer: Layer, rows: int, seed: int) -> dict[str, Any]:
    """Random rows."""
    random = np.random.default_rng(seed)
    found = {"x": random.normal(size=(rows, layer.inputs)).astype(np.float32)}
    if layer.follow == "Norm":
        found["stream"] = random.normal(size=(rows, layer.outputs)).astype(np.float32)
    return found
