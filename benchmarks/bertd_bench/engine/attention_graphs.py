"""Ways to compute attention over a packed batch, each alone in a graph of stock operators.

::

    qkv [tokens, 3 * hidden], sequences of the batch end to end ──> [tokens, hidden]

Every contestant gets the same rows and gives the same rows; what it needs besides (places to
gather from, masks) is made from the lengths beforehand and costs it nothing here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import onnx
from bertd import bundle
from bertd.bundle.runs import SHORT_TOKENS, arrange
from bertd_export.graph.attention import packed_attention
from bertd_export.graph.operators import (
    DOMAIN,
    FUSED_DOMAIN,
    OPSET,
    PACKED_ATTENTION,
    fused_attention,
    per_sequence,
    query_key_value,
)
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

BASELINE = "loop over sequences"
OURS = "two loops over runs"
Feeds = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Contestant:
    """A graph and what it is fed; `feeds` takes the lengths of the batch."""

    build: Callable[[int, int], onnx.ModelProto]
    feeds: Callable[[Sequence[int], int], Feeds]


def graph(
    nodes: Iterable[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, Any]],
    hidden: int,
    initializers: Iterable[onnx.TensorProto] = (),
) -> onnx.ModelProto:
    """A model from `qkv` and more inputs (name: type and shape) to `out`."""
    extra = [helper.make_tensor_value_info(n, kind, shape) for n, (kind, shape) in inputs.items()]
    made = helper.make_graph(
        list(nodes),
        "attention",
        [helper.make_tensor_value_info("qkv", TensorProto.FLOAT, ["tokens", 3 * hidden]), *extra],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["tokens", hidden])],
        list(initializers),
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(FUSED_DOMAIN, 1)]
    return helper.make_model(made, opset_imports=opsets, ir_version=10)


def bounds(lengths: Sequence[int]) -> NDArray[np.int64]:
    """Row at which each sequence begins, and the last one's end."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _called(hidden: int, heads: int, function: onnx.FunctionProto) -> onnx.ModelProto:
    """A graph that calls a function on `qkv`."""
    inputs = {name: (TensorProto.INT64, [name]) for name in function.input if name != "qkv"}
    node = helper.make_node(
        PACKED_ATTENTION,
        list(function.input),
        ["out"],
        domain=DOMAIN,
        num_heads=heads,
        scale=(hidden / heads) ** -0.5,
    )
    model = graph([node], inputs, hidden)
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return model


def _loop(hidden: int, heads: int) -> onnx.ModelProto:
    """One turn for each sequence, through MultiHeadAttention."""
    steps = [
        *query_key_value(merged=True),
        fused_attention(["qu", "ku", "vu"], "ou"),
        helper.make_node("Squeeze", ["ou", "ax"], ["o"]),
    ]
    function = per_sequence(
        PACKED_ATTENTION, ["qkv", bundle.CU_SEQLENS], steps, ["num_heads", "scale"]
    )
    return _called(hidden, heads, function)


def _loop_feeds(lengths: Sequence[int], _hidden: int) -> Feeds:
    return {bundle.CU_SEQLENS: bounds(lengths)}


def _ours(hidden: int, heads: int) -> onnx.ModelProto:
    """What bundles hold: a loop over runs of short sequences, and one over long ones."""
    return _called(hidden, heads, packed_attention(merged=True))


def _ours_feeds(lengths: Sequence[int], _hidden: int) -> Feeds:
    arrangement = arrange(np.array(lengths, np.int64))
    return {
        bundle.CU_SEQLENS: bounds(lengths),
        bundle.SHORT_RUNS: arrangement.short_runs,
        bundle.LONG_RUNS: arrangement.long_runs,
    }


def constants(**arrays: Any) -> list[onnx.TensorProto]:
    """Initializers by name."""
    return [numpy_helper.from_array(np.asarray(value), name) for name, value in arrays.items()]


def mha(hidden: int, heads: int, inputs: list[str], output: str, **more: Any) -> onnx.NodeProto:
    """MultiHeadAttention of ONNX Runtime."""
    return helper.make_node(
        "MultiHeadAttention",
        inputs,
        [output],
        domain=FUSED_DOMAIN,
        num_heads=heads,
        scale=(hidden / heads) ** -0.5,
        **more,
    )


def _plain(hidden: int, heads: int) -> list[onnx.NodeProto]:
    """Attention of ONNX opset 23 on q, k and v of one run."""
    return [
        helper.make_node(
            "Attention",
            ["q", "k", "v"],
            ["ou"],
            q_num_heads=heads,
            kv_num_heads=heads,
            scale=(hidden / heads) ** -0.5,
        )
    ]


def _by_length(hidden: int, heads: int) -> list[onnx.NodeProto]:
    """The one or the other, by the length of the run's sequences."""
    out = [helper.make_tensor_value_info("ob", TensorProto.FLOAT, None)]

    def branch(name: str, node: onnx.NodeProto) -> onnx.GraphProto:
        node.output[0] = "ob"
        return helper.make_graph([node], name, [], out)

    short = branch("short", _plain(hidden, heads)[0])
    long = branch("long", mha(hidden, heads, ["q", "k", "v"], "ob"))
    return [
        helper.make_node("Shape", ["q"], ["length"], start=1, end=2),
        helper.make_node("Less", ["length", "limit"], ["is_short"]),
        helper.make_node("If", ["is_short"], ["ou"], then_branch=short, else_branch=long),
    ]


def _runs(hidden: int, heads: int, kind: str = "fused") -> onnx.ModelProto:
    """The loop, taking neighbours of equal length together."""
    attend = {
        "fused": lambda: [mha(hidden, heads, ["q", "k", "v"], "ou")],
        "plain": lambda: _plain(hidden, heads),
        "by length": lambda: _by_length(hidden, heads),
    }[kind]()
    value, sequence = helper.make_tensor_value_info, helper.make_tensor_sequence_value_info
    make = helper.make_node
    body = helper.make_graph(
        [
            make("Reshape", ["i", "one"], ["i1"]),
            make("Add", ["i1", "one"], ["i2"]),
            make("Gather", ["rows", "i1"], ["start"]),
            make("Gather", ["rows", "i2"], ["end"]),
            make("Gather", ["counts", "i1"], ["count"]),
            make("Concat", ["count", "rest"], ["shape"], axis=0),
            make("Slice", ["qkv", "start", "end", "zero"], ["s"]),
            make("Reshape", ["s", "shape"], ["u"]),
            make("Split", ["u"], ["q", "k", "v"], axis=2, num_outputs=3),
            *attend,
            make("Reshape", ["ou", "flat"], ["o"]),
            make("SequenceInsert", ["seq_in", "o"], ["seq_out"]),
            make("Identity", ["cond_in"], ["cond_out"]),
        ],
        "per_run",
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
        make("Size", ["counts"], ["n"]),
        make("SequenceEmpty", [], ["empty"], dtype=TensorProto.FLOAT),
        make("Loop", ["n", "true", "empty"], ["parts"], body=body),
        make("ConcatFromSequence", ["parts"], ["out"], axis=0),
    ]
    values = constants(
        true=np.array(True),
        one=np.array([1], np.int64),
        zero=np.array([0], np.int64),
        rest=np.array([-1, 3 * hidden], np.int64),
        flat=np.array([-1, hidden], np.int64),
        limit=np.array([SHORT_TOKENS + 1], np.int64),
    )
    kinds = {
        "rows": (TensorProto.INT64, ["boundaries"]),
        "counts": (TensorProto.INT64, ["runs"]),
    }
    return graph(nodes, kinds, hidden, values)


def _runs_feeds(lengths: Sequence[int], _hidden: int) -> Feeds:
    ends = [i for i in range(1, len(lengths)) if lengths[i] != lengths[i - 1]]
    edges = np.array([0, *ends, len(lengths)])
    return {"rows": bounds(lengths)[edges], "counts": np.diff(edges).astype(np.int64)}


PACKED = {
    BASELINE: Contestant(_loop, _loop_feeds),
    "loop over runs": Contestant(_runs, _runs_feeds),
    "runs, Attention": Contestant(partial(_runs, kind="plain"), _runs_feeds),
    "runs, If by length": Contestant(partial(_runs, kind="by length"), _runs_feeds),
    OURS: Contestant(_ours, _ours_feeds),
}
