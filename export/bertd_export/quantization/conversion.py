"""A graph in the precision of its bundle: what the manifest records, what parity is held to.

::

    traced graph ──to_fp32──> Fp32Conversion  difference from PyTorch within the tolerance
                 ──to_int8──> Int8Conversion  ┐ cosine to fp32 has judged already; the difference
                 ──to_fp16──> Fp16Conversion  ┘ found, with some room, becomes the tolerance
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import onnx
from bertd.bundle import Evaluation, HalfPrecision, Parity, Precision, Quantization

from bertd_export.checkpoint.loading import Checkpoint
from bertd_export.evaluation.evaluator import Evaluator
from bertd_export.graph.linear_functions import write_linear_functions
from bertd_export.parity.comparison import compare, within_tolerance


@dataclass(frozen=True)
class QualityGate:
    """What a graph has to hold against: PyTorch in fp32, the task's metrics in every precision.

    Attributes:
        checkpoint: the model that PyTorch runs.
        tolerance: largest absolute difference of the fp32 graph from PyTorch eager.
        evaluator: measures graphs on the user's labelled data, if there is any.
    """

    checkpoint: Checkpoint
    tolerance: float
    evaluator: Evaluator | None = None

    def check_fp32(self, graph: Path) -> None:
        """Compare the fp32 graph, from which another is made, with PyTorch.

        Raises:
            ExportError: they differ by more than the tolerance.
        """
        within_tolerance(compare(graph, self.checkpoint, self.tolerance))

    def evaluate(self, graphs: Mapping[Precision, Path]) -> Evaluation | None:
        """The metrics of fp32 and, where it is another, of the bundle's precision.

        Raises:
            ExportError: a metric drops by more than was allowed.
        """
        return self.evaluator.compare(graphs) if self.evaluator else None


@dataclass(frozen=True)
class PrecisionRecord:
    """What the manifest says of a bundle's precision; the defaults are those of fp32."""

    quantization: Quantization | None = None
    half: HalfPrecision | None = None
    evaluation: Evaluation | None = None

    @property
    def precision(self) -> Precision:
        """The precision, from the record that it leaves."""
        if self.quantization:
            return "int8"
        return "fp16" if self.half else "fp32"


class Conversion(Protocol):
    """A graph in one precision."""

    @property
    def graph(self) -> onnx.ModelProto:
        """The model, with its weights."""
        ...

    def described(self) -> PrecisionRecord:
        """What the manifest says of it."""
        ...

    def held(self, found: dict[str, Parity]) -> dict[str, Parity]:
        """What was found on this CPU, by output, with the tolerance that the bundle is held to.

        Raises:
            ExportError: it is not within its tolerance.
        """
        ...


@dataclass(frozen=True)
class Fp32Conversion:
    """The traced graph, with functions for its linear layers."""

    graph: onnx.ModelProto

    def described(self) -> PrecisionRecord:
        """Nothing but the precision."""
        return PrecisionRecord()

    def held(self, found: dict[str, Parity]) -> dict[str, Parity]:
        """As found, within the tolerance."""
        return within_tolerance(found)


def to_fp32(traced: onnx.ModelProto) -> Fp32Conversion:
    """Keep the numbers of the traced graph; it gets functions for its linear layers."""
    write_linear_functions(traced)
    return Fp32Conversion(traced)
