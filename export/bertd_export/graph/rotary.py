"""Rewrites rotary positions as one operator instead of a dozen per layer.

::

    x * cos + concat(-x[D/2:], x[:D/2]) * sin      x is [1, heads, tokens, D]

becomes ONNX Runtime's RotaryEmbedding on rows `[1, tokens, heads * D]`. Its tables of cosines and
sines are indexed by position; ours have one row for each packed token, so the index is the token's
place in the batch.
"""

from typing import NamedTuple

import numpy as np
import onnx
from onnx import helper, numpy_helper

from bertd_export.graph.operators import FUSED_DOMAIN

_HEADS_LAST = [0, 2, 1, 3]


class _Rotation(NamedTuple):
    rows: str  # [1, tokens, heads, D]
    cosines: str  # [1, tokens, D], both halves equal
    sines: str
    width: int  # D


class _Graph:
    """Looks things up in a graph."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.producers = {name: node for node in graph.node for name in node.output}
        self.weights = {tensor.name: tensor for tensor in graph.initializer}

    def made_by(self, name: str, operator: str) -> onnx.NodeProto | None:
        node = self.producers.get(name)
        return node if node is not None and node.op_type == operator else None

    def integers(self, name: str) -> list[int]:
        tensor = self.weights.get(name)
        return [] if tensor is None else numpy_helper.to_array(tensor).reshape(-1).tolist()

    def angles(self, name: str, operator: str) -> str | None:
        """The `[1, tokens, D]` behind an Unsqueeze, if its two halves are the same numbers."""
        unsqueeze = self.made_by(name, "Unsqueeze")
        function = self.made_by(unsqueeze.input[0], operator) if unsqueeze else None
        halves = self.made_by(function.input[0], "Concat") if function else None
        if unsqueeze is None or halves is None or len(halves.input) != 2:
            return None
        return unsqueeze.input[0] if halves.input[0] == halves.input[1] else None

    def rotation(self, add: onnx.NodeProto) -> _Rotation | None:
        """What an Add computes, if that is a rotation."""
        straight, turned = (self.made_by(name, "Mul") for name in add.input)
        if straight is None or turned is None:
            return None
        cosines = self.angles(straight.input[1], "Cos")
        sines = self.angles(turned.input[1], "Sin")
        halves = self.made_by(turned.input[0], "Concat")
        heads_first = self.made_by(straight.input[0], "Transpose")
        if cosines is None or sines is None or halves is None or heads_first is None:
            return None
        negated = self.made_by(halves.input[0], "Neg")
        upper = self.made_by(negated.input[0], "Slice") if negated else None
        lower = self.made_by(halves.input[1], "Slice")
        if upper is None or lower is None:
            return None
        starts = [self.integers(part.input[1]) for part in (lower, upper)]
        half = self.integers(lower.input[2])
        same = lower.input[0] == upper.input[0] == straight.input[0]
        if not same or starts != [[0], half] or list(heads_first.attribute[0].ints) != _HEADS_LAST:
            return None
        return _Rotation(heads_first.input[0], cosines, sines, 2 * half[0])


def _tables(rotation: _Rotation, prefix: str) -> list[onnx.NodeProto]:
    """Cosines and sines, `[tokens, D / 2]`, and the numbers of the tokens, `[1, tokens]`."""
    half = rotation.width // 2
    nodes = []
    for kind, source in (("cos", rotation.cosines), ("sin", rotation.sines)):
        nodes += [
            _constant(f"{prefix}_{kind}_split", [half, half]),
            helper.make_node(
                "Split",
                [source, f"{prefix}_{kind}_split"],
                [f"{prefix}_{kind}_half", f"{prefix}_{kind}_rest"],
                axis=2,
            ),
            _constant(f"{prefix}_{kind}_shape", [-1, half]),
            helper.make_node(
                "Reshape",
                [f"{prefix}_{kind}_half", f"{prefix}_{kind}_shape"],
                [f"{prefix}_{kind}"],
            ),
        ]
    return [
        *nodes,
        helper.make_node("Shape", [rotation.cosines], [f"{prefix}_count1"], start=1, end=2),
        helper.make_node("Squeeze", [f"{prefix}_count1"], [f"{prefix}_count"]),
        _constant(f"{prefix}_zero", 0),
        _constant(f"{prefix}_one", 1),
        helper.make_node(
            "Range", [f"{prefix}_{x}" for x in ("zero", "count", "one")], [f"{prefix}_numbers1"]
        ),
        _constant(f"{prefix}_first", [0]),
        helper.make_node(
            "Unsqueeze", [f"{prefix}_numbers1", f"{prefix}_first"], [f"{prefix}_numbers"]
        ),
    ]


def _constant(name: str, value: int | list[int]) -> onnx.NodeProto:
    tensor = numpy_helper.from_array(np.array(value, np.int64))
    return helper.make_node("Constant", [], [name], value=tensor)


def fuse_rotary(model: onnx.ModelProto) -> int:
    """Rewrite every rotation that is found; what it leaves unread, later rewrites remove.

    Returns:
        How many rotations were rewritten.
    """
    graph = model.graph
    view = _Graph(graph)
    tables: dict[str, str] = {}
    nodes: list[onnx.NodeProto] = []
    rewritten = 0
    for node in graph.node:
        rotation = view.rotation(node) if node.op_type == "Add" else None
        if rotation is None:
            nodes.append(onnx.NodeProto.FromString(node.SerializeToString()))
            continue
        if rotation.cosines not in tables:
            tables[rotation.cosines] = f"rotary_table_{len(tables)}"
            nodes += _tables(rotation, tables[rotation.cosines])
        table, name = tables[rotation.cosines], f"rotary_{rewritten}"
        nodes += [
            _constant(f"{name}_rows", [0, 0, -1]),
            helper.make_node("Reshape", [rotation.rows, f"{name}_rows"], [f"{name}_in"]),
            helper.make_node(
                "RotaryEmbedding",
                [f"{name}_in", f"{table}_numbers", f"{table}_cos", f"{table}_sin"],
                [f"{name}_out"],
                domain=FUSED_DOMAIN,
            ),
            _constant(f"{name}_heads", [0, 0, -1, rotation.width]),
            helper.make_node("Reshape", [f"{name}_out", f"{name}_heads"], [f"{name}_split"]),
            helper.make_node("Transpose", [f"{name}_split"], [node.output[0]], perm=_HEADS_LAST),
        ]
        rewritten += 1
    del graph.node[:]
    graph.node.extend(nodes)
    return rewritten
