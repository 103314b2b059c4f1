"""From the packed fp32 graph to an int8 one that is good enough, or a refusal.

::

    fp32 graph ──folding──> the same answers, even rows ──calibration texts──> rounded layers
               ──search──> int8 graph, fewest layers in fp32 ──> cosine to fp32 ──> gate
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from bertd.bundle import GRAPH_NAME, Evaluation, Parity, Quantization

from bertd_export.checkpoint.families import attention_calls
from bertd_export.checkpoint.loading import Checkpoint
from bertd_export.checkpoint.texts import TokenizedText
from bertd_export.errors import ExportError
from bertd_export.graph.fusion import check_fusion
from bertd_export.graph.runtime import optimized, session
from bertd_export.graph.saving import save_graph
from bertd_export.parity.agreement import CosineScores, compared_output
from bertd_export.parity.packed_batch import batches_of, compared_outputs, feed_of, run_packed
from bertd_export.quantization.calibration import (
    CalibrationTexts,
    for_calibration,
    read_sample,
    tokenized,
)
from bertd_export.quantization.conversion import PrecisionRecord, QualityGate
from bertd_export.quantization.folding import fold
from bertd_export.quantization.int8_exceptions import Candidates, matched, search
from bertd_export.quantization.int8_functions import INTEGER_PRODUCT
from bertd_export.quantization.linear_layers import (
    find_linears,
    share_equal_weights,
    split_residual_biases,
)
from bertd_export.quantization.rounding import Feed, ranges, round_linears

SCHEME = 2
DEFAULT_MIN_COSINE = 0.99
_ROOM = 1.25  # by how much another machine's differences may exceed those of the export


@dataclass(frozen=True)
class Int8Options:
    """What the user asks of int8.

    Attributes:
        calibration: file of texts; None for the built-in ones.
        min_cosine: least mean cosine between int8 and fp32 on texts that calibration did not see.
        keep_fp32: patterns of linear layers that stay in fp32, such as ``layer.0.*``.
    """

    calibration: Path | None = None
    min_cosine: float = DEFAULT_MIN_COSINE
    keep_fp32: tuple[str, ...] = ()


def _one_thread(graph: Path) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return session(graph, options)


def count_integer_products(graph: Path) -> int:
    """How many integer matrix products ONNX Runtime runs, after its own rewriting."""
    return sum(node.op_type == INTEGER_PRODUCT for node in optimized(graph).graph.node)


def _refusal(found: CosineScores, least: float, kept: int, texts: list[str]) -> ExportError:
    return ExportError(
        f"int8 agrees with fp32 to a mean cosine of {found.mean:.5f} (lowest {found.lowest:.5f}), "
        f"less than --min-cosine {least:g}, even with {kept} linear layers kept in fp32; "
        f"calibrate on texts like those that will be served (--calibration FILE), lower "
        f"--min-cosine, or export fp32. Worst texts: {' '.join(found.worst(texts, 5))}"
    )


def _check(graph: Path, checkpoint: Checkpoint, products: int, judge: list[TokenizedText]) -> None:
    """Check what the cosine does not show: the operators, and equal bits however a text is run."""
    check_fusion(graph, attention_calls(checkpoint.model.config))
    found = count_integer_products(graph)
    if found != products:
        raise ExportError(
            f"ONNX Runtime runs {found} integer matrix products for {products} linear layers"
        )
    batched = compared_outputs(session(graph), checkpoint, judge)
    single = _one_thread(graph)
    for text, answer in zip(judge, batched, strict=True):
        if not np.array_equal(answer, compared_output(run_packed(single, checkpoint, [text])[0])):
            raise ExportError(
                f"the answer to a text of {len(text.ids)} tokens is not bit-identical "
                f"batched and alone on one thread"
            )


def _feeds(graph: Path, checkpoint: Checkpoint, sample: CalibrationTexts) -> list[Feed]:
    run = session(graph)
    packed = batches_of(for_calibration(checkpoint, sample))
    return [feed_of(run, checkpoint, batch) for batch in packed]


def _quantize(
    graph: Path,
    checkpoint: Checkpoint,
    options: Int8Options,
    sample: CalibrationTexts,
    progress: Callable[[str], None],
) -> tuple[Path, Quantization]:
    skeleton = onnx.load(str(graph), load_external_data=False)
    names = [linear.name for linear in find_linears(skeleton.graph)]
    if not names:
        raise ExportError("the graph has no linear layers that int8 could replace")
    asked = matched(options.keep_fp32, names)
    rounded = round_linears(graph, _feeds(graph, checkpoint, sample), progress)
    progress("comparing int8 with fp32")
    judge = tokenized(checkpoint, sample.judge)
    candidates = Candidates(graph, checkpoint, rounded, judge)
    kept, found = search(candidates, asked, rounded, options.min_cosine)
    if found.mean < options.min_cosine:
        raise _refusal(found, options.min_cosine, len(kept), sample.judge)
    progress("checking the int8 operators")
    _check(candidates.path, checkpoint, len(names) - len(kept), judge)
    record = Quantization(
        scheme=SCHEME,
        linear_layers=len(names),
        keep_fp32=tuple(name for name in names if name in kept),
        calibration=sample.source,
        calibration_sha256=sample.sha256,
        compared_texts=len(judge),
        mean_cosine=found.mean,
        min_cosine=found.lowest,
    )
    return candidates.path, record


def _prepare(
    fp32: onnx.ModelProto, path: Path, checkpoint: Checkpoint, sample: CalibrationTexts
) -> None:
    """Give the graph the form that int8 starts from, and write it; its answers stay the same."""
    share_equal_weights(fp32.graph)
    split_residual_biases(fp32.graph)
    linears = find_linears(fp32.graph)
    save_graph(fp32, path)
    found = ranges(path, linears, _feeds(path, checkpoint, sample))
    onnx.load_external_data_for_model(fp32, str(path.parent))
    fold(fp32.graph, linears, found)
    save_graph(fp32, path)


@dataclass(frozen=True)
class Int8Conversion:
    """An int8 graph and what was measured.

    Attributes:
        graph: the model.
        record: for the manifest.
        evaluation: on the user's labelled data, where there is any.
    """

    graph: onnx.ModelProto
    record: Quantization
    evaluation: Evaluation | None

    def described(self) -> PrecisionRecord:
        """What the manifest says of it."""
        return PrecisionRecord(quantization=self.record, evaluation=self.evaluation)

    def held(self, found: dict[str, Parity]) -> dict[str, Parity]:
        """What was found, with a tolerance that leaves room for another machine.

        The cosine has judged the graph already.
        """
        return {
            output: parity.model_copy(
                update={"tolerance": max(parity.tolerance, _ROOM * parity.max_abs_diff)}
            )
            for output, parity in found.items()
        }


def to_int8(
    fp32: onnx.ModelProto,
    options: Int8Options,
    gate: QualityGate,
    scratch: Path,
    progress: Callable[[str], None],
) -> Int8Conversion:
    """Quantise the packed graph.

    Args:
        fp32: the packed graph; its tensors are moved to a temporary file.
        options: what the user asks for.
        gate: what both graphs are compared with.
        scratch: folder in which a temporary one is made; it needs room for the weights.
        progress: told what happens next.

    Raises:
        ExportError: a file of the user's is wrong, the fp32 graph is not right, or int8 does not
            reach the cosine or the metric that was asked for.
    """
    sample = read_sample(options.calibration)
    with tempfile.TemporaryDirectory(dir=scratch) as name:
        path = Path(name) / GRAPH_NAME
        progress("folding the spread of activations into weights")
        _prepare(fp32, path, gate.checkpoint, sample)
        progress("comparing the fp32 graph with PyTorch")
        gate.check_fp32(path)
        chosen, record = _quantize(path, gate.checkpoint, options, sample, progress)
        evaluation = gate.evaluate({"fp32": path, "int8": chosen})
        return Int8Conversion(onnx.load(str(chosen)), record, evaluation)
