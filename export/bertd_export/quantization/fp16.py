"""From the packed fp32 graph to an fp16 one for accelerators, or a refusal.

::

    fp32 graph ──calibration texts──> largest value of each node ──> which nodes stay in fp32
               ──> fp16 graph, and its rounding in fp32 arithmetic ──> cosine to fp32 ──> gate

A node stays in fp32 where

- a value or a weight of its could leave fp16's range: it was seen within a factor of four of it;
- it computes with positions: fp16 counts in whole numbers only up to 2048;
- it follows the last hidden state of an embedding: the Euclidean norm squares its values, and
  the work there is small.

LayerNormalization and softmax need no exception: their kernels compute in fp32 inside, and with
their results in fp32 the cosine hardly changed (docs/lab/research.md).
"""

import tempfile
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from bertd.bundle import GRAPH_NAME, TOKEN_EMBEDDINGS, Evaluation, HalfPrecision, Parity
from onnx import TensorProto, numpy_helper

from bertd_export.checkpoint.loading import Checkpoint
from bertd_export.errors import ExportError, shortened
from bertd_export.evaluation.evaluator import Evaluator
from bertd_export.graph.runtime import session
from bertd_export.graph.saving import save_graph
from bertd_export.parity.agreement import CosineScores, agreement, logit_agreement
from bertd_export.parity.answers import answers, judged
from bertd_export.parity.cases import TokenizedText
from bertd_export.parity.parity import TextOutputs, feed_of, measure
from bertd_export.quantization.calibration import read_sample, tokenized
from bertd_export.quantization.fp16_graph import LARGEST, rounding, to_half

DEFAULT_MIN_COSINE = 0.9999
ON_A_CPU = (
    "fp16 is for accelerators: a CPU converts it to fp32 and is no faster than with an fp32 bundle"
)
_HEADROOM = 4  # by how much another text's values may exceed those seen
_ROOM = 2.0  # by how much an accelerator's differences may exceed those of the rounding
_WORST = 3


@dataclass(frozen=True)
class Fp16Options:
    """What the user asks of fp16.

    Attributes:
        calibration: file of texts; None for the built-in ones.
        min_cosine: least mean cosine between fp16 and fp32 on them.
    """

    calibration: Path | None = None
    min_cosine: float = DEFAULT_MIN_COSINE


@dataclass(frozen=True)
class _Ranges:
    """The largest absolute value of each float32 value of a graph, weights included."""

    values: dict[str, float]
    weights: dict[str, float]

    def large(self, node: onnx.NodeProto) -> bool:
        """Whether a value that a node makes or reads, or a weight, could leave fp16's range."""
        values = max((self.values.get(x, 0.0) for x in (*node.input, *node.output)), default=0.0)
        weights = max((self.weights.get(name, 0.0) for name in node.input), default=0.0)
        return values * _HEADROOM > LARGEST or weights > LARGEST


def _ranges(
    graph: onnx.ModelProto, path: Path, checkpoint: Checkpoint, texts: list[TokenizedText]
) -> _Ranges:
    """Run the graph with every value as an output."""
    probe = deepcopy(graph)
    known = {output.name for output in probe.graph.output}
    for node in probe.graph.node:
        names = [name for name in node.output if name and name not in known]
        probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    _save(probe, path)
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
    return _Ranges(values, weights)


def _save(model: onnx.ModelProto, path: Path) -> None:
    copy = deepcopy(model)  # saving empties the tensors
    save_graph(copy, path, f"{path.name}.data")


def _behind(nodes: Iterable[onnx.NodeProto], names: set[str]) -> set[str]:
    """The values that these are computed from, themselves included."""
    found = set(names)
    for node in reversed(list(nodes)):
        if found.intersection(node.output):
            found.update(node.input)
    return found


def _exceptions(graph: onnx.GraphProto, ranges: _Ranges) -> tuple[set[str], list[onnx.NodeProto]]:
    """First outputs of the nodes that stay in fp32, and those nodes that range alone keeps."""
    excepted: set[str] = set()
    floats = ranges.values.keys()
    for node in graph.node:
        read = [name for name in node.input if name in floats]
        from_integers = node.op_type == "Cast" and not read
        if from_integers or (read and excepted.issuperset(read)):
            excepted.add(node.output[0])
    outputs = {output.name for output in graph.output}
    if TOKEN_EMBEDDINGS in outputs:
        encoder = _behind(graph.node, {TOKEN_EMBEDDINGS})
        excepted |= {node.output[0] for node in graph.node if node.output[0] not in encoder}
    large = [node for node in graph.node if ranges.large(node) and node.output[0] not in excepted]
    return excepted | {node.output[0] for node in large}, large


def _refuse(found: CosineScores, least: float, texts: list[str]) -> ExportError:
    worst = []
    for number, score in found.worst(_WORST):
        text = texts[number]
        worst.append(f"{score:.6f} {shortened(text)}")
    return ExportError(
        f"fp16 agrees with fp32 to a mean cosine of {found.mean:.6f} (lowest {found.lowest:.6f}), "
        f"less than --min-cosine {least:g}; lower it, or export fp32. Worst texts: "
        f"{'; '.join(worst)}"
    )


def _largest_difference(expected: list[TextOutputs], got: list[TextOutputs]) -> dict[str, float]:
    return {
        name: max(
            float(np.abs(a[name] - b[name]).max(initial=0.0))
            for a, b in zip(expected, got, strict=True)
        )
        for name in expected[0]
    }


@dataclass(frozen=True)
class Halved:
    """An fp16 graph and what was measured.

    Attributes:
        graph: the model.
        record: for the manifest.
        evaluation: on the user's labelled data, where there is any.
        differences: largest difference from fp32 by output, with everything stored in fp16.
    """

    graph: onnx.ModelProto
    record: HalfPrecision
    evaluation: Evaluation | None
    differences: dict[str, float]

    def parity(self, found: dict[str, Parity]) -> dict[str, Parity]:
        """Give what was found on a CPU a tolerance that leaves room for an accelerator."""
        return {
            output: parity.model_copy(
                update={
                    "tolerance": max(
                        parity.tolerance,
                        _ROOM * max(parity.max_abs_diff, self.differences[output]),
                    )
                }
            )
            for output, parity in found.items()
        }


def to_fp16(  # noqa: PLR0913, PLR0917 - the steps of one procedure share them
    fp32: onnx.ModelProto,
    checkpoint: Checkpoint,
    options: Fp16Options,
    tolerance: float,
    scratch: Path,
    progress: Callable[[str], None],
    evaluator: Evaluator | None = None,
) -> Halved:
    """Store the packed graph's weights and values in fp16.

    Args:
        fp32: the packed graph.
        checkpoint: what it was traced from.
        options: what the user asks for.
        tolerance: largest difference of the fp32 graph from PyTorch eager.
        scratch: folder in which a temporary one is made; it needs room for the weights.
        progress: told what happens next.
        evaluator: measures both graphs on labelled data.

    Raises:
        ExportError: a file of the user's is wrong, the fp32 graph is not right, or fp16 does not
            reach the cosine or the metric that was asked for.
    """
    progress(ON_A_CPU)
    sample = read_sample(options.calibration)
    judge = tokenized(checkpoint, sample.judge)
    with tempfile.TemporaryDirectory(dir=scratch) as name:
        folder = Path(name)
        plain, half, rounded = (
            folder / f"{kind}-{GRAPH_NAME}" for kind in ("fp32", "fp16", "as16")
        )
        _save(fp32, plain)
        progress("comparing the fp32 graph with PyTorch")
        measure(plain, checkpoint, tolerance)
        progress("measuring the range of every value")
        everything = tokenized(checkpoint, [*sample.calibrate, *sample.judge])
        ranges = _ranges(fp32, folder / "probe.onnx", checkpoint, everything)
        excepted, large = _exceptions(fp32.graph, ranges)
        graph = to_half(fp32, ranges.values, excepted)
        _save(graph, half)
        _save(rounding(fp32, ranges.values, excepted), rounded)
        progress("comparing fp16 with fp32")
        expected, stored, run = (
            answers(session(path), checkpoint, judge) for path in (plain, rounded, half)
        )
        score = agreement if checkpoint.task == "feature-extraction" else logit_agreement
        for got in (stored, run):
            found = score([*map(judged, expected)], [*map(judged, got)])
            if found.mean < options.min_cosine:
                raise _refuse(found, options.min_cosine, sample.judge)
        evaluation = evaluator.compare({"fp32": plain, "fp16": rounded}) if evaluator else None
    found = score([*map(judged, expected)], [*map(judged, stored)])
    record = HalfPrecision(
        keep_fp32=tuple(f"{node.op_type} {node.name or node.output[0]}" for node in large),
        largest=max(ranges.values.values(), default=0.0),
        texts=sample.source,
        texts_sha256=sample.sha256,
        compared_texts=len(judge),
        mean_cosine=found.mean,
        min_cosine=found.lowest,
    )
    return Halved(graph, record, evaluation, _largest_difference(expected, stored))
