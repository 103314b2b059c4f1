"""The final files, run by ONNX Runtime, against PyTorch eager, over every case.

::

    cases ──> reference, text by text ──┐
      └────> packed batches ────────────┴─> largest difference by output; bits alone and together
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from bertd.bundle import Parity
from bertd.bundle.arrays import Float32Array
from bertd.bundle.kernels import KernelChoice

from bertd_export.checkpoint.loading import Checkpoint
from bertd_export.checkpoint.texts import TextOutputs
from bertd_export.errors import ExportError
from bertd_export.graph.runtime import CPU, session
from bertd_export.parity import cases
from bertd_export.parity.packed_batch import run_packed
from bertd_export.parity.reference import eager_outputs


def _difference(got: Float32Array, want: Float32Array, case: str) -> float:
    """The largest absolute difference; 0 where there is nothing to compare."""
    if got.shape != want.shape:
        raise ExportError(f"shape {got.shape} instead of PyTorch's {want.shape}: {case}")
    difference = float(np.abs(got - want).max(initial=0.0))
    if not np.isfinite(difference):
        raise ExportError(f"not finite: {case}")
    return difference


@dataclass(frozen=True)
class Observation:
    """What a graph answers, against PyTorch and against itself.

    Attributes:
        parity: how far each output is from PyTorch.
        varying: the first answer whose bits depend on its batch; None if there is none.
    """

    parity: dict[str, Parity]
    varying: str | None


def observe(
    graph: Path,
    checkpoint: Checkpoint,
    tolerance: float,
    provider: str = CPU,
    kernels: KernelChoice = "auto",
) -> Observation:
    """Compare every output over the grid of cases, alone and in batches (:mod:`.cases`).

    Args:
        graph: the final file.
        checkpoint: the model that PyTorch runs, one text at a time.
        tolerance: written into the result; whether it holds is for the caller to see.
        provider: what runs the graph, in ONNX Runtime's name.
        kernels: of a CPU, see :func:`bertd_export.graph.runtime.session`.

    Raises:
        ExportError: an answer is not finite.
    """
    run = session(graph, provider=provider, kernels=kernels)
    texts = cases.texts(checkpoint)
    expected = dict(zip(texts, eager_outputs(checkpoint, texts.values()), strict=True))
    alone: dict[str, TextOutputs] = {}
    varying: str | None = None
    worst = dict.fromkeys(checkpoint.outputs, (-1.0, ""))
    count = 0
    for number, batch in enumerate(cases.batches(texts)):
        results = run_packed(run, checkpoint, [texts[name] for name in batch])
        for name, outputs in zip(batch, results, strict=True):
            size = len(batch)
            case = f"{name}, " + ("alone" if size == 1 else f"in batch {number} of {size} texts")
            count += 1
            first = alone.setdefault(name, outputs)
            for output, got in outputs.items():
                difference = _difference(got, expected[name][output], f"{output}, {case}")
                if difference > worst[output][0]:
                    worst[output] = (difference, case)
                if varying is None and not np.array_equal(got, first[output]):
                    varying = f"{output} is not bit-identical to the text alone: {case}"
    parity = {
        output: Parity(max_abs_diff=difference, tolerance=tolerance, cases=count, worst_case=case)
        for output, (difference, case) in worst.items()
    }
    return Observation(parity, varying)


def compare(graph: Path, checkpoint: Checkpoint, tolerance: float) -> dict[str, Parity]:
    """Compare every output over the grid of cases on this CPU, as :func:`observe` does.

    Args:
        graph: the final file.
        checkpoint: the model that PyTorch runs, one text at a time.
        tolerance: written into the result; whether it holds is for the caller to see.

    Raises:
        ExportError: an answer is not finite, or depends on its batch.
    """
    found = observe(graph, checkpoint, tolerance)
    if found.varying is not None:
        raise ExportError(found.varying)
    return found.parity


def within_tolerance(found: dict[str, Parity]) -> dict[str, Parity]:
    """What was found, if every difference is within its tolerance.

    Raises:
        ExportError: one is above it.
    """
    for output, parity in found.items():
        if parity.max_abs_diff > parity.tolerance:
            raise ExportError(
                f"{output} differs from PyTorch by {parity.max_abs_diff:.3g}, more than the "
                f"tolerance {parity.tolerance:.3g}; worst case: {parity.worst_case}"
            )
    return found
