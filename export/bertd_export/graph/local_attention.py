"""The function ``PackedLocalAttention``: token i sees token j if their distance is at most w.

A sequence of at most w + 1 tokens sees all of itself, so that it needs no mask. A longer one goes
in blocks of queries; a block sees its own rows and w on either side, through a band of a bias::

            keys  qa-w ............ qa+128+w
    query qa       0 0 0 0 . . . . .            0: seen, .: lowest float
    query qa+1     . 0 0 0 0 . . . .
"""

import numpy as np
import onnx
from bertd.bundle import CU_SEQLENS
from onnx import TensorProto, helper

from bertd_export.graph.operators import (
    PACKED_LOCAL_ATTENTION,
    constant,
    fused_attention,
    per_sequence,
    reference,
)

BLOCK = 128  # queries


def _node(operator: str, inputs: list[str], output: str) -> onnx.NodeProto:
    return helper.make_node(operator, inputs, [output])


def _band() -> list[onnx.NodeProto]:
    """The bias `band`, float32 `[BLOCK, BLOCK + 2w]`, and the constants that the branches share.

    ONNX Runtime computes all of it once, when it loads the graph.
    """
    window = helper.make_node("Constant", [], ["w"])
    window.attribute.append(reference("value_int", "window", onnx.AttributeProto.INT))
    return [
        window,
        constant("c0", np.array(0, np.int64)),
        constant("zero", np.array([0], np.int64)),
        constant("unit", np.array([1], np.int64)),
        constant("both", np.array([0, 1], np.int64)),
        constant("block", np.array([BLOCK], np.int64)),
        constant("block_less_one", np.array([BLOCK - 1], np.int64)),
        constant("block0", np.array(BLOCK, np.int64)),
        _node("Reshape", ["w", "unit"], "w1"),
        _node("Add", ["w1", "unit"], "limit"),
        _node("Add", ["block0", "w"], "last"),
        _node("Neg", ["w"], "first"),
        _node("Range", ["first", "last", "c1"], "columns"),
        _node("Range", ["c0", "block0", "c1"], "row_numbers"),
        _node("Unsqueeze", ["row_numbers", "unit"], "rows"),
        _node("Sub", ["rows", "columns"], "distances"),
        _node("Abs", ["distances"], "absolute"),
        _node("LessOrEqual", ["absolute", "w"], "seen"),
        constant("nothing", np.array(0, np.float32)),
        constant("lowest", np.array(np.finfo(np.float32).min)),
        _node("Where", ["seen", "nothing", "lowest"], "band"),
    ]


def _whole() -> onnx.GraphProto:
    """The branch for a short sequence."""
    nodes = [_node("Unsqueeze", [f"{x}s", "zero"], f"{x}u") for x in "qkv"]
    nodes += [
        fused_attention(["qu", "ku", "vu"], "whole_u"),
        _node("Squeeze", ["whole_u", "zero"], "whole"),
    ]
    output = helper.make_tensor_value_info("whole", TensorProto.FLOAT, None)
    return helper.make_graph(nodes, "whole", [], [output])


def _one_block() -> onnx.GraphProto:
    """Queries `qa` to `qb` of a sequence, against the keys `ka` to `kb`."""
    nodes = [
        _node("Reshape", ["j", "unit"], "j1"),
        _node("Mul", ["j1", "block"], "qa"),
        _node("Add", ["qa", "block"], "q_end"),
        _node("Min", ["q_end", "length"], "qb"),
        _node("Sub", ["qa", "w1"], "band_start"),  # the key in the band's first column
        _node("Max", ["band_start", "zero"], "ka"),
        _node("Add", ["qb", "w1"], "k_end"),
        _node("Min", ["k_end", "length"], "kb"),
        _node("Slice", ["qs", "qa", "qb", "zero"], "block_q"),
        _node("Slice", ["ks", "ka", "kb", "zero"], "block_k"),
        _node("Slice", ["vs", "ka", "kb", "zero"], "block_v"),
        _node("Sub", ["ka", "band_start"], "column_a"),
        _node("Sub", ["kb", "band_start"], "column_b"),
        _node("Sub", ["qb", "qa"], "queries"),
        helper.make_node("Concat", ["zero", "column_a"], ["corner_a"], axis=0),
        helper.make_node("Concat", ["queries", "column_b"], ["corner_b"], axis=0),
        _node("Slice", ["band", "corner_a", "corner_b", "both"], "bias_rows"),
        _node("Unsqueeze", ["bias_rows", "both"], "bias"),
        *[_node("Unsqueeze", [f"block_{x}", "zero"], f"block_{x}u") for x in "qkv"],
        fused_attention(["block_qu", "block_ku", "block_vu", "", "", "bias"], "block_u"),
        _node("Squeeze", ["block_u", "zero"], "block_out"),
        _node("SequenceInsert", ["blocks_in", "block_out"], "blocks_out"),
        _node("Identity", ["more_in"], "more_out"),
    ]
    value = helper.make_tensor_value_info
    sequence = helper.make_tensor_sequence_value_info
    return helper.make_graph(
        nodes,
        "one_block",
        [
            value("j", TensorProto.INT64, []),
            value("more_in", TensorProto.BOOL, []),
            sequence("blocks_in", TensorProto.FLOAT, None),
        ],
        [
            value("more_out", TensorProto.BOOL, []),
            sequence("blocks_out", TensorProto.FLOAT, None),
        ],
    )


def _in_blocks() -> onnx.GraphProto:
    """The branch for a long sequence."""
    nodes = [
        _node("Add", ["length", "block_less_one"], "rounded"),
        _node("Div", ["rounded", "block"], "count1"),
        _node("Squeeze", ["count1", "zero"], "count"),
        constant("go", np.array(True)),
        helper.make_node("SequenceEmpty", [], ["no_blocks"], dtype=TensorProto.FLOAT),
        helper.make_node("Loop", ["count", "go", "no_blocks"], ["blocks"], body=_one_block()),
        helper.make_node("ConcatFromSequence", ["blocks"], ["joined"], axis=0),
    ]
    output = helper.make_tensor_value_info("joined", TensorProto.FLOAT, None)
    return helper.make_graph(nodes, "in_blocks", [], [output])


def local_attention() -> onnx.FunctionProto:
    """The function: `q`, `k`, `v` float32 `[tokens, width]`, `cu_seqlens`; attribute `window`."""
    steps = [
        *[helper.make_node("Slice", [x, "start", "end", "ax"], [f"{x}s"]) for x in "qkv"],
        _node("Sub", ["end", "start"], "length"),
        _node("LessOrEqual", ["length", "limit"], "short1"),
        _node("Squeeze", ["short1", "ax"], "short"),
        helper.make_node("If", ["short"], ["o"], then_branch=_whole(), else_branch=_in_blocks()),
    ]
    return per_sequence(
        PACKED_LOCAL_ATTENTION,
        ["q", "k", "v", CU_SEQLENS],
        steps,
        ["num_heads", "scale", "window"],
        before=_band(),
    )
