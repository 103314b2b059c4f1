"""From the packed fp32 graph to an fp16 one for accelerators, or a refusal.

::

    fp32 graph ──calibration texts──> largest value of each node ──> which nodes stay in fp32
               ──> fp16 graph, and its rounding in fp32 arithmetic ──> cosine to fp32 ──> gate
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from bertd.bundle import GRAPH_NAME, Evaluation, HalfPrecision, Parity

from bertd_export.checkpoint.loading import Checkpoint
from bertd_export.checkpoint.texts import TextOutputs
from bertd_export.errors import ExportError
from bertd_export.graph.runtime import session
from bertd_export.graph.saving import save_copy
from bertd_export.parity.agreement import CosineScores, compared_output, task_agreement
from bertd_export.parity.packed_batch import run_texts
from bertd_export.quantization.calibration import read_sample, tokenized
from bertd_export.quantization.conversion import PrecisionRecord, QualityGate
from bertd_export.quantization.fp16_exceptions import exceptions, measure_magnitudes
from bertd_export.quantization.fp16_graph import write_fp16, write_rounded

DEFAULT_MIN_COSINE = 0.9999
ON_A_CPU = (
    "fp16 is for accelerators: a CPU converts it to fp32 and is no faster than with an fp32 bundle"
)
_ROOM = 2.0  # by how much an accelerator's differences may exceed those of the rounding


@dataclass(frozen=True)
class Fp16Options:
    """What the user asks of fp16.

    Attributes:
        calibration: file of texts; None for the built-in ones.
        min_cosine: least mean cosine between fp16 and fp32 on them.
    """

    calibration: Path | None = None
    min_cosine: float = DEFAULT_MIN_COSINE


def _refusal(found: CosineScores, least: float, texts: list[str]) -> ExportError:
    return ExportError(
        f"fp16 agrees with fp32 to a mean cosine of {found.mean:.6f} (lowest {found.lowest:.6f}), "
        f"less than --min-cosine {least:g}; lower it, or export fp32. Worst texts: "
        f"{'; '.join(found.worst(texts, 6))}"
    )


def _agreement(
    checkpoint: Checkpoint, expected: list[TextOutputs], got: list[TextOutputs]
) -> CosineScores:
    compared = ([compared_output(outputs) for outputs in answers] for answers in (expected, got))
    return task_agreement(checkpoint.task, *compared)


def _largest_difference(expected: list[TextOutputs], got: list[TextOutputs]) -> dict[str, float]:
    return {
        name: max(
            float(np.abs(a[name] - b[name]).max(initial=0.0))
            for a, b in zip(expected, got, strict=True)
        )
        for name in expected[0]
    }


@dataclass(frozen=True)
class Fp16Conversion:
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

    def described(self) -> PrecisionRecord:
        """What the manifest says of it."""
        return PrecisionRecord(half=self.record, evaluation=self.evaluation)

    def held(self, found: dict[str, Parity]) -> dict[str, Parity]:
        """What was found on a CPU, with a tolerance that leaves room for an accelerator."""
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


def to_fp16(
    fp32: onnx.ModelProto,
    options: Fp16Options,
    gate: QualityGate,
    scratch: Path,
    progress: Callable[[str], None],
) -> Fp16Conversion:
    """Store the packed graph's weights and values in fp16.

    Args:
        fp32: the packed graph.
        options: what the user asks for.
        gate: what both graphs are compared with.
        scratch: folder in which a temporary one is made; it needs room for the weights.
        progress: told what happens next.

    Raises:
        ExportError: a file of the user's is wrong, the fp32 graph is not right, or fp16 does not
            reach the cosine or the metric that was asked for.
    """
    progress(ON_A_CPU)
    sample = read_sample(options.calibration)
    checkpoint = gate.checkpoint
    judge = tokenized(checkpoint, sample.judge)
    with tempfile.TemporaryDirectory(dir=scratch) as name:
        folder = Path(name)
        plain, half, rounded = (
            folder / f"{kind}-{GRAPH_NAME}" for kind in ("fp32", "fp16", "as16")
        )
        save_copy(fp32, plain)
        progress("comparing the fp32 graph with PyTorch")
        gate.check_fp32(plain)
        progress("measuring the range of every value")
        everything = tokenized(checkpoint, [*sample.calibrate, *sample.judge])
        magnitudes = measure_magnitudes(fp32, folder / "probe.onnx", checkpoint, everything)
        excepted, large = exceptions(fp32.graph, magnitudes)
        graph = write_fp16(fp32, magnitudes.values, excepted)
        save_copy(graph, half)
        save_copy(write_rounded(fp32, magnitudes.values, excepted), rounded)
        progress("comparing fp16 with fp32")
        expected, stored, run = (
            run_texts(session(path), checkpoint, judge) for path in (plain, rounded, half)
        )
        found = _agreement(checkpoint, expected, stored)
        for scores in (found, _agreement(checkpoint, expected, run)):
            if scores.mean < options.min_cosine:
                raise _refusal(scores, options.min_cosine, sample.judge)
        evaluation = gate.evaluate({"fp32": plain, "fp16": rounded})
    record = HalfPrecision(
        keep_fp32=tuple(f"{node.op_type} {node.name or node.output[0]}" for node in large),
        largest=max(magnitudes.values.values(), default=0.0),
        texts=sample.source,
        texts_sha256=sample.sha256,
        compared_texts=len(judge),
        mean_cosine=found.mean,
        min_cosine=found.lowest,
    )
    return Fp16Conversion(graph, record, evaluation, _largest_difference(expected, stored))
