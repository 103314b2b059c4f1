"""The function ``PackedBiasedAttention``: per sequence, a bias from positions, then attention."""

import onnx
import onnx_ir
import torch
from bertd.bundle import CU_SEQLENS
from onnx import helper, numpy_helper

from bertd_export.errors import ExportError
from bertd_export.graph.operators import (
    OPSET,
    PACKED_BIASED_ATTENTION,
    constant,
    fused_attention,
    per_sequence,
    query_key_value,
)
from bertd_export.graph.position_bias import BiasedAttention

_PREFIX = "bias_"


class _Bias(torch.nn.Module):
    def __init__(self, layout: BiasedAttention) -> None:
        super().__init__()
        self.bias = layout.bias

    def forward(self, q: torch.Tensor, k: torch.Tensor, *tables: torch.Tensor) -> torch.Tensor:
        return self.bias(q, k, *tables)


def trace_bias(layout: BiasedAttention) -> onnx.GraphProto:
    """Trace the stock code of the bias: inputs `qu`, `ku` and the tables, output `bias`.

    Raises:
        ExportError: it holds what a model-local function cannot.
    """
    layer = layout.layers[0]
    width = layer.query.out_features
    length = torch.export.Dim("length")
    example = torch.zeros(1, 7, int(width))  # type: ignore[arg-type,unused-ignore]
    tables = tuple(table.detach() for table in layer.tables)
    program = torch.onnx.export(
        _Bias(layout),
        (example, example.clone(), *tables),
        dynamo=True,
        opset_version=OPSET,
        dynamic_shapes=({1: length}, {1: length}, tuple({} for _ in tables)),
        input_names=["qu", "ku", *layout.tables],
        output_names=["bias"],
        optimize=True,
        verbose=False,
    )
    if program is None:
        raise ExportError("torch.onnx.export returned nothing for the position bias")
    model = onnx_ir.to_proto(program.model)
    if model.functions:
        raise ExportError("the trace of the position bias holds functions of its own")
    return model.graph


def biased_attention_function(bias: onnx.GraphProto, *, merged: bool) -> onnx.FunctionProto:
    """The function, with the tables after `cu_seqlens` as further inputs.

    Args:
        bias: from :func:`trace_bias`.
        merged: attention takes one ``qkv`` tensor instead of three.
    """
    tables = [entry.name for entry in bias.input if entry.name not in {"qu", "ku"}]
    outside = {"", "qu", "ku", "bias", *tables}

    def inner(name: str) -> str:
        return name if name in outside else _PREFIX + name

    steps = query_key_value(merged=merged)
    steps += [constant(inner(t.name), numpy_helper.to_array(t)) for t in bias.initializer]
    for original in bias.node:
        node = onnx.NodeProto()
        node.CopyFrom(original)
        node.input[:] = [inner(name) for name in original.input]
        node.output[:] = [inner(name) for name in original.output]
        node.name = ""
        del node.metadata_props[:]
        steps.append(node)
    steps += [
        fused_attention(["qu", "ku", "vu", "", "", "bias"], "ou"),
        helper.make_node("Squeeze", ["ou", "ax"], ["o"]),
    ]
    rows = ["qkv"] if merged else ["q", "k", "v"]
    return per_sequence(
        PACKED_BIASED_ATTENTION, [*rows, CU_SEQLENS, *tables], steps, ["num_heads", "scale"]
    )
