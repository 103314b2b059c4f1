"""Writes a packed graph whose linear layers compute in int8.

Only stock ONNX Runtime operators are used. A linear layer becomes

* ``static``:   ``QuantizeLinear -> MatMulIntegerToFloat`` (bias included)
* ``smoothed``: ``Mul(1/smooth)``, then the same
* ``split``:    as ``static``, reading a Gelu whose largest channels stand there several times
* per row:      the row's largest value, ``QuantizeLinear`` of the row divided by it,
  ``MatMulIntegerToFloat``, times that value, plus bias

with weights of 7 bits and one scale for each output channel. :mod:`.int8_functions` makes
functions of these nodes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from bertd_export.graph.operators import FUSED_DOMAIN
from bertd_export.quantization.activations import Quantizer
from bertd_export.quantization.int8_functions import INTEGER_PRODUCT
from bertd_export.quantization.rounding import RoundedLinear


@dataclass
class _Writer:
    """New nodes and constants of the graph.

    Attributes:
        copies: quantisers that ask for copies, by the tensor in which the channels are copied.
    """

    copies: Mapping[str, Quantizer]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, onnx.TensorProto] = field(default_factory=dict)

    def constant(self, name: str, value: npt.ArrayLike, dtype: npt.DTypeLike) -> str:
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.asarray(value, dtype), name)
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
            gelu = quantizer.formulation == "gelu_row"
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
        prefix, source = f"{linear.product}/int8", f"{linear.source}/int8"
        weight, scales, bias = self._weight(rounded)
        inputs = [rows, weight, f"{source}/scale", scales, f"{source}/zero_point"]
        if row_scale is None:
            inputs += ["", bias] if bias else []
            self.node(INTEGER_PRODUCT, inputs, linear.output, FUSED_DOMAIN)
            return
        product = self.node(INTEGER_PRODUCT, inputs, f"{prefix}/product", FUSED_DOMAIN)
        scaled = f"{prefix}/scaled" if bias else linear.output
        self.node("Mul", [product, row_scale], scaled)
        if bias:
            self.node("Add", [scaled, bias], linear.output)

    def _weight(self, rounded: RoundedLinear) -> tuple[str, str, str | None]:
        """Write weight, scales and bias, with the columns that a ``split`` behind asks for."""
        linear = rounded.linear
        levels, scales, bias = rounded.levels, rounded.scales, linear.bias
        owner = linear.weight  # once where layers share it
        reader = self.copies.get(linear.output)
        if reader is not None:
            owner = linear.product
            levels = np.concatenate([levels, levels[:, reader.copies]], axis=1)
            before = np.zeros_like(scales) if rounded.bias is None else rounded.bias
            shifted = np.concatenate([before, before[reader.copies] - reader.shifts])
            scales = np.concatenate([scales, scales[reader.copies]])
            bias = self.constant(f"{owner}/int8/bias", shifted, np.float32)
        return (
            self.constant(f"{owner}/int8/weight", levels, np.int8),
            self.constant(f"{owner}/int8/weight_scale", scales, np.float32),
            bias,
        )

    def widen(self, node: onnx.NodeProto) -> None:
        """Append the copies to the output of a linear layer that stays in fp32."""
        output = node.output[0]
        reader = self.copies[output]
        narrow = node.output[0] = f"{output}/narrow"
        channels = self.constant(f"{output}/copies", reader.copies, np.int64)
        shifts = self.constant(f"{output}/shifts", reader.shifts, np.float32)
        copied = self.node("Gather", [narrow, channels], f"{output}/copied", axis=-1)
        shifted = self.node("Sub", [copied, shifts], f"{output}/shifted")
        self.node("Concat", [narrow, shifted], output, axis=-1)


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
    writer = _Writer(
        {
            one.linear.widened: one.quantizer
            for one in by_product.values()
            if one.linear.widened and len(one.quantizer.copies)
        }
    )
    inputs: dict[str, tuple[str, str | None]] = {}
    for node in graph.node:
        one = by_product.get(node.output[0])
        if one is not None:
            source = one.linear.source
            if source not in inputs:
                inputs[source] = writer.quantized(source, one.quantizer)
            writer.product(one, *inputs[source])
        elif node.output[0] not in gone:
            copy = onnx.NodeProto.FromString(node.SerializeToString())
            writer.nodes.append(copy)
            if node.output[0] in writer.copies:
                writer.widen(copy)
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
