"""The products of a bundle's linear layers, and the rates at which ONNX Runtime does them.

::

    graph ──> shapes, with how many of each ──> [tokens, rows] by [rows, columns], timed by itself

Nothing is assumed of a family: whatever the packed graph multiplies tokens by is counted. Rates are
by shape, tokens and threads, in float32 and int8 (u8 by s8). One run does all the products of a
shape that the model has, each with weights of its own, as a pass through the model would: the
weights come from where they come from there. Of each result one row is kept, so that no time goes
into handing results over.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from bertd import bundle
from bertd_server.system.setting_types import Provider
from onnx import TensorProto, helper, numpy_helper
from pydantic import BaseModel

from bertd_bench.hardware import kernels
from bertd_bench.hardware.kernels import Meter, TimedWork

ProductPrecision = Literal["fp32", "int8"]

_PRODUCTS = {"MatMul", "MatMulInteger", "MatMulIntegerToFloat"}  # Gemm works on a row a text
_IN_PANELS = "Fp32Linear"  # functions, whose weights are [panels, rows, columns of a panel]


class CannotMultiplyError(ValueError):
    """A provider does not multiply numbers of this kind; the message is the reason."""


class LinearShape(BaseModel, frozen=True):
    """Products of one shape: `[tokens, rows]` by `[rows, columns]`.

    Attributes:
        rows: of the weights; what a token brings.
        columns: of the weights; what a token gets.
        count: how many of them the model has.
    """

    rows: int
    columns: int
    count: int

    @property
    def name(self) -> str:
        """Such as `384 x 1536`."""
        return f"{self.rows} x {self.columns}"

    def operations(self, tokens: int) -> float:
        """Multiplications and additions of all of them."""
        return 2.0 * tokens * self.rows * self.columns * self.count

    def weight_bytes(self, width: int) -> int:
        """Of all of them, with so many bytes a number."""
        return self.rows * self.columns * self.count * width


def shapes_of(folder: Path) -> list[LinearShape]:
    """The shapes of a bundle's products with constant weights, in the order of the graph.

    Raises:
        bundle.BundleError: it has none, so that there is no rate to measure.
    """
    graph = onnx.load(folder / bundle.GRAPH_NAME, load_external_data=False).graph
    dims = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    weights = [
        dims.get(node.input[1], ())
        for node in graph.node
        if node.op_type in _PRODUCTS or node.op_type.startswith(_IN_PANELS)
    ]
    found = Counter(
        shape if len(shape) == 2 else (shape[1], shape[0] * shape[2]) for shape in weights if shape
    )
    if not found:
        raise bundle.BundleError(
            f"the graph in {folder} has no product with constant weights: "
            "the card is made of encoders' linear layers; choose another bundle"
        )
    return [LinearShape(rows=a, columns=b, count=count) for (a, b), count in found.items()]


class Product(TimedWork, frozen=True):
    """One shape, number of tokens and threads.

    Attributes:
        kind: of the numbers: fp32, or int8 (uint8 tokens by int8 weights of 7 bits).
        linear: the shape, and how many products a run has.
    """

    kind: ProductPrecision
    linear: LinearShape
    tokens: int
    threads: int

    @property
    def work(self) -> float:
        """Multiplications and additions."""
        return self.linear.operations(self.tokens)


def measure(
    kind: ProductPrecision, linears: Sequence[LinearShape], tokens: Sequence[int], meter: Meter
) -> list[Product]:
    """Time every shape with every number of tokens and threads, in turns.

    Raises:
        CannotServeError: the provider is not there, or does not start.
        CannotMultiplyError: it does not multiply these numbers.
    """
    cells = []
    calls: list[tuple[str, int, Callable[[], object]]] = []
    for count in meter.counts:
        for linear in linears:
            session = open_session(kind, linear, count, meter.provider)
            for number in tokens:
                inputs = {"x": _tokens(kind, number, linear.rows)}
                name = f"{kind} {linear.name}, {number} tokens, {count} threads"
                calls.append((name, count, kernels.bound(session, inputs, meter.provider)))
                cells.append((linear, number, count))
    return [
        Product(kind=kind, linear=linear, tokens=number, threads=count, measured=each)
        for (linear, number, count), each in zip(cells, meter.in_turns(calls), strict=True)
    ]


def open_session(
    kind: ProductPrecision, linear: LinearShape, threads: int, provider: Provider
) -> Any:
    """ONNX Runtime on a graph of the products of one shape.

    Raises:
        CannotServeError: the provider is not there, or does not start.
        CannotMultiplyError: it does not multiply these numbers.
    """
    if kind == "int8" and provider != "cpu":
        raise CannotMultiplyError(
            f"ONNX Runtime multiplies uint8 by int8 on the CPU alone, not with {provider}"
        )
    return kernels.session_of(_graph(kind, linear), threads, provider)


def _tokens(kind: ProductPrecision, tokens: int, rows: int) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(0)
    if kind == "int8":
        return rng.integers(0, 256, (tokens, rows), np.uint8)
    return rng.standard_normal((tokens, rows)).astype(np.float32)


def _graph(kind: ProductPrecision, linear: LinearShape) -> onnx.GraphProto:
    rng = np.random.default_rng(1)
    numbers = range(linear.count)
    weights: list[Any]
    shape = (linear.rows, linear.columns)
    if kind == "fp32":
        operator, given, made = "MatMul", TensorProto.FLOAT, TensorProto.FLOAT
        weights = [rng.standard_normal(shape).astype(np.float32) for _ in numbers]
    else:
        operator, given, made = "MatMulInteger", TensorProto.UINT8, TensorProto.INT32
        weights = [rng.integers(-63, 64, shape, np.int8) for _ in numbers]
    nodes = []
    for n in numbers:
        nodes += [
            helper.make_node(operator, ["x", f"w{n}"], [f"y{n}"]),
            helper.make_node("Gather", [f"y{n}", "first"], [f"row{n}"], axis=0),
        ]
    return helper.make_graph(
        nodes,
        "products",
        [helper.make_tensor_value_info("x", given, ["tokens", linear.rows])],
        [helper.make_tensor_value_info(f"row{n}", made, [1, linear.columns]) for n in numbers],
        [
            numpy_helper.from_array(np.zeros(1, np.int64), "first"),
            *(numpy_helper.from_array(weights[n], f"w{n}") for n in numbers),
        ],
    )
