"""One int8 linear layer, as the exporter writes it, with random constants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import bertd_native as native
import numpy as np
import onnx
import onnxruntime as ort
from bertd_export.graph.operators import FUSED_DOMAIN, OPSET
from bertd_export.quantization.int8_functions import INTEGER_PRODUCT, write_functions
from onnx import TensorProto, helper, numpy_helper

WEIGHT_LEVELS = 64


@dataclass(frozen=True)
class Layer:
    """What the nodes of one linear layer are; see `int8_functions`."""

    given: str = ""
    follow: str = ""
    biased: bool = True
    shifted: bool = True
    smooth: bool = False
    levels: bool = False
    inputs: int = 36
    outputs: int = 40
    most: int = WEIGHT_LEVELS  # of a weight

    @property
    def name(self) -> str:
        """The function's."""
        shifted = "" if self.shifted else "Unshifted"
        return (
            f"Int8{self.given}{'Linear' if self.biased else 'Product'}{shifted}{self.follow}"
            f"{'Smooth' * self.smooth}{'Quantize' * self.levels}"
        )


class Plain:
    """The layer's nodes as the exporter writes them, with random constants."""

    def __init__(self, layer: Layer, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.layer = layer
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []

    def constant(self, name: str, value: Any, dtype: type) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def uniform(self, name: str, low: float, high: float, width: int) -> str:
        return self.constant(name, self.random.uniform(low, high, width), np.float32)

    def node(self, op: str, inputs: list[str], output: str, domain: str = "", **more: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], domain=domain, **more))
        return output

    def quantize(self, source: str, prefix: str, scale: float, zero: int) -> str:
        self.constant(f"{prefix}_scale", scale, np.float32)
        self.constant(f"{prefix}_zero", zero, np.uint8)
        return self.node(
            "QuantizeLinear", [source, f"{prefix}_scale", f"{prefix}_zero"], f"{prefix}_rows"
        )

    def given(self, name: str, kind: int, width: int) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, kind, ["rows", width]))
        return name

    def result(self, name: str, kind: int) -> None:
        self.outputs.append(helper.make_tensor_value_info(name, kind, None))

    def rows(self) -> tuple[str, str | None]:
        """The rows as uint8, and the scale of each where it has one of its own."""
        given, inputs = self.layer.given, self.layer.inputs
        if not given:
            rows = self.given("x", TensorProto.UINT8, inputs)
            self.constant("x_scale", 0.02, np.float32)
            self.constant("x_zero", 117, np.uint8)
            return rows, None
        x = self.given("x", TensorProto.FLOAT, inputs)
        if given == "Static":
            return self.quantize(x, "x", 0.02, 117), None
        seen = self.node("Abs", [x], "abs") if given == "Row" else x
        axes = self.constant("axes", [-1], np.int64)
        peak = self.node("ReduceMax", [seen, axes], "peak", keepdims=1)
        scale = self.node("Max", [peak, self.constant("floor", 0.5, np.float32)], "row_scale")
        inverse = self.node("Reciprocal", [scale], "inverse")
        unit = self.node("Mul", [x, inverse], "unit")
        return self.quantize(
            unit, "x", *((1 / 127, 128) if given == "Row" else (1 / 239, 16))
        ), scale

    def product(self) -> str:
        rows, row_scale = self.rows()
        shape = (self.layer.inputs, self.layer.outputs)
        levels = self.random.integers(-self.layer.most, self.layer.most + 1, shape)
        operands = [rows, self.constant("weight", levels, np.int8), "x_scale"]
        operands += [self.uniform("weight_scale", 0.001, 0.004, shape[1]), "x_zero"]
        bias = [self.uniform("bias", -1, 1, shape[1])] if self.layer.biased else []
        if row_scale is None:
            operands += ["", *bias] if bias else []
            return self.node(INTEGER_PRODUCT, operands, "product", FUSED_DOMAIN)
        last = self.node(INTEGER_PRODUCT, operands, "integer", FUSED_DOMAIN)
        last = self.node("Mul", [last, row_scale], "scaled")
        return self.node("Add", [last, *bias], "biased") if bias else last

    def model(self) -> onnx.ModelProto:
        layer, width = self.layer, self.layer.outputs
        last = self.product()
        if layer.follow.startswith("Gelu"):
            form = "tanh" if layer.follow == "GeluTanh" else "none"
            gelu = self.node("Gelu", [last], "gelu", approximate=form)
            self.result(self.quantize(gelu, "y", 0.17 / 8, 8), TensorProto.UINT8)
        elif layer.follow:
            stream = self.given("stream", TensorProto.FLOAT, width)
            total = self.node("Sum", [stream, last], "sum")
            beta = [self.uniform("beta", -1, 1, width)] if layer.shifted else []
            operands = [total, self.uniform("gamma", 0.5, 2, width), *beta]
            normed = self.node("LayerNormalization", operands, "normed", axis=-1, epsilon=1e-6)
            self.result(normed if layer.follow == "Norm" else total, TensorProto.FLOAT)
            if layer.levels:
                source = normed
                if layer.smooth:
                    inverse = self.uniform("smooth", 0.5, 2, width)
                    source = self.node("Mul", [normed, inverse], "smoothed")
                self.result(self.quantize(source, "y", 0.03, 120), TensorProto.UINT8)
        else:
            self.result(last, TensorProto.FLOAT)
        graph = helper.make_graph(self.nodes, "layer", self.inputs, self.outputs, self.constants)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(FUSED_DOMAIN, 1)]
        return helper.make_model(graph, opset_imports=[*opsets, helper.make_opsetid("bertd", 1)])


def called(layer: Layer, seed: int = 0) -> onnx.ModelProto:
    model = Plain(layer, seed).model()
    write_functions(model)
    assert [function.name for function in model.functions] == [layer.name]
    assert [node.op_type for node in model.graph.node] == [layer.name]
    return model


def session(model: onnx.ModelProto, isa: str | None = None, threads: int = 1) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    if isa is not None:
        options.add_session_config_entry(native.ISA_ENTRY, isa)
        options.register_custom_ops_library(str(native.LIBRARY))
    return ort.InferenceSession(model.SerializeToString(), options)


def feeds(layer: Layer, rows: int, seed: int) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    x: Any = random.integers(0, 256, (rows, layer.inputs)).astype(np.uint8)
    if layer.given:
        x = (random.normal(size=(rows, layer.inputs)) * 3).astype(np.float32)
    if layer.follow not in {"Norm", "Stream"}:
        return {"x": x}
    return {"x": x, "stream": random.normal(size=(rows, layer.outputs)).astype(np.float32)}
