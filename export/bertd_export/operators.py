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
OPSET = 23
PACKED_ATTENTION = "PackedAttention"
PACKED_FIRST_ATTENTION = "PackedFirstAttention"
FIRST_ROWS = "FirstRows"  # a mark in the trace alone; bertd_export.first_rows resolves it
PACKED_LOCAL_ATTENTION = "PackedLocalAttention"
PACKED_BIASED_ATTENTION = "PackedBiasedAttention"
PACKED_MEAN = "PackedMean"
PACKED_MAX = "PackedMax"
FUSED_ATTENTION = "MultiHeadAttention"
ATTENTION = "Attention"

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


def loop(bounds: str, steps: list[onnx.NodeProto], before: str, after: str) -> list[onnx.NodeProto]:
    """Nodes that run ``steps`` between two neighbours of ``bounds`` at a time.

    They expect the constants ``c1``, int64 1, and ``true``.

    Args:
        bounds: int64 ``[times + 1]``.
        steps: make ``o`` of the rows ``start`` to ``end``, int64 ``[1]`` each; they also have the
            number of the turn as ``i1`` and the constant 0 as ``ax``, of the same kind.
        before: the sequence of tensors to which each ``o`` is appended.
        after: the sequence that results.
    """
    value = helper.make_tensor_value_info
    sequence = helper.make_tensor_sequence_value_info
    body = helper.make_graph(
        [
            constant("one", np.array([1], np.int64)),
            constant("ax", np.array([0], np.int64)),
            helper.make_node("Reshape", ["i", "one"], ["i1"]),
            helper.make_node("Add", ["i1", "one"], ["i2"]),
            helper.make_node("Gather", [bounds, "i1"], ["start"]),
            helper.make_node("Gather", [bounds, "i2"], ["end"]),
            *steps,
            helper.make_node("SequenceInsert", ["seq_in", "o"], ["seq_out"]),
            helper.make_node("Identity", ["cond_in"], ["cond_out"]),
        ],
        "turn",
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
    return [
        helper.make_node("Size", [bounds], [f"{bounds}_size"]),
        helper.make_node("Sub", [f"{bounds}_size", "c1"], [f"{bounds}_times"]),
        helper.make_node("Loop", [f"{bounds}_times", "true", before], [after], body=body),
    ]


def appending_function(
    name: str, inputs: list[str], nodes: list[onnx.NodeProto], attributes: list[str]
) -> onnx.FunctionProto:
    """A function whose ``nodes`` append tensors to the sequence ``empty`` and call it ``parts``.

    The function's output is their concatenation.
    """
    body = [
        constant("c1", np.array(1, np.int64)),
        constant("true", np.array(True)),
        helper.make_node("SequenceEmpty", [], ["empty"], dtype=TensorProto.FLOAT),
        *nodes,
        helper.make_node("ConcatFromSequence", ["parts"], ["out"], axis=0),
    ]
    return helper.make_function(
        DOMAIN, name, inputs, ["out"], body, list(_OPSETS), attributes=attributes
    )


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
        steps: the body of the loop, see :func:`loop`.
        attributes: names of the function's attributes.
        before: nodes that run once, before the loop; they also have ``c1``, the int64 scalar 1.
    """
    nodes = [*(before or []), *loop(CU_SEQLENS, steps, "empty", "parts")]
    return appending_function(name, inputs, nodes, attributes or [])


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


def _reduction(name: str, operator: str) -> onnx.FunctionProto:
    steps = [
        helper.make_node("Slice", ["x", "start", "end", "ax"], ["xs"]),
        helper.make_node(operator, ["xs", "ax"], ["o"], keepdims=1),
    ]
    return per_sequence(name, ["x", CU_SEQLENS], steps)


def add_functions(
    model: onnx.ModelProto, attention: dict[str, Callable[[], onnx.FunctionProto]]
) -> None:
    """Define the functions that the graph calls, each once.

    Args:
        model: the traced model; changed in place.
        attention: makers of the functions that other modules define, by name.
    """
    makers: dict[str, Callable[[], onnx.FunctionProto]] = {
        PACKED_MEAN: lambda: _reduction(PACKED_MEAN, "ReduceMean"),
        PACKED_MAX: lambda: _reduction(PACKED_MAX, "ReduceMax"),
        **attention,
    }
    used = sorted({node.op_type for node in model.graph.node if node.domain == DOMAIN})
    model.functions.extend(makers[name]() for name in used)
    for domain in (DOMAIN, FUSED_DOMAIN):
        if all(opset.domain != domain for opset in model.opset_import):
            model.opset_import.append(helper.make_opsetid(domain, 1))
