"""The model-local ONNX functions of a packed graph: each a Loop over the sequences of a batch.

Every sequence is sliced out, computed alone and appended. No padding is ever computed, and a
text's answer cannot depend on its neighbours. A text that has the batch to itself is computed by
the same kernels on the same shapes without the Loop, whose one turn would cost more than the
attention of a short text.
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
FIRST_ROWS = "FirstRows"  # a mark in the trace alone; bertd_export.graph.first_rows resolves it
PACKED_LOCAL_ATTENTION = "PackedLocalAttention"
PACKED_BIASED_ATTENTION = "PackedBiasedAttention"
PACKED_MEAN = "PackedMean"
PACKED_MAX = "PackedMax"
PACKED_WEIGHTED_MEAN = "PackedWeightedMean"
FUSED_ATTENTION = "MultiHeadAttention"
ATTENTION = "Attention"
LONE = "lone"  # whether the steps without the Loop are taken: a bool scalar

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
    name: str,
    inputs: list[str],
    nodes: list[onnx.NodeProto],
    attributes: list[str],
    alone: list[onnx.NodeProto] | None = None,
) -> onnx.FunctionProto:
    """A function whose ``nodes`` append tensors to the sequence ``empty`` and call it ``parts``.

    The function's output is their concatenation; or ``o``, which the nodes ``alone`` make, in a
    batch of which ``nodes`` say that it is :data:`LONE`.
    """
    empty = helper.make_node("SequenceEmpty", [], ["empty"], dtype=TensorProto.FLOAT)
    joined = helper.make_node("ConcatFromSequence", ["parts"], ["out"], axis=0)
    if alone is None:
        steps = [empty, *nodes, joined]
    else:
        # What precedes the loops is the same in all layers: outside, ONNX Runtime computes it once.
        before = [node for node in nodes if node.op_type != "Loop"]
        loops = [node for node in nodes if node.op_type == "Loop"]
        steps = [*before, _either(alone, [empty, *loops, joined])]
    body = [
        constant("c1", np.array(1, np.int64)),
        constant("true", np.array(True)),
        *steps,
    ]
    return helper.make_function(
        DOMAIN, name, inputs, ["out"], body, list(_OPSETS), attributes=attributes
    )


def _either(alone: list[onnx.NodeProto], together: list[onnx.NodeProto]) -> onnx.NodeProto:
    """An If: ``out`` is the ``o`` of the nodes ``alone`` where :data:`LONE` is true."""

    def branch(name: str, nodes: list[onnx.NodeProto], output: str) -> onnx.GraphProto:
        value = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
        return helper.make_graph(nodes, name, [], [value])

    return helper.make_node(
        "If",
        [LONE],
        ["out"],
        then_branch=branch("alone", alone, "o"),
        else_branch=branch("together", together, "out"),
    )


def one_of(bounds: str, condition: str) -> list[onnx.NodeProto]:
    """Nodes that make ``condition``: there is one interval between the ``bounds``."""
    return [
        constant(f"{condition}_size", np.array(2, np.int64)),
        helper.make_node("Size", [bounds], [f"{condition}_found"]),
        helper.make_node("Equal", [f"{condition}_found", f"{condition}_size"], [condition]),
    ]


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
    alone = [
        constant("rows", np.array([0], np.int64)),
        helper.make_node(operator, ["x", "rows"], ["o"], keepdims=1),
    ]
    nodes = [*one_of(CU_SEQLENS, LONE), *loop(CU_SEQLENS, steps, "empty", "parts")]
    return appending_function(name, ["x", CU_SEQLENS], nodes, [], alone)


def _weighted_mean() -> onnx.FunctionProto:
    """The mean of each sequence's rows, of which the first weighs 1, the second 2, and so on."""

    def steps(rows: str) -> list[onnx.NodeProto]:
        return [
            constant("rows_axis", np.array([0], np.int64)),
            constant("columns_axis", np.array([1], np.int64)),
            constant("unit", np.array(1, np.float32)),
            helper.make_node("Shape", [rows], ["count"], start=0, end=1),
            helper.make_node("Squeeze", ["count"], ["number"]),
            helper.make_node("Cast", ["number"], ["length"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["length", "unit"], ["after"]),
            helper.make_node("Range", ["unit", "after", "unit"], ["line"]),
            helper.make_node("Unsqueeze", ["line", "columns_axis"], ["weights"]),
            helper.make_node("Mul", [rows, "weights"], ["weighted"]),
            helper.make_node("ReduceSum", ["weighted", "rows_axis"], ["sums"], keepdims=1),
            helper.make_node("ReduceSum", ["weights", "rows_axis"], ["total"], keepdims=1),
            helper.make_node("Div", ["sums", "total"], ["o"]),
        ]

    one = [helper.make_node("Slice", ["x", "start", "end", "ax"], ["xs"]), *steps("xs")]
    nodes = [*one_of(CU_SEQLENS, LONE), *loop(CU_SEQLENS, one, "empty", "parts")]
    return appending_function(PACKED_WEIGHTED_MEAN, ["x", CU_SEQLENS], nodes, [], steps("x"))


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
        PACKED_WEIGHTED_MEAN: _weighted_mean,
        **attention,
    }
    used = sorted({node.op_type for node in model.graph.node if node.domain == DOMAIN})
    model.functions.extend(makers[name]() for name in used)
    for domain in (DOMAIN, FUSED_DOMAIN):
        if all(opset.domain != domain for opset in model.opset_import):
            model.opset_import.append(helper.make_opsetid(domain, 1))
