"""Attention over the padded batch: what a packed graph would have to do to use one kernel call.

::

    qkv [tokens, 3 * hidden] ──gather──> [batch, longest, …] ──attention──> ──gather──> [tokens, …]
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from bertd_export.graph.operators import FUSED_DOMAIN
from onnx import TensorProto, helper

from bertd_bench.engine.attention_graphs import Contestant, Feeds, bounds, constants, graph, mha


def _padded_parts() -> tuple[list[onnx.NodeProto], list[onnx.NodeProto]]:
    """Nodes around a padded attention: rows to [batch, longest, hidden] each, and back."""
    make = helper.make_node
    before = [
        make("Gather", ["qkv", "places"], ["padded"], axis=0),
        make("Split", ["padded"], ["q", "k", "v"], axis=2, num_outputs=3),
    ]
    after = [make("Reshape", ["ou", "flat"], ["of"]), make("Gather", ["of", "back"], ["out"])]
    return before, after


def _places(lengths: Sequence[int]) -> Feeds:
    longest, edges = max(lengths), bounds(lengths)
    column = np.arange(longest)[None]
    sizes = np.array(lengths)[:, None]
    places = edges[:-1, None] + np.minimum(column, sizes - 1)
    back = np.flatnonzero((column < sizes).ravel())
    return {"places": places.astype(np.int64), "back": back.astype(np.int64)}


_PLACES: dict[str, tuple[int, list[str]]] = {
    "places": (TensorProto.INT64, ["batch", "longest"]),
    "back": (TensorProto.INT64, ["tokens"]),
}


def _padded(hidden: int, heads: int) -> onnx.ModelProto:
    """MultiHeadAttention on the padded batch, with a mask of the keys."""
    before, after = _padded_parts()
    node = mha(hidden, heads, ["q", "k", "v", "", "sizes"], "ou")
    flat = constants(flat=np.array([-1, hidden], np.int64))
    kinds = {**_PLACES, "sizes": (TensorProto.INT32, ["batch"])}
    return graph([*before, node, *after], kinds, hidden, flat)


def _padded_feeds(lengths: Sequence[int], _hidden: int) -> Feeds:
    return {**_places(lengths), "sizes": np.array(lengths, np.int32)}


def _grouped(hidden: int, heads: int) -> onnx.ModelProto:
    """GroupQueryAttention on the padded batch, told the lengths, not causal."""
    before, after = _padded_parts()
    node = helper.make_node(
        "GroupQueryAttention",
        ["q", "k", "v", "", "", "last", "longest"],
        ["ou", "present_k", "present_v"],
        domain=FUSED_DOMAIN,
        num_heads=heads,
        kv_num_heads=heads,
        causal=0,
        scale=(hidden / heads) ** -0.5,
    )
    flat = constants(flat=np.array([-1, hidden], np.int64))
    kinds = {
        **_PLACES,
        "last": (TensorProto.INT32, ["batch"]),
        "longest": (TensorProto.INT32, [1]),
    }
    return graph([*before, node, *after], kinds, hidden, flat)


def _grouped_feeds(lengths: Sequence[int], _hidden: int) -> Feeds:
    return {
        **_places(lengths),
        "last": np.array(lengths, np.int32) - 1,
        "longest": np.array([max(lengths)], np.int32),
    }


def _standard(hidden: int, heads: int) -> onnx.ModelProto:
    """Attention of ONNX opset 23 on the padded batch, with a mask."""
    before, after = _padded_parts()
    node = helper.make_node(
        "Attention",
        ["q", "k", "v", "mask"],
        ["ou"],
        q_num_heads=heads,
        kv_num_heads=heads,
        scale=(hidden / heads) ** -0.5,
    )
    flat = constants(flat=np.array([-1, hidden], np.int64))
    kinds = {**_PLACES, "mask": (TensorProto.BOOL, ["batch", 1, "longest", "longest"])}
    return graph([*before, node, *after], kinds, hidden, flat)


def _standard_feeds(lengths: Sequence[int], _hidden: int) -> Feeds:
    longest = max(lengths)
    seen = np.arange(longest)[None] < np.array(lengths)[:, None]
    mask = np.broadcast_to(seen[:, None, None, :], (len(lengths), 1, longest, longest))
    return {**_places(lengths), "mask": np.ascontiguousarray(mask)}


PADDED = {
    "padded MultiHeadAttention": Contestant(_padded, _padded_feeds),
    "padded GroupQueryAttention": Contestant(_grouped, _grouped_feeds),
    "padded Attention": Contestant(_standard, _standard_feeds),
}
