"""Which nodes of a graph stay in fp32 where the others become fp16.

A node stays in fp32 where

- a value or a weight of its could leave fp16's range: it was seen within a factor of four of it;
- it computes with positions: fp16 counts in whole numbers only up to 2048;
- it follows the last hidden state of an embedding: the Euclidean norm squares its values, and
  the work there is small.

LayerNormalization and softmax need no exception: their kernels compute in fp32 inside, and with
their results in fp32 the cosine hardly changed (docs/lab/research.md).
"""

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from bertd.bundle import TOKEN_EMBEDDINGS
from onnx import TensorProto, numpy_helper

from bertd_export.checkpoint.loading import Checkpoint
from bertd_export.checkpoint.texts import TokenizedText
from bertd_export.graph.runtime import session
from bertd_export.graph.saving import save_copy
from bertd_export.parity.packed_batch import feed_of
from bertd_export.quantization.fp16_graph import LARGEST

_HEADROOM = 4  # by how much another text's values may exceed those seen


@dataclass(frozen=True)
class Magnitudes:
    """The largest absolute value of each float32 value of a graph, weights included."""

    values: dict[str, float]
    weights: dict[str, float]

    def large(self, node: onnx.NodeProto) -> bool:
        """Whether a value that a node makes or reads, or a weight, could leave fp16's range."""
        values = max((self.values.get(x, 0.0) for x in (*node.input, *node.output)), default=0.0)
        weights = max((self.weights.get(name, 0.0) for name in node.input), default=0.0)
        return values * _HEADROOM > LARGEST or weights > LARGEST


def measure_magnitudes(
    graph: onnx.ModelProto, path: Path, checkpoint: Checkpoint, texts: list[TokenizedText]
) -> Magnitudes:
    """Run the graph with every value as an output."""
    probe = deepcopy(graph)
    known = {output.name for output in probe.graph.output}
    for node in probe.graph.node:
        names = [name for name in node.output if name and name not in known]
        probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    save_copy(probe, path)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # keeps values
    run = session(path, options)
    floats = [entry.name for entry in run.get_outputs() if entry.type == "tensor(float)"]
    values = dict.fromkeys(floats, 0.0)
    for text in texts:  # one at a time: all values of a batch would fill the memory
        for name, value in zip(
            floats, run.run(floats, feed_of(run, checkpoint, [text])), strict=True
        ):
            values[name] = max(values[name], float(np.abs(value).max(initial=0.0)))
    weights = {
        tensor.name: float(np.abs(numpy_helper.to_array(tensor)).max(initial=0.0))
        for tensor in graph.graph.initializer
        if tensor.data_type == TensorProto.FLOAT
    }
    return Magnitudes(values, weights)


def _behind(nodes: Iterable[onnx.NodeProto], names: set[str]) -> set[str]:
    """The values that these are computed from, themselves included."""
    found = set(names)
    for node in reversed(list(nodes)):
        if found.intersection(node.output):
            found.update(node.input)
    return found


def exceptions(
    graph: onnx.GraphProto, magnitudes: Magnitudes
) -> tuple[set[str], list[onnx.NodeProto]]:
    """First outputs of the nodes that stay in fp32, and those nodes that range alone keeps."""
    excepted: set[str] = set()
    floats = magnitudes.values.keys()
    for node in graph.node:
        read = [name for name in node.input if name in floats]
        from_integers = node.op_type == "Cast" and not read
        if from_integers or (read and excepted.issuperset(read)):
            excepted.add(node.output[0])
    outputs = {output.name for output in graph.output}
    if TOKEN_EMBEDDINGS in outputs:
        encoder = _behind(graph.node, {TOKEN_EMBEDDINGS})
        excepted |= {node.output[0] for node in graph.node if node.output[0] not in encoder}
    large = [
        node for node in graph.node if magnitudes.large(node) and node.output[0] not in excepted
    ]
    return excepted | {node.output[0] for node in large}, large
