"""Kernels of int8 linear layers against the stock operators whose place they take."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from bertd_export.graph.operators import FUSED_DOMAIN, OPSET
from bertd_export.quantization.int8_functions import INTEGER_PRODUCT, write_functions
from onnx import TensorProto, helper, numpy_helper

native = pytest.importorskip("bertd_native", reason="needs the package of server/native")

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


def every_layer() -> Iterator[Layer]:
    """Every name that the library has."""
    for given, biased in product(("", "Static", "Row", "GeluRow"), (True, False)):
        one = partial(Layer, given=given, biased=biased)
        yield one()
        yield one(follow="Gelu")
        yield one(follow="GeluTanh")
        for shifted in (True, False):
            yield one(follow="Norm", shifted=shifted)
            for follow, smooth in product(("Norm", "Stream"), (True, False)):
                yield one(follow=follow, shifted=shifted, smooth=smooth, levels=True)


def agree(expected: list[Any], got: list[Any]) -> None:
    for one, other in zip(expected, got, strict=True):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        if one.dtype == np.uint8:  # a number between two levels may go to either
            assert np.abs(one.astype(int) - other.astype(int)).max() <= 1
            assert (one != other).mean() < 0.03
        else:
            assert np.abs(one - other).max() < 2e-3 * max(1, np.abs(one).max())
            assert np.median(np.abs(one - other)) < 1e-5


@pytest.mark.parametrize("isa", native.available())
def test_each_function_is_computed_as_by_stock_operators(isa: str) -> None:
    layers = list(every_layer())
    assert {layer.name for layer in layers} == {
        name for name in native.operators(isa) if name.startswith("Int8")
    }
    for number, layer in enumerate(layers):
        model, feed = called(layer, number), feeds(layer, 11, number)
        agree(session(model).run(None, feed), session(model, isa).run(None, feed))


@pytest.mark.parametrize("isa", native.available())
def test_odd_shapes(isa: str) -> None:
    random = np.random.default_rng(3)
    layers = list(every_layer())
    for number in range(30):
        chosen = layers[random.integers(len(layers))]
        sizes = {"inputs": int(random.integers(1, 150)), "outputs": int(random.integers(2, 150))}
        layer = Layer(**{**vars(chosen), **sizes})
        model, feed = called(layer, number), feeds(layer, int(random.integers(1, 70)), number)
        expected = session(model).run(None, feed)
        for threads in (1, 2):
            agree(expected, session(model, isa, threads).run(None, feed))


@pytest.mark.parametrize("isa", native.available())
@pytest.mark.parametrize(
    "layer",
    [
        Layer(follow="Norm", smooth=True, levels=True, inputs=200, outputs=500),
        Layer(given="Row", follow="Stream", levels=True, inputs=202, outputs=512),
        Layer(given="Static", follow="Gelu", inputs=128, outputs=1030),
        Layer(given="GeluRow", inputs=333, outputs=999),
    ],
    ids=lambda layer: layer.name,
)
def test_a_rows_bits_depend_on_the_row_alone(isa: str, layer: Layer) -> None:
    """In any batch, on one and on two threads, whether rows or columns are split among them."""
    model = called(layer)
    whole = feeds(layer, 131, 1)
    runs = [session(model, isa, threads) for threads in (1, 2)]
    expected = runs[0].run(None, whole)
    for first, end in ((0, 131), (0, 1), (5, 6), (1, 9), (3, 40), (128, 131), (17, 114)):
        part = {name: values[first:end] for name, values in whole.items()}
        for run in runs:
            for one, other in zip(expected, run.run(None, part), strict=True):
                assert np.array_equal(one[first:end], other)


@pytest.mark.parametrize("isa", native.available())
@pytest.mark.parametrize("most", [20, 32, 40, WEIGHT_LEVELS])
def test_sums_are_exact_whether_or_not_pairs_of_groups_fit_16_bits(isa: str, most: int) -> None:
    """All of them, all just so, most of them, few: as whole numbers say, with the largest rows."""
    layer = Layer(biased=False, inputs=99, outputs=70, most=most)
    model, feed = called(layer), feeds(layer, 9, 0)
    feed["x"][4:] = 255
    constants = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    sums = (feed["x"].astype(int) - 117) @ constants["weight"].astype(int)
    scales = constants["x_scale"] * constants["weight_scale"]
    [got] = session(model, isa).run(None, feed)
    assert np.array_equal(got, sums.astype(np.float32) * scales)


@pytest.mark.parametrize("isa", native.available())
def test_what_is_beyond_all_levels_saturates(isa: str) -> None:
    layer = Layer(given="Static", follow="Gelu")
    model, feed = called(layer), feeds(layer, 5, 0)
    feed["x"] *= np.float32(1e12)
    agree(session(model).run(None, feed), session(model, isa).run(None, feed))


def test_no_rows() -> None:
    layer = Layer(follow="Norm", levels=True)
    normed, levels = session(called(layer), "auto").run(None, feeds(layer, 0, 0))
    assert normed.shape == levels.shape == (0, layer.outputs)


def test_weights_of_eight_bits_are_refused() -> None:
    model = called(Layer())
    [weight] = [t for t in model.graph.initializer if t.name == "weight"]
    levels = numpy_helper.to_array(weight).copy()
    levels[0, 0] = 65
    weight.CopyFrom(numpy_helper.from_array(levels, "weight"))
    with pytest.raises(Exception, match="weight must be within -64 and 64"):
        session(model, "auto")


def test_every_function_fits_by_its_inputs() -> None:
    model = called(Layer(follow="Norm"))
    [function] = model.functions
    inputs = tuple(function.input)
    assert native.fitting({function.name: inputs}) == (function.name,)
    assert not native.fitting({function.name: inputs[1:]})
