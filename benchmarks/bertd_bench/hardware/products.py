"""Rates of ONNX Runtime's products, float32 and int8 (u8 by s8), by shape, tokens and threads.

One run does all the products of a shape that the model has, each with weights of its own, as a
pass through the model would: the weights come from where they come from there. Of each result one
row is kept, so that no time goes into handing results over.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime as ort
from bertd_export.graph.operators import OPSET
from bertd_server.engine import providers, sessions
from bertd_server.system.values import Provider
from onnx import TensorProto, helper, numpy_helper
from pydantic import BaseModel

from bertd_bench.hardware.bandwidth import rate_interval
from bertd_bench.hardware.shapes import Linear
from bertd_bench.harness import rounds
from bertd_bench.harness.intervals import Interval
from bertd_bench.harness.noise import Watch
from bertd_bench.harness.rounds import SystemTimes
from bertd_bench.harness.system import Calls

Kind = Literal["fp32", "int8"]


class CannotMultiplyError(ValueError):
    """A provider does not multiply numbers of this kind; the message is the reason."""


_OPERATOR: dict[Kind, str] = {"fp32": "MatMul", "int8": "MatMulInteger"}


class Product(BaseModel, frozen=True):
    """One shape, number of tokens and threads.

    Attributes:
        kind: of the numbers: fp32, or int8 (uint8 tokens by int8 weights of 7 bits).
        linear: the shape, and how many products a run has.
        measured: times of runs.
    """

    kind: Kind
    linear: Linear
    tokens: int
    threads: int
    measured: SystemTimes

    @property
    def rate(self) -> float:
        """1e9 operations a second; a multiplication and an addition are two."""
        return self.linear.operations(self.tokens) / self.measured.median_ms / 1e6

    @property
    def interval(self) -> Interval | None:
        """95 % interval of that."""
        return rate_interval(self.linear.operations(self.tokens), self.measured)


def measure(  # noqa: PLR0913 - a grid has its edges
    kind: Kind,
    linears: Sequence[Linear],
    tokens: Sequence[int],
    threads: Sequence[int],
    *,
    provider: Provider,
    schedule: rounds.Schedule,
    watch: Watch | None,
) -> list[Product]:
    """Time every shape with every number of tokens and threads, in turns.

    Raises:
        CannotServeError: the provider is not there.
        CannotMultiplyError: it does not multiply these numbers.
    """
    systems, cells = [], []
    for count in threads:
        for linear in linears:
            session = open_session(kind, linear, count, provider)
            for number in tokens:
                call = bound(session, kind, linear, number, provider)
                name = f"{kind} {linear.name}, {number} tokens, {count} threads"
                systems.append(Calls(name, count, [call]))
                cells.append((linear, number, count))
    seen = rounds.run(
        systems,
        0,
        schedule,
        random.Random(0),  # noqa: S311 - the order of turns is no secret
        watch=watch,
    )
    return [
        Product(kind=kind, linear=linear, tokens=number, threads=count, measured=each)
        for (linear, number, count), each in zip(cells, seen, strict=True)
    ]


def open_session(kind: Kind, linear: Linear, threads: int, provider: Provider) -> Any:
    """ONNX Runtime on a graph of the products of one shape.

    Raises:
        CannotServeError: the provider is not there, or does not start.
        CannotMultiplyError: it does not multiply these numbers.
    """
    if kind == "int8" and provider != "cpu":
        raise CannotMultiplyError(
            f"ONNX Runtime multiplies uint8 by int8 on the CPU alone, not with {provider}"
        )
    options = sessions.configured(threads, sessions.SessionOptions(provider))
    chain = providers.chain(provider)
    session = ort.InferenceSession(_model(kind, linear), options, providers=chain)
    providers.check_started(provider, session.get_providers())
    return session


def bound(
    session: Any, kind: Kind, linear: Linear, tokens: int, provider: Provider
) -> Callable[[], object]:
    """A run with inputs where they are computed, and outputs left there."""
    device = device_of(provider)
    rng = np.random.default_rng(0)
    values = rng.standard_normal((tokens, linear.rows)).astype(np.float32)
    if kind == "int8":
        values = rng.integers(0, 256, (tokens, linear.rows), np.uint8)
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", ort.OrtValue.ortvalue_from_numpy(values, device, 0))
    for output in session.get_outputs():
        binding.bind_output(output.name, device)

    def run() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return run


def device_of(provider: Provider) -> str:
    """Where a provider's tensors lie, in ONNX Runtime's name."""
    return "cuda" if provider in {"cuda", "tensorrt"} else "cpu"


def _model(kind: Kind, linear: Linear) -> bytes:
    rng = np.random.default_rng(1)
    numbers = range(linear.count)
    weights: list[Any]
    shape = (linear.rows, linear.columns)
    if kind == "fp32":
        given, made = TensorProto.FLOAT, TensorProto.FLOAT
        weights = [rng.standard_normal(shape).astype(np.float32) for _ in numbers]
    else:
        given, made = TensorProto.UINT8, TensorProto.INT32
        weights = [rng.integers(-63, 64, shape, np.int8) for _ in numbers]
    nodes = []
    for n in numbers:
        nodes += [
            helper.make_node(_OPERATOR[kind], ["x", f"w{n}"], [f"y{n}"]),
            helper.make_node("Gather", [f"y{n}", "first"], [f"row{n}"], axis=0),
        ]
    graph = helper.make_graph(
        nodes,
        "products",
        [helper.make_tensor_value_info("x", given, ["tokens", linear.rows])],
        [helper.make_tensor_value_info(f"row{n}", made, [1, linear.columns]) for n in numbers],
        [
            numpy_helper.from_array(np.zeros(1, np.int64), "first"),
            *(numpy_helper.from_array(weights[n], f"w{n}") for n in numbers),
        ],
    )
    opsets = [helper.make_opsetid("", OPSET)]
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return model.SerializeToString()
