"""Finds the linear layers of a packed graph and names them by layer and role."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import onnx
from onnx import numpy_helper

from bertd_export.graph.operators import DOMAIN

_SHAPE_ONLY = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Identity"})


@dataclass(frozen=True)
class LinearLayer:
    """A MatMul with a constant weight, and the constant bias that is added to it, if any.

    Attributes:
        name: ``layer.N.ROLE``; what ``--keep-fp32`` patterns are matched against. The roles are
            ``qkv``, ``attention_output``, ``ffn_up`` and ``ffn_down``.
        source: the tensor that it reads.
        product: the MatMul's output.
        weight: its weight, ``[inputs, outputs]``.
        bias: its bias, ``[outputs]``.
        output: what the graph reads of it: the Add's output where there is one.
        producer: operator that computed the source, shapes aside.
        widened: where the source is an activation of one tensor that nothing else reads, as
            nothing else reads the source: that tensor. Channels can be appended to it.
    """

    name: str
    source: str
    product: str
    weight: str
    bias: str | None
    output: str
    producer: str
    widened: str | None = None


def is_attention(node: onnx.NodeProto) -> bool:
    """Whether it is one of the functions that compute attention."""
    return node.domain == DOMAIN and "Attention" in node.op_type


def _roles(nodes: Iterable[onnx.NodeProto], products: set[str]) -> dict[str, str]:
    """Names by MatMul output, from the order of the nodes: the trace keeps that of the model.

    Before attention stand the projections of one tensor, after it the output projection, then
    those of the feed-forward part. All else (embeddings, heads) has no name.
    """
    names: dict[str, str] = {}
    layer = -1
    pending: list[onnx.NodeProto] = []  # linears since the last named one
    stage = ("attention_output", "ffn_up", "ffn_down")
    step, source = len(stage), ""
    for node in nodes:
        if is_attention(node):
            layer += 1
            projections = [n for n in pending if n.input[0] == pending[-1].input[0]]
            for number, projection in enumerate(projections):
                role = "qkv" if len(projections) == 1 else f"qkv.{number}"
                names[projection.output[0]] = f"layer.{layer}.{role}"
            pending, step, source = [], 0, ""
        elif node.op_type == "MatMul" and node.output[0] in products:
            beside = node.input[0] == source  # a gate beside the first projection
            if step < len(stage) or beside:
                if not beside:
                    step += 1
                role = stage[step - 1] + (".gate" if beside else "")
                names[node.output[0]] = f"layer.{layer}.{role}"
                source = node.input[0] if stage[step - 1] == "ffn_up" else ""
            else:
                pending.append(node)
    return names


def behind(name: str, producers: Mapping[str, onnx.NodeProto]) -> onnx.NodeProto | None:
    """The node that computed a tensor, shapes aside; None for an input of the graph."""
    node = producers.get(name)
    while node is not None and node.op_type in _SHAPE_ONLY:
        node = producers.get(node.input[0])
    return node


def _producer(name: str, producers: Mapping[str, onnx.NodeProto]) -> str:
    node = behind(name, producers)
    if node is None:
        return ""
    return "Attention" if is_attention(node) else node.op_type


def find_linears(graph: onnx.GraphProto) -> list[LinearLayer]:
    """The linear layers inside the encoder's layers, in the graph's order.

    Embeddings and heads are left out: they are small or sensitive, and stay in fp32.
    """
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}
    consumers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    products = {
        node.output[0]: node
        for node in graph.node
        if node.op_type == "MatMul"
        and node.input[1] in tensors
        and len(tensors[node.input[1]].dims) == 2
        and tensors[node.input[1]].data_type == onnx.TensorProto.FLOAT
    }
    linears = []
    for product, name in _roles(graph.node, set(products)).items():
        node = products[product]
        bias, output = None, product
        readers = consumers.get(product, [])
        if len(readers) == 1 and readers[0].op_type == "Add":
            vectors = [x for x in readers[0].input if x in tensors and len(tensors[x].dims) == 1]
            if len(vectors) == 1:
                bias, output = vectors[0], readers[0].output[0]
        source = node.input[0]
        activation = producers.get(source)
        widened = None
        if activation is not None and len(activation.input) == 1 and len(consumers[source]) == 1:
            before = activation.input[0]
            widened = before if len(consumers[before]) == 1 else None
        linears.append(
            LinearLayer(
                name=name,
                source=source,
                product=product,
                weight=node.input[1],
                bias=bias,
                output=output,
                producer=_producer(source, producers),
                widened=widened,
            )
        )
    return linears


def share_equal_weights(graph: onnx.GraphProto) -> None:
    """Keep one of each matrix that the graph has several times over.

    The tracer writes a small transposed weight once for each layer that uses it, though in ALBERT
    all layers use the same. The weights must be in memory.
    """
    first: dict[bytes, str] = {}
    renamed: dict[str, str] = {}
    for tensor in [t for t in graph.initializer if len(t.dims) == 2]:
        content = hashlib.sha256(numpy_helper.to_array(tensor).tobytes())
        content.update(f"{tensor.data_type} {list(tensor.dims)}".encode())
        kept = first.setdefault(content.digest(), tensor.name)
        if kept != tensor.name:
            renamed[tensor.name] = kept
            graph.initializer.remove(tensor)
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = renamed.get(name, name)


def split_residual_biases(graph: onnx.GraphProto) -> None:
    """Write ``Sum(stream, product, bias)`` as ``Sum(stream, product + bias)``.

    An int8 product adds its bias while it converts to float, at no extra pass over memory.
    """
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}
    ordered: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type == "Sum":
            biases = [x for x in node.input if x in tensors and len(tensors[x].dims) == 1]
            products = [x for x in node.input if x in producers]
            products = [x for x in products if producers[x].op_type == "MatMul"]
            if len(biases) == 1 and len(products) == 1:
                total = f"{products[0]}/biased"
                add = onnx.helper.make_node("Add", [products[0], biases[0]], [total])
                rest = [x for x in node.input if x not in {products[0], biases[0]}]
                ordered.append(add)
                del node.input[:]
                node.input.extend([*rest, total])
        ordered.append(onnx.NodeProto.FromString(node.SerializeToString()))
    del graph.node[:]
    graph.node.extend(ordered)
