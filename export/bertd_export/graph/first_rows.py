"""Rewrite: what only the first token of each sequence needs is computed for first tokens alone.

A head that reads `[CLS]` leaves a ``FirstRows`` mark in the trace. Everything between the mark
and the last attention works row by row, so rows can be chosen before it as well as after it::

    q ──> attention ──> projection, FFN ──> FirstRows ──> head        all rows until the mark
    q ──> rows ──> attention ──> projection, FFN ──> head             first rows only

Keys and values of the last attention still come from all rows: the result is the same.
"""

from collections.abc import Callable
from typing import cast

import numpy as np
import onnx_ir as ir

from bertd_export.graph.operators import FIRST_ROWS, PACKED_ATTENTION, PACKED_FIRST_ATTENTION

TOKENS = "tokens"
"""Name of the axis, in the trace, that holds all tokens of a batch."""

_SEQUENCES = "sequences"
_ELEMENTWISE = frozenset(
    {
        "Add",
        "Cast",
        "Clip",
        "Cos",
        "Div",
        "Erf",
        "Exp",
        "Gelu",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "Mul",
        "Neg",
        "Pow",
        "Reciprocal",
        "Relu",
        "Sigmoid",
        "Sin",
        "Softplus",
        "Sqrt",
        "Sub",
        "Sum",
        "Tanh",
    }
)


def _size(dimension: int | ir.SymbolicDim) -> int | str | None:
    return dimension if isinstance(dimension, int) else dimension.value


def _dims(value: ir.Value) -> list[int | str | None]:
    return [] if value.shape is None else [_size(d) for d in value.shape]


def _axis(value: ir.Value | None) -> int | None:
    """The axis of a value that counts tokens; None where there is none, or it is not clear."""
    if value is None:
        return None
    found = [index for index, size in enumerate(_dims(value)) if size == TOKENS]
    return found[0] if len(found) == 1 else None


def _attribute(node: ir.Node, default: int) -> int:
    attribute = node.attributes.get("axis")
    return default if attribute is None else attribute.as_int()


def _behind(value: ir.Value, axis: int) -> int | None:
    """How many numbers a row holds behind the token axis; None if that is not fixed."""
    sizes = _dims(value)[axis + 1 :]
    if not all(isinstance(size, int) for size in sizes):
        return None
    return int(np.prod(cast("list[int]", sizes), initial=1))


def _keeps_rows(value: ir.Value, axis: int, out: ir.Value, out_axis: int) -> bool:
    """Whether a Reshape leaves rows whole, and its result has no other open size."""
    others = [size for index, size in enumerate(_dims(out)) if index != out_axis]
    width = _behind(value, axis)
    fixed = all(isinstance(size, int) for size in others)
    return fixed and width is not None and width == _behind(out, out_axis)


def _row_wise(node: ir.Node) -> bool:
    """Whether each row of the output depends on the same row of the inputs alone."""
    out = node.outputs[0]
    shapes_known = all(value is None or value.shape is not None for value in node.inputs)
    out_axis = _axis(out)
    if out_axis is None or any(_axis(o) != out_axis for o in node.outputs) or not shapes_known:
        return False
    out_rank = len(_dims(out))
    rows = [(value, axis) for value in node.inputs if (axis := _axis(value)) is not None]
    if node.op_type in _ELEMENTWISE:
        return all(len(_dims(cast("ir.Value", v))) - a == out_rank - out_axis for v, a in rows)
    if len(rows) != 1 or rows[0][0] is not node.inputs[0]:
        return False
    value, axis = cast("ir.Value", rows[0][0]), rows[0][1]
    rank = len(_dims(value))
    rules: dict[str, Callable[[], bool]] = {
        "MatMul": lambda: axis == rank - 2 and out_axis == out_rank - 2,
        "Gemm": lambda: axis == 0 and "transA" not in node.attributes,
        "Gather": lambda: _attribute(node, 0) % rank != axis,
        "LayerNormalization": lambda: _attribute(node, -1) % rank > axis,
        "Split": lambda: _attribute(node, 0) % rank != axis,
        "Squeeze": lambda: True,
        "Transpose": lambda: True,
        "Unsqueeze": lambda: True,
        "Reshape": lambda: _keeps_rows(value, axis, out, out_axis),
    }
    rule = rules.get(node.op_type)
    return rule is not None and rule()


def _movable(graph: ir.Graph, mark: ir.Node) -> list[ir.Node]:
    """The nodes, in order, whose results reach nothing but the mark and can be made row by row."""
    chosen: dict[ir.Node, None] = {}
    results = set(graph.outputs)

    def only_for_mark(value: ir.Value) -> bool:
        return value not in results and all(
            use.node is mark
            or (use.node in chosen and (use.node.op_type != PACKED_ATTENTION or use.idx == 0))
            for use in value.uses()
        )

    for node in reversed(list(graph)):
        read = any(output.uses() for output in node.outputs)
        if node is mark or not read or not all(map(only_for_mark, node.outputs)):
            continue
        if node.op_type == PACKED_ATTENTION or _row_wise(node):
            chosen[node] = None
    return list(reversed(chosen))


def _constant(graph: ir.Graph, name: str, numbers: list[int]) -> ir.Value:
    tensor = ir.tensor(np.array(numbers, np.int64), name=name)
    value = ir.Value(
        name=name,
        const_value=tensor,
        type=ir.TensorType(ir.DataType.INT64),
        shape=ir.Shape([len(numbers)]),
    )
    graph.register_initializer(value)
    return value


def _renamed(value: ir.Value) -> ir.Shape:
    return ir.Shape([_SEQUENCES if size == TOKENS else size for size in _dims(value)])


class _Gathers:
    """Gathers the first rows of values, each value once."""

    def __init__(self, graph: ir.Graph, cu_seqlens: ir.Value) -> None:
        self._graph = graph
        zero = _constant(graph, "first_rows_zero", [0])
        end = _constant(graph, "first_rows_end", [-1])
        node = ir.node("Slice", [cu_seqlens, zero, end, zero])
        self._rows = node.outputs[0]
        self._rows.name = "first_rows"
        graph.insert_before(graph[0], node)
        self._made: dict[ir.Value, ir.Value] = {}

    def take(self, value: ir.Value, before: ir.Node) -> ir.Value:
        """The value's first rows, computed before a node."""
        axis = _axis(value)
        if value not in self._made:
            node = ir.node("Gather", [value, self._rows], {"axis": axis})
            node.outputs[0].name = f"{value.name}_first"
            node.outputs[0].type = value.type
            node.outputs[0].shape = _renamed(value)
            self._graph.insert_before(before, node)
            self._made[value] = node.outputs[0]
        return self._made[value]


def resolve_first_rows(model: ir.Model, *, early: bool = True) -> int:
    """Replace the ``FirstRows`` mark, if there is one, by a choice of rows as early as possible.

    Where the way back to the last attention is not plainly row by row, the rows are chosen at
    the mark, which is right as well and only slower.

    Args:
        model: the traced model; changed in place.
        early: False chooses the rows at the mark in any case, to show what an early choice saves.

    Returns:
        How many nodes now compute first rows only.
    """
    graph = model.graph
    marks = [node for node in graph if node.op_type == FIRST_ROWS]
    if not marks:
        return 0
    (mark,) = marks
    rows, cu_seqlens = (cast("ir.Value", value) for value in mark.inputs)
    moved = _movable(graph, mark) if early else []
    if not any(node.op_type == PACKED_ATTENTION for node in moved):
        moved = []
    gathers = _Gathers(graph, cu_seqlens)
    inside = {output for node in moved for output in node.outputs}
    for node in moved:
        for index, value in enumerate(node.inputs):
            keys_or_values = node.op_type == PACKED_ATTENTION and index > 0
            if value is None or value in inside or keys_or_values or _axis(value) is None:
                continue
            node.replace_input_with(index, gathers.take(value, node))
    for node in moved:
        if node.op_type == PACKED_ATTENTION:
            node.op_type = PACKED_FIRST_ATTENTION
        if node.op_type == "Reshape":
            sizes = [size if isinstance(size, int) else -1 for size in _dims(node.outputs[0])]
            name = f"{node.outputs[0].name}_first_shape"
            node.replace_input_with(1, _constant(graph, name, sizes))
        for output in node.outputs:
            output.shape = _renamed(output)
    replacement = rows if moved else gathers.take(rows, mark)
    mark.outputs[0].replace_all_uses_with(replacement)
    graph.remove(mark, safe=True)
    return len(moved)
