"""Rewrites the packed fp32 graph so that its linear layers compute in int8.

Only stock ONNX Runtime operators are used. A linear layer becomes

* ``static``:   ``QuantizeLinear -> MatMulIntegerToFloat`` (bias included)
* ``smoothed``: ``Mul(1/smooth)``, then the same
* per row:      the row's largest value, ``QuantizeLinear`` of the row divided by it,
  ``MatMulIntegerToFloat``, times that value, plus bias

(:mod:`bertd_export.activations` chooses), with weights of 7 bits and one scale for each output
channel (:mod:`bertd_export.gptq`).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from bertd_export.activations import (
    GELU_ZERO,
    Floats,
    Quantizer,
    Statistics,
    choose,
)
from bertd_export.gptq import Int8s, compensation, round_weight
from bertd_export.linears import Linear, find_linears
from bertd_export.operators import FUSED_DOMAIN
from bertd_export.runtime import session

INTEGER_PRODUCT = "MatMulIntegerToFloat"
Feed = Mapping[str, npt.NDArray[np.int64]]

_GRAM_BYTES = 1 << 30  # Gram matrices held at once; more are collected in further passes


@dataclass(frozen=True)
class RoundedLinear:
    """A linear layer in int8, and what that costs it.

    Attributes:
        linear: where it stands in the graph.
        quantizer: of its input, shared by the linear layers that read the same tensor.
        levels: int8 ``[inputs, outputs]``.
        scales: of the weight, ``[outputs]``.
        error: relative error of its products on calibration rows.
    """

    linear: Linear
    quantizer: Quantizer
    levels: Int8s
    scales: Floats
    error: float


def _tensor(tensors: Mapping[str, onnx.TensorProto], name: str, folder: Path) -> Floats:
    array: Floats = numpy_helper.to_array(tensors[name], base_dir=str(folder))
    return array


def _groups(
    linears: Iterable[Linear], tensors: Mapping[str, onnx.TensorProto]
) -> Iterator[dict[str, list[Linear]]]:
    """Linear layers by the tensor that they read, as many at once as memory allows."""
    groups: dict[str, list[Linear]] = {}
    for linear in linears:
        groups.setdefault(linear.source, []).append(linear)
    part: dict[str, list[Linear]] = {}
    size = 0
    for source, members in groups.items():
        cost = 4 * int(tensors[members[0].weight].dims[0]) ** 2
        if part and size + cost > _GRAM_BYTES:
            yield part
            part, size = {}, 0
        part[source] = members
        size += cost
    if part:
        yield part


def _collect(
    graph: Path, skeleton: onnx.ModelProto, widths: Mapping[str, int], feeds: Iterable[Feed]
) -> dict[str, Statistics]:
    """Run the fp32 graph on the feeds and watch the tensors named in ``widths``."""
    watched = onnx.ModelProto.FromString(skeleton.SerializeToString())
    names = list(widths)
    del watched.graph.output[:]
    for name in names:
        info = helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        watched.graph.output.append(info)
    path = graph.with_name("watched.onnx")  # beside the weights that it refers to
    path.write_bytes(watched.SerializeToString())
    run = session(path)
    path.unlink()
    accepted = {entry.name for entry in run.get_inputs()}
    statistics = {name: Statistics(width) for name, width in widths.items()}
    for feed in feeds:
        values = run.run(names, {k: v for k, v in feed.items() if k in accepted})
        for name, value in zip(names, values, strict=True):
            statistics[name].add(value.reshape(-1, widths[name]))
    return statistics


def round_linears(
    graph: Path, feeds: Sequence[Feed], progress: Callable[[str], None]
) -> list[RoundedLinear]:
    """Calibrate and round every linear layer of the encoder.

    Args:
        graph: the packed fp32 graph, its weights in a file beside it.
        feeds: packed batches of calibration texts, by input of the graph.
        progress: told what happens next.
    """
    skeleton = onnx.load(str(graph), load_external_data=False)
    tensors = {tensor.name: tensor for tensor in skeleton.graph.initializer}
    rounded: list[RoundedLinear] = []
    for part in _groups(find_linears(skeleton.graph), tensors):
        widths = {name: int(tensors[group[0].weight].dims[0]) for name, group in part.items()}
        progress(f"calibrating {len(widths)} inputs of linear layers")
        statistics = _collect(graph, skeleton, widths, feeds)
        progress(f"rounding the weights behind {len(widths)} inputs")
        for source, group in part.items():
            weights = [_tensor(tensors, linear.weight, graph.parent) for linear in group]
            seen = statistics.pop(source)
            quantizer = choose(group[0].producer, seen, weights)
            smooth, sample = quantizer.smooth, seen.sample
            restored = quantizer.restore(sample) / smooth
            order, upper = compensation(seen.gram / np.outer(smooth, smooth))
            for linear, weight in zip(group, weights, strict=True):
                levels, scales = round_weight(weight * smooth[:, None], order, upper)
                exact = sample @ weight
                lost = restored @ (levels * scales) - exact
                error = float(np.linalg.norm(lost)) / max(float(np.linalg.norm(exact)), 1e-12)
                rounded.append(RoundedLinear(linear, quantizer, levels, scales, error))
    return rounded


@dataclass
class _Writer:
    """New nodes and constants of the graph."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, onnx.TensorProto] = field(default_factory=dict)

    def constant(self, name: str, value: npt.ArrayLike, dtype: npt.DTypeLike) -> str:
        self.constants.setdefault(name, numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def node(
        self, op: str, inputs: Sequence[str], output: str, domain: str = "", **attributes: Any
    ) -> str:
        node = helper.make_node(
            op, inputs, [output], domain=domain, name=f"{output}/{op}", **attributes
        )
        self.nodes.append(node)
        return output

    def quantized(self, source: str, quantizer: Quantizer) -> tuple[str, str | None]:
        """Write the input's quantisation; return the uint8 rows and their scales, if any."""
        prefix = f"{source}/int8"
        row_scale = None
        if quantizer.formulation == "smoothed":
            inverse = self.constant(f"{prefix}/inverse_smooth", 1 / quantizer.smooth, np.float32)
            source = self.node("Mul", [source, inverse], f"{prefix}/smoothed")
        elif quantizer.formulation in {"row", "gelu_row"}:
            gelu = quantizer.zero_point == GELU_ZERO
            magnitude = source if gelu else self.node("Abs", [source], f"{prefix}/abs")
            axes = self.constant("int8/last_axis", [-1], np.int64)
            floor = self.constant(
                f"int8/floor_{quantizer.formulation}", quantizer.floor, np.float32
            )
            peak = self.node("ReduceMax", [magnitude, axes], f"{prefix}/peak", keepdims=1)
            row_scale = self.node("Max", [peak, floor], f"{prefix}/row_scale")
            inverse = self.node("Reciprocal", [row_scale], f"{prefix}/inverse")
            source = self.node("Mul", [source, inverse], f"{prefix}/unit")
        scale = self.constant(f"{prefix}/scale", quantizer.scale, np.float32)
        zero = self.constant(f"{prefix}/zero_point", quantizer.zero_point, np.uint8)
        return self.node("QuantizeLinear", [source, scale, zero], f"{prefix}/rows"), row_scale

    def product(self, rounded: RoundedLinear, rows: str, row_scale: str | None) -> None:
        """Write the integer product and its way back to float32."""
        linear = rounded.linear
        source, prefix = f"{linear.source}/int8", f"{linear.product}/int8"
        inputs = [
            rows,
            self.constant(f"{prefix}/weight", rounded.levels, np.int8),
            f"{source}/scale",
            self.constant(f"{prefix}/weight_scale", rounded.scales, np.float32),
            f"{source}/zero_point",
        ]
        if row_scale is None:
            inputs += ["", linear.bias] if linear.bias else []
            self.node(INTEGER_PRODUCT, inputs, linear.output, FUSED_DOMAIN)
            return
        product = self.node(INTEGER_PRODUCT, inputs, f"{prefix}/product", FUSED_DOMAIN)
        scaled = f"{prefix}/scaled" if linear.bias else linear.output
        self.node("Mul", [product, row_scale], scaled)
        if linear.bias:
            self.node("Add", [scaled, linear.bias], linear.output)


def write_int8(fp32: onnx.ModelProto, rounded: Iterable[RoundedLinear]) -> onnx.ModelProto:
    """A copy of the graph in which the given linear layers compute in int8.

    Args:
        fp32: the packed graph; its weights may be in a file.
        rounded: the linear layers to replace; the others stay as they are.
    """
    result = onnx.ModelProto.FromString(fp32.SerializeToString())
    graph = result.graph
    by_product = {one.linear.product: one for one in rounded}
    gone = set(by_product) | {one.linear.output for one in by_product.values()}
    writer = _Writer()
    inputs: dict[str, tuple[str, str | None]] = {}
    for node in graph.node:
        one = by_product.get(node.output[0])
        if one is not None:
            source = one.linear.source
            if source not in inputs:
                inputs[source] = writer.quantized(source, one.quantizer)
            writer.product(one, *inputs[source])
        elif node.output[0] not in gone:
            writer.nodes.append(onnx.NodeProto.FromString(node.SerializeToString()))
    used = {name for node in writer.nodes for name in node.input}
    kept = [
        onnx.TensorProto.FromString(tensor.SerializeToString())
        for tensor in graph.initializer
        if tensor.name in used
    ]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(writer.nodes)
    graph.initializer.extend([*kept, *writer.constants.values()])
    if all(opset.domain != FUSED_DOMAIN for opset in result.opset_import):
        result.opset_import.append(helper.make_opsetid(FUSED_DOMAIN, 1))
    return result
