"""The model-local ONNX functions of a packed graph: each a Loop over the sequences of a batch.

Every sequence is sliced out, computed alone and appended. No padding is ever computed, and a
text's answer cannot depend on its neighbours.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from bertd.bundle import CU_SEQLENS
from onnx import TensorProto, helper, numpy_helper

DOMAIN = "bertd"
FUSED_DOMAIN = "com.microsoft"
OPSET = 20
PACKED_ATTENTION = "PackedAttention"
PACKED_FIRST_ATTENTION = "PackedFirstAttention"
FIRST_ROWS = "FirstRows"  # a mark in the trace alone; bertd_export.first_rows resolves it
PACKED_LOCAL_ATTENTION = "PackedLocalAttention"
PACKED_BIASED_ATTENTION = "PackedBiasedAttention"
PACKED_MEAN = "PackedMean"
PACKED_MAX = "PackedMax"
FUSED_ATTENTION = "MultiHeadAttention"

_OPSETS = (helper.make_opsetid("", OPSET), helper.make_opsetid(FUSED_DOMAIN, 1))


def constant(name: str, value: Any) -> onnx.NodeProto:
    """A Constant node from a numpy array."""
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value))


def reference(
    name: str, function_attribute: str, kind: onnx.AttributeProto.AttributeType
) -> onnx.AttributeProto:
    """A node's attribute that takes its value from an attribute of the function around it."""
    attribute = onnx.AttributeProto()
    attribute.name = name
    attribute.ref_attr_name = function_attribute
    attribute.type = kind
    return attribute


def fused_attention(inputs: list[str], output: str) -> onnx.NodeProto:
    """MultiHeadAttention with the function's number of heads and scale."""
    node = helper.make_node(FUSED_ATTENTION, inputs, [output], domain=FUSED_DOMAIN)
    node.attribute.append(reference("num_heads", "num_heads", onnx.AttributeProto.INT))
    node.attribute.append(reference("scale", "scale", onnx.AttributeProto.FLOAT))
    return node


def per_sequence(
    name: str,
    inputs: list[str],
    steps: list[onnx.NodeProto],
    attributes: list[str] | None = None,
    before: list[onnx.NodeProto] | None = None,
) -> onnx.FunctionProto:
    """A function that runs ``steps`` on rows ``start`` to ``end`` and concatenates the ``o``.

    Args:
        name: of the function.
        inputs: of the function; ``cu_seqlens`` is one of them.
        steps: the body of the loop; it also has ``ax``, the int64 vector [0].
        attributes: names of the function's attributes.
        before: nodes that run once, before the loop; they also have ``c1``, the int64 scalar 1.
    """
    value = helper.make_tensor_value_info
    sequence = helper.make_tensor_sequence_value_info
    body = helper.make_graph(
        [
            constant("one", np.array([1], np.int64)),
            constant("ax", np.array([0], np.int64)),
            helper.make_node("Reshape", ["i", "one"], ["i1"]),
            helper.make_node("Add", ["i1", "one"], ["i2"]),
            helper.make_node("Gather", [CU_SEQLENS, "i1"], ["start"]),
            helper.make_node("Gather", [CU_SEQLENS, "i2"], ["end"]),
            *steps,
            helper.make_node("SequenceInsert", ["seq_in", "o"], ["seq_out"]),
            helper.make_node("Identity", ["cond_in"], ["cond_out"]),
        ],
        "per_sequence",
        [
            value("i", TensorProto.INT64, []),
            value("cond_in", TensorProto.BOOL, []),
            sequence("seq_in", TensorProto.FLOAT, None),
        ],
        [
            value("cond_out", TensorProto.BOOL, []),
            sequence("seq_out", TensorProto.FLOAT, None),
        ],
    )
    nodes = [
        helper.make_node("Size", [CU_SEQLENS], ["n1"]),
        constant("c1", np.array(1, np.int64)),
        helper.make_node("Sub", ["n1", "c1"], ["n"]),
        constant("true", np.array(True)),
        *(before or []),
        helper.make_node("SequenceEmpty", [], ["empty"], dtype=TensorProto.FLOAT),
        helper.make_node("Loop", ["n", "true", "empty"], ["parts"], body=body),
        helper.make_node("ConcatFromSequence", ["parts"], ["out"], axis=0),
    ]
    return helper.make_function(
        DOMAIN, name, inputs, ["out"], nodes, list(_OPSETS), attributes=attributes or []
    )


def query_key_value(*, merged: bool) -> list[onnx.NodeProto]:
    """Steps that make ``qu``, ``ku`` and ``vu`` of one sequence, `[1, tokens, width]`."""
    if merged:
        return [
            helper.make_node("Slice", ["qkv", "start", "end", "ax"], ["s"]),
            helper.make_node("Unsqueeze", ["s", "ax"], ["u"]),
            helper.make_node("Split", ["u"], ["qu", "ku", "vu"], axis=2, num_outputs=3),
        ]
    steps = []
    for x in "qkv":
        steps.append(helper.make_node("Slice", [x, "start", "end", "ax"], [x + "s"]))
        steps.append(helper.make_node("Unsqueeze", [x + "s", "ax"], [x + "u"]))
    return steps


def _attention(*, merged: bool) -> onnx.FunctionProto:
    steps = query_key_value(merged=merged)
    steps.append(fused_attention(["qu", "ku", "vu"], "ou"))
    steps.append(helper.make_node("Squeeze", ["ou", "ax"], ["o"]))
    inputs = ["qkv", CU_SEQLENS] if merged else ["q", "k", "v", CU_SEQLENS]
    return per_sequence(PACKED_ATTENTION, inputs, steps, ["num_heads", "scale"])


def _first_attention() -> onnx.FunctionProto:
    """Attention of each sequence's first row, given alone, over all its rows."""
    steps = [helper.make_node("Gather", ["q", "i1"], ["qs"])]
    steps += [helper.make_node("Slice", [x, "start", "end", "ax"], [x + "s"]) for x in "kv"]
    steps += [helper.make_node("Unsqueeze", [x + "s", "ax"], [x + "u"]) for x in "qkv"]
    steps.append(fused_attention(["qu", "ku", "vu"], "ou"))
    steps.append(helper.make_node("Squeeze", ["ou", "ax"], ["o"]))
    inputs = ["q", "k", "v", CU_SEQLENS]
    return per_sequence(PACKED_FIRST_ATTENTION, inputs, steps, ["num_heads", "scale"])


def _reduction(name: str, operator: str) -> onnx.FunctionProto:
    steps = [
        helper.make_node("Slice", ["x", "start", "end", "ax"], ["xs"]),
        helper.make_node(operator, ["xs", "ax"], ["o"], keepdims=1),
    ]
    return per_sequence(name, ["x", CU_SEQLENS], steps)


def add_functions(
    model: onnx.ModelProto,
    *,
    merged: bool,
    further: dict[str, Callable[[], onnx.FunctionProto]] | None = None,
) -> None:
    """Define the functions that the graph calls, each once.

    Args:
        model: the traced model; changed in place.
        merged: attention takes one ``qkv`` tensor instead of three.
        further: makers of functions that other modules define, by name.
    """
    makers: dict[str, Callable[[], onnx.FunctionProto]] = {
        PACKED_ATTENTION: lambda: _attention(merged=merged),
        PACKED_FIRST_ATTENTION: _first_attention,
        PACKED_MEAN: lambda: _reduction(PACKED_MEAN, "ReduceMean"),
        PACKED_MAX: lambda: _reduction(PACKED_MAX, "ReduceMax"),
        **(further or {}),
    }
    used = sorted({node.op_type for node in model.graph.node if node.domain == DOMAIN})
    model.functions.extend(makers[name]() for name in used)
    for domain in (DOMAIN, FUSED_DOMAIN):
        if all(opset.domain != domain for opset in model.opset_import):
            model.opset_import.append(helper.make_opsetid(domain, 1))
