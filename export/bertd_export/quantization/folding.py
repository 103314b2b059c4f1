"""Moves the spread of activations into weights and biases, so that one scale fits all rows.

Exact rewrites of the fp32 graph, whose outputs stay what they were::

    attention   V' = (V - c) / s     its rows are weighted means of V's
                out' = s * out       bias' = bias + c @ out
    LayerNorm   beta' = beta - c     every linear layer: bias' = bias + c @ weight
                                     the residual: the branch's bias' = bias + c
    LayerNorm without a residual, also gamma' = gamma / s, beta' = beta' / s, weight' = s * weight

with the centre ``c`` and the magnitude ``s`` of each channel. What a weight shared by several
layers (ALBERT) would have to be is not the same for all of them: it is left alone.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from bertd.bundle.arrays import Float32Array
from onnx import numpy_helper

from bertd_export.quantization.activations import smoothing
from bertd_export.quantization.linear_layers import LinearLayer, behind, is_attention

_ATTENTION_ALPHA = 0.6  # nearer to 1, unseen rows would leave the range of quiet channels


@dataclass(frozen=True)
class Range:
    """The least and the largest value of each channel, ``[channels]``."""

    low: Float32Array
    high: Float32Array

    @property
    def centre(self) -> Float32Array:
        """Half-way between the two."""
        middle: Float32Array = (self.low + self.high) / np.float32(2)
        return middle

    @property
    def magnitude(self) -> Float32Array:
        """Half the distance between the two."""
        half: Float32Array = (self.high - self.low) / np.float32(2)
        return half


class _Graph:
    """Nodes by what they make and read; weights that can be changed."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.producers = {name: node for node in graph.node for name in node.output}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}
        self._uses = Counter(name for node in graph.node for name in node.input)
        self._uses.update(output.name for output in graph.output)

    def inner(self, name: str) -> bool:
        """Whether the tensor is only read by nodes: an output's value must not change."""
        return self._uses[name] == len(self.readers.get(name, []))

    def own(self, *names: str | None) -> bool:
        """Whether each is a weight that one node alone reads."""
        return all(name in self._tensors and self._uses[name] == 1 for name in names if name)

    def __getitem__(self, name: str) -> Float32Array:
        array: Float32Array = numpy_helper.to_array(self._tensors[name])
        return array

    def __setitem__(self, name: str, value: Float32Array) -> None:
        new = numpy_helper.from_array(np.asarray(value, np.float32), name)
        self._tensors[name].CopyFrom(new)

    def bias_of_branch(self, residual: onnx.NodeProto, stream: str) -> str | None:
        """The bias that alone is added to what the stream is summed with."""
        branches = [name for name in residual.input if name != stream]
        if residual.op_type != "Sum" or len(branches) != 1 or len(residual.input) != 2:
            return None
        add = self.producers.get(branches[0])
        if add is None or add.op_type != "Add" or self._uses[branches[0]] != 1:
            return None
        biases = [name for name in add.input if name in self._tensors]
        return biases[0] if len(biases) == 1 and self.own(*biases) else None


def _fold_norm(graph: _Graph, group: Sequence[LinearLayer], seen: Range) -> None:
    source = group[0].source
    norm = graph.producers.get(source)
    if norm is None or norm.op_type != "LayerNormalization" or not graph.inner(source):
        return
    products = {linear.product for linear in group}
    residuals = [n for n in graph.readers[source] if n.output[0] not in products]
    branches = [graph.bias_of_branch(node, source) for node in residuals]
    biases = [linear.bias for linear in group]
    if None not in branches and None not in biases and len(norm.input) > 2:
        _centre(graph, norm, group, [name for name in branches if name], seen)
        seen = Range(-seen.magnitude, seen.magnitude)
    if not residuals:
        _scale(graph, norm, group, np.maximum(np.abs(seen.low), np.abs(seen.high)))


def _centre(
    graph: _Graph,
    norm: onnx.NodeProto,
    group: Sequence[LinearLayer],
    branches: list[str],
    seen: Range,
) -> None:
    """Take the centres off the rows and add what they contribute to the biases behind."""
    beta = norm.input[2]
    if not graph.own(beta, *(linear.bias for linear in group), *branches):
        return
    graph[beta] = graph[beta] - seen.centre
    for linear in group:
        if linear.bias:
            graph[linear.bias] = graph[linear.bias] + seen.centre @ graph[linear.weight]
    for bias in branches:
        graph[bias] = graph[bias] + seen.centre


def _scale(
    graph: _Graph, norm: onnx.NodeProto, group: Sequence[LinearLayer], largest: Float32Array
) -> None:
    """Divide rows that only linear layers read; their weights take it on."""
    if not graph.own(*norm.input[1:], *(linear.weight for linear in group)):
        return
    smooth = smoothing(largest, [graph[linear.weight] for linear in group])
    for name in norm.input[1:]:
        graph[name] = graph[name] / smooth
    for linear in group:
        graph[linear.weight] = graph[linear.weight] * smooth[:, None]


def _fold_attention(
    graph: _Graph, group: Sequence[LinearLayer], by_output: Mapping[str, LinearLayer], seen: Range
) -> None:
    if len(group) > 1:
        return
    linear = group[0]
    attention = behind(linear.source, graph.producers)
    if attention is None or not is_attention(attention):
        return
    width = len(seen.low)
    values = None
    for position, parts in ((0, 3), (2, 1)):
        if values is None and position < len(attention.input):
            node = behind(attention.input[position], graph.producers)
            found = by_output.get(node.output[0]) if node is not None else None
            if found and graph.own(found.weight) and graph[found.weight].shape[1] == parts * width:
                values = found
    if values is None or not values.bias or not linear.bias:
        return
    if not graph.own(values.weight, values.bias, linear.weight, linear.bias):
        return
    weight = graph[linear.weight]
    smooth = smoothing(seen.magnitude, [weight], _ATTENTION_ALPHA)
    before = graph[values.weight].shape[1] - width  # q and k, where one product makes all three
    divisor = np.concatenate([np.ones(before, np.float32), smooth])
    centre = np.concatenate([np.zeros(before, np.float32), seen.centre])
    graph[values.weight] = graph[values.weight] / divisor
    graph[values.bias] = (graph[values.bias] - centre) / divisor
    graph[linear.bias] = graph[linear.bias] + seen.centre @ weight
    graph[linear.weight] = weight * smooth[:, None]


def fold(
    graph: onnx.GraphProto, linears: Sequence[LinearLayer], ranges: Mapping[str, Range]
) -> None:
    """Fold what can be folded, in place.

    Args:
        graph: fp32, with its weights in memory.
        linears: its linear layers.
        ranges: of the tensors that they read, by name.
    """
    wrapped = _Graph(graph)
    by_output = {linear.output: linear for linear in linears}
    groups: dict[str, list[LinearLayer]] = {}
    for linear in linears:
        groups.setdefault(linear.source, []).append(linear)
    for source, group in groups.items():
        if group[0].producer == "LayerNormalization":
            _fold_norm(wrapped, group, ranges[source])
        elif group[0].producer == "Attention":
            _fold_attention(wrapped, group, by_output, ranges[source])
