"""The functions ``PackedAttention`` and ``PackedFirstAttention``: runs of equal length at a time.

::

    one short sequence ──> [1, tokens, width], Attention
    others: short_runs ──> Loop: slice, [sequences, tokens, width], Attention ──────────┐
            long_runs  ──> Loop: slice, [sequences, tokens, width], MultiHeadAttention ─┴─> join

Up to some length ONNX's own Attention is the faster kernel; it holds the scores of all pairs of
tokens at once. MultiHeadAttention of ONNX Runtime goes through longer sequences in blocks. The
sequences of a run are computed apart, and which kernel takes one depends on its own length alone,
so that its result does not depend on its neighbours (:mod:`bertd.bundle.runs`).
"""

from collections.abc import Callable

import numpy as np
import onnx
from bertd.bundle import CU_SEQLENS, LONG_RUNS, SHORT_RUNS
from onnx import helper

from bertd_export.graph.operators import (
    ATTENTION,
    LONE,
    PACKED_ATTENTION,
    PACKED_FIRST_ATTENTION,
    appending_function,
    constant,
    fused_attention,
    loop,
    one_of,
    reference,
)

_RUNS = (CU_SEQLENS, SHORT_RUNS, LONG_RUNS)
_node = helper.make_node
_AttentionNode = Callable[[list[str], str], onnx.NodeProto]


def _short_attention(inputs: list[str], output: str) -> onnx.NodeProto:
    """Attention with the function's number of heads and scale."""
    node = _node(ATTENTION, inputs, [output])
    for name in ("q_num_heads", "kv_num_heads"):
        node.attribute.append(reference(name, "num_heads", onnx.AttributeProto.INT))
    node.attribute.append(reference("scale", "scale", onnx.AttributeProto.FLOAT))
    return node


def _stacked(rows: str, stack: str, start: str, end: str) -> list[onnx.NodeProto]:
    """Steps that take ``rows`` of a run as ``stack``, `[sequences, tokens, width]`."""
    return [
        _node("Slice", [rows, start, end, "ax"], [f"{stack}_rows"]),
        _node("Shape", [f"{stack}_rows"], [f"{stack}_width"], start=1),
        _node("Concat", ["count", "open", f"{stack}_width"], [f"{stack}_shape"], axis=0),
        _node("Reshape", [f"{stack}_rows", f"{stack}_shape"], [stack]),
    ]


def _over_runs(
    runs: str, select: list[onnx.NodeProto], attend: _AttentionNode, before: str, after: str
) -> list[onnx.NodeProto]:
    """Nodes that compute attention run by run; ``select`` makes ``qu``, ``ku`` and ``vu``.

    ``select`` has ``start`` and ``end``, the run's rows, ``first`` and ``last``, its sequences,
    and their ``count``. What is computed before the loop is the same in all layers, so that ONNX
    Runtime computes it once.
    """
    steps = [
        _node("Gather", [f"{runs}_firsts", "i1"], ["first"]),
        _node("Gather", [f"{runs}_lasts", "i1"], ["last"]),
        _node("Gather", [f"{runs}_counts", "i1"], ["count"]),
        *select,
        attend(["qu", "ku", "vu"], "ou"),
        _node("Flatten", ["ou"], ["o"], axis=2),
    ]
    return [
        _node("Gather", [CU_SEQLENS, runs], [f"{runs}_rows"]),
        _node("Slice", [runs, "from_0", "to_last"], [f"{runs}_firsts"]),
        _node("Slice", [runs, "from_1", "to_end"], [f"{runs}_lasts"]),
        _node("Sub", [f"{runs}_lasts", f"{runs}_firsts"], [f"{runs}_counts"]),
        *loop(f"{runs}_rows", steps, before, after),
    ]


def _alone(select: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Steps for a batch of one short sequence; ``select`` makes ``qu``, ``ku`` and ``vu``."""
    return [
        constant("batch", np.array([0], np.int64)),
        *select,
        _short_attention(["qu", "ku", "vu"], "ou"),
        _node("Squeeze", ["ou", "batch"], ["o"]),
    ]


def _function(
    name: str, inputs: list[str], select: list[onnx.NodeProto], whole: list[onnx.NodeProto]
) -> onnx.FunctionProto:
    """Attention over runs; ``select`` takes the rows of one, ``whole`` all rows, of a lone one."""
    nodes = [
        *one_of(SHORT_RUNS, "one_short_run"),
        *one_of(CU_SEQLENS, "one_sequence"),
        _node("And", ["one_short_run", "one_sequence"], [LONE]),
        constant("from_0", np.array([0], np.int64)),
        constant("from_1", np.array([1], np.int64)),
        constant("to_last", np.array([-1], np.int64)),
        constant("to_end", np.array([np.iinfo(np.int64).max], np.int64)),
        constant("open", np.array([-1], np.int64)),
        *_over_runs(SHORT_RUNS, select, _short_attention, "empty", "short_parts"),
        *_over_runs(LONG_RUNS, select, fused_attention, "short_parts", "parts"),
    ]
    attributes = ["num_heads", "scale"]
    return appending_function(name, [*inputs, *_RUNS], nodes, attributes, _alone(whole))


def packed_attention(*, merged: bool) -> onnx.FunctionProto:
    """Attention within each sequence.

    Inputs are ``qkv``, float32 `[tokens, 3 * width]`, or ``q``, ``k`` and ``v``; then
    ``cu_seqlens`` and the runs.
    """
    if not merged:
        select = [step for x in "qkv" for step in _stacked(x, f"{x}u", "start", "end")]
        return _function(PACKED_ATTENTION, ["q", "k", "v"], select, _whole("q", "k", "v"))
    split = _node("Split", ["u"], ["qu", "ku", "vu"], axis=2, num_outputs=3)
    select = [*_stacked("qkv", "u", "start", "end"), split]
    whole = [_node("Unsqueeze", ["qkv", "batch"], ["u"]), split]
    return _function(PACKED_ATTENTION, ["qkv"], select, whole)


def packed_first_attention() -> onnx.FunctionProto:
    """Attention of each sequence's first row over all its rows.

    Inputs are ``q``, float32 `[sequences, width]`, ``k`` and ``v``, `[tokens, width]`; then
    ``cu_seqlens`` and the runs.
    """
    select = _stacked("q", "qu", "first", "last")
    select += [step for x in "kv" for step in _stacked(x, f"{x}u", "start", "end")]
    return _function(PACKED_FIRST_ATTENTION, ["q", "k", "v"], select, _whole("q", "k", "v"))


def _whole(*rows: str) -> list[onnx.NodeProto]:
    return [_node("Unsqueeze", [x, "batch"], [f"{x}u"]) for x in rows]


def take_runs(model: onnx.ModelProto) -> None:
    """Hand the runs to every node that computes attention by them.

    Args:
        model: the traced model; changed in place, with two more inputs where they are read.
    """
    takers = [
        node
        for node in model.graph.node
        if node.op_type in {PACKED_ATTENTION, PACKED_FIRST_ATTENTION}
    ]
    for node in takers:
        node.input.extend([SHORT_RUNS, LONG_RUNS])
    for name in (SHORT_RUNS, LONG_RUNS) if takers else ():
        value = helper.make_tensor_value_info(name, onnx.TensorProto.INT64, [f"{name}_bounds"])
        model.graph.input.append(value)
