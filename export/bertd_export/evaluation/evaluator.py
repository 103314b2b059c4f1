"""The task's own metrics on the user's labelled data: fp32 against the bundle's precision."""

from collections.abc import Callable, Mapping
from pathlib import Path

from bertd.bundle import Evaluation, Precision

from bertd_export.checkpoint.loading import Checkpoint
from bertd_export.errors import ExportError, shortened
from bertd_export.evaluation.examples import Examples, read_examples
from bertd_export.evaluation.scoring import EvaluationResult, Scoring
from bertd_export.evaluation.sequence_tasks import (
    Classes,
    LabelSets,
    Scores,
    Similarity,
    ZeroShot,
)
from bertd_export.evaluation.token_tasks import Masks, Questions, Tags
from bertd_export.graph.runtime import session
from bertd_export.parity.packed_batch import run_texts

DEFAULT_MAX_DROP = 0.01
_WORST = 3  # examples shown with a refusal
_NOISE = 1e-9  # what rounding in the metric itself may do

_KINDS: dict[str, Callable[[Examples, Checkpoint], Scoring]] = {
    "feature-extraction": Similarity,
    "text-ranking": Scores,
    "regression": Scores,
    "single_label_classification": Classes,
    "multi_label_classification": LabelSets,
    "zero-shot-classification": ZeroShot,
    "token-classification": Tags,
    "question-answering": Questions,
    "fill-mask": Masks,
}


def _scoring(examples: Examples, checkpoint: Checkpoint) -> Scoring:
    """The examples, read as the checkpoint's task needs them.

    Raises:
        ExportError: a line lacks a field, or a field is not what the task needs.
    """
    classifies = checkpoint.task == "text-classification"
    kind = checkpoint.head.problem_type if classifies else None
    return _KINDS[kind or checkpoint.task](examples, checkpoint)


class Evaluator:
    """Measures graphs of one checkpoint on a file of examples (docs/export.md has the formats)."""

    def __init__(self, path: Path, checkpoint: Checkpoint, max_drop: float) -> None:
        """Read and check the file.

        Args:
            path: JSON lines.
            checkpoint: the model; its task says what a line must hold.
            max_drop: by how much a metric may be below that of fp32.

        Raises:
            ExportError: the file or a line of it is not what the task needs.
        """
        self._examples = read_examples(path)
        self._scoring = _scoring(self._examples, checkpoint)
        self._checkpoint = checkpoint
        self._max_drop = max_drop

    def _measure(self, graph: Path) -> EvaluationResult:
        run = session(graph)
        return self._scoring.measure(lambda texts: run_texts(run, self._checkpoint, texts))

    def compare(self, graphs: Mapping[Precision, Path]) -> Evaluation:
        """Measure fp32 and, where it is another, the bundle's precision.

        Raises:
            ExportError: a metric drops by more than was allowed.
        """
        found = {precision: self._measure(graph) for precision, graph in graphs.items()}
        for precision, measured in found.items():
            self._check(precision, found["fp32"], measured)
        return Evaluation(
            data=self._examples.source,
            data_sha256=self._examples.sha256,
            examples=len(self._examples.lines),
            metrics={
                name: {precision: measured.metrics[name] for precision, measured in found.items()}
                for name in found["fp32"].metrics
            },
        )

    def _check(self, precision: Precision, fp32: EvaluationResult, other: EvaluationResult) -> None:
        drops = [
            f"{name} is {other.metrics[name]:.4f}, {figure - other.metrics[name]:.4f} below fp32's "
            f"{figure:.4f}"
            for name, figure in fp32.metrics.items()
            if not figure - other.metrics[name] <= self._max_drop + _NOISE
        ]
        if not drops:
            return
        worse = [a - b for a, b in zip(fp32.goodness, other.goodness, strict=True)]
        lost = sorted((n for n, drop in enumerate(worse) if drop > 0), key=lambda n: -worse[n])
        advice = "calibrate on texts like these (--calibration FILE), " * (precision == "int8")
        worst = ", ".join(map(self._quoted, lost[:_WORST])) or "none alone"
        raise ExportError(
            f"on {self._examples.source}, {precision}'s {'; '.join(drops)}, more than "
            f"--max-metric-drop {self._max_drop:g}: {advice}allow more, or export fp32. What fp32 "
            f"had right, or more nearly so, worst first: {worst}"
        )

    def _quoted(self, number: int) -> str:
        line = self._examples.lines[number]
        text = str(line.record.get("text") or line.record.get("question") or line.record)
        return f"{line.place} ({shortened(text)!r})"
