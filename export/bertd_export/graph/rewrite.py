"""Rewrites of the traced graph: one projection for q, k and v; residuals; names of outputs."""

from collections import Counter
from typing import NamedTuple

import numpy as np
import onnx
from onnx import helper, numpy_helper

from bertd_export.graph.operators import PACKED_ATTENTION, PACKED_BIASED_ATTENTION

_SHAPE_ONLY = frozenset({"Reshape", "Transpose", "Squeeze", "Unsqueeze"})


class _Projection(NamedTuple):
    source: str
    weight: str
    bias: str | None


def _projection(
    name: str, producers: dict[str, onnx.NodeProto], constants: set[str]
) -> _Projection | None:
    """The linear layer behind an input of attention, or None where there is something else."""
    node = producers.get(name)
    while node is not None and node.op_type in _SHAPE_ONLY:
        node = producers.get(node.input[0])
    bias = None
    if node is not None and node.op_type == "Add":
        biases = [x for x in node.input if x in constants]
        others = [x for x in node.input if x not in constants]
        if len(biases) != 1:
            return None
        bias = biases[0]
        node = producers.get(others[0])
    if node is None or node.op_type != "MatMul" or node.input[1] not in constants:
        return None
    return _Projection(node.input[0], node.input[1], bias)


def _merge(
    plan: list[_Projection], weights: dict[str, onnx.TensorProto], prefix: str
) -> list[onnx.TensorProto]:
    """The weight, the bias and the shape of one projection in place of those of the plan."""
    matrices = [numpy_helper.to_array(weights[p.weight]) for p in plan]
    weight = np.concatenate(matrices, axis=1)
    biases = [
        np.zeros(m.shape[1], m.dtype) if p.bias is None else numpy_helper.to_array(weights[p.bias])
        for p, m in zip(plan, matrices, strict=True)
    ]
    return [
        numpy_helper.from_array(weight, f"{prefix}_weight"),
        numpy_helper.from_array(np.concatenate(biases), f"{prefix}_bias"),
        numpy_helper.from_array(np.array([-1, weight.shape[1]], np.int64), f"{prefix}_shape"),
    ]


def fold_transposes(model: onnx.ModelProto) -> int:
    """Store transposed what the graph transposes: the tracer leaves large shared weights alone.

    ALBERT's layers share theirs. A weight that something else reads too, such as an embedding that
    is also the decoder of masks, stays: it would be stored twice.

    Returns:
        How many weights were transposed.
    """
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    folded: dict[str, str] = {}  # output of a Transpose -> weight
    for name, tensor in weights.items():
        transposes = readers.get(name, [])
        orders = {
            tuple(node.attribute[0].ints) if node.op_type == "Transpose" and node.attribute else ()
            for node in transposes
        }
        if orders != {(1, 0)}:
            continue
        turned = np.ascontiguousarray(numpy_helper.to_array(tensor).T)
        tensor.CopyFrom(numpy_helper.from_array(turned, name))
        folded.update((node.output[0], name) for node in transposes)
    for node in graph.node:
        if node.output[0] not in folded:
            node.input[:] = [folded.get(name, name) for name in node.input]
    _prune(graph)
    return len(set(folded.values()))


def merge_qkv(model: onnx.ModelProto) -> bool:
    """Make one matrix product of the three before each attention, in all layers or in none.

    Returns:
        Whether attention now takes one ``qkv`` tensor.
    """
    graph = model.graph
    producers = {name: node for node in graph.node for name in node.output}
    weights = {tensor.name: tensor for tensor in graph.initializer}
    kinds = (PACKED_ATTENTION, PACKED_BIASED_ATTENTION)
    layers = [node for node in graph.node if node.op_type in kinds]
    plans: list[list[_Projection]] = []
    for layer in layers:
        found = [_projection(name, producers, set(weights)) for name in layer.input[:3]]
        plan = [projection for projection in found if projection is not None]
        if len(plan) != 3 or len({projection.source for projection in plan}) != 1:
            return False
        if len({numpy_helper.to_array(weights[p.weight]).shape for p in plan}) != 1:
            return False
        plans.append(plan)
    before: dict[str, list[onnx.NodeProto]] = {}
    merged: dict[tuple[tuple[str, str | None], ...], str] = {}
    for number, (layer, plan) in enumerate(zip(layers, plans, strict=True)):
        prefix = f"qkv_{number}"
        key = tuple((p.weight, p.bias) for p in plan)
        if key not in merged:  # ALBERT's layers share their weights
            merged[key] = prefix
            graph.initializer.extend(_merge(plan, weights, prefix))
        shared = merged[key]
        last = f"{prefix}_product"
        nodes = [helper.make_node("MatMul", [plan[0].source, f"{shared}_weight"], [last])]
        if any(p.bias is not None for p in plan):
            nodes.append(helper.make_node("Add", [last, f"{shared}_bias"], [f"{prefix}_sum"]))
            last = f"{prefix}_sum"
        nodes.append(helper.make_node("Reshape", [last, f"{shared}_shape"], [prefix]))
        before[layer.output[0]] = nodes
        layer.input[:] = [prefix, *layer.input[3:]]
    ordered = [new for node in list(graph.node) for new in (*before.get(node.output[0], ()), node)]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in ordered]
    del graph.node[:]
    graph.node.extend(copies)
    _prune(graph)
    return bool(layers)


def sum_residuals(model: onnx.ModelProto) -> int:
    """Write each residual before a LayerNormalization as one Sum of stream, branch and bias.

    ONNX Runtime would fuse the Add into SkipLayerNormalization, which on a CPU takes two to six
    times as long as Add and LayerNormalization (1.32, docs/lab/research.md). It leaves Sum alone.

    Returns:
        How many residuals were rewritten.
    """
    graph = model.graph
    producers = {name: node for node in graph.node for name in node.output}
    vectors = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 1}
    uses = Counter(name for node in graph.node for name in node.input)
    rewritten = 0
    for node in graph.node:
        residual = producers.get(node.input[0]) if node.op_type == "LayerNormalization" else None
        if residual is None or residual.op_type != "Add":
            continue
        residual.op_type = "Sum"
        rewritten += 1
        for index, name in enumerate(list(residual.input)):
            branch = producers.get(name)
            if branch is not None and branch.op_type == "Add" and uses[name] == 1:
                biases = [operand for operand in branch.input if operand in vectors]
                if len(biases) == 1:
                    (value,) = (operand for operand in branch.input if operand not in vectors)
                    residual.input[index] = value
                    residual.input.append(biases[0])
    _prune(graph)
    return rewritten


def _prune(graph: onnx.GraphProto) -> None:
    """Remove the nodes and the weights that nothing reads."""
    needed = {output.name for output in graph.output}
    kept: list[onnx.NodeProto] = []
    for node in reversed(list(graph.node)):  # nodes are sorted: readers come after producers
        if any(name in needed for name in node.output):
            kept.append(onnx.NodeProto.FromString(node.SerializeToString()))
            needed.update(node.input)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    for tensor in [t for t in graph.initializer if t.name not in needed]:
        graph.initializer.remove(tensor)


def drop_metadata(model: onnx.ModelProto) -> None:
    """Remove what the tracer notes of itself: stack traces, which hold paths of this machine."""
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for tensor in model.graph.initializer:
        del tensor.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output):
        del value.metadata_props[:]


def drop_unused_inputs(model: onnx.ModelProto) -> None:
    """Remove the inputs that nothing reads, such as the token types of DistilBERT."""
    graph = model.graph
    read = {name for node in graph.node for name in node.input}
    for entry in [entry for entry in graph.input if entry.name not in read]:
        graph.input.remove(entry)


def name_outputs(model: onnx.ModelProto, names: list[str]) -> None:
    """Give the outputs their names; whatever inside the graph has such a name gets another."""
    graph = model.graph
    renames: dict[str, str] = {}
    current = [output.name for output in graph.output]
    produced = {name for node in graph.node for name in node.output}
    produced |= {tensor.name for tensor in graph.initializer}
    for name in names:
        if name in produced and name not in current:
            renames[name] = f"{name}__inner"
    renames.update(zip(current, names, strict=True))
    for node in graph.node:
        for field in (node.input, node.output):
            for index, name in enumerate(field):
                field[index] = renames.get(name, name)
    for tensor in graph.initializer:
        tensor.name = renames.get(tensor.name, tensor.name)
    for output, name in zip(graph.output, names, strict=True):
        output.name = name
    del graph.value_info[:]
