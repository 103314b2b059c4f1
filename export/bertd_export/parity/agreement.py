"""How well two graphs, or a graph and PyTorch, agree text by text: a cosine for each text.

::

    outputs of a text ──compared_output──> embedding or logits ──agreement──> scores, worst texts
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from bertd.bundle import SENTENCE_EMBEDDING, Task
from bertd.bundle.arrays import Float32Array

from bertd_export.checkpoint.texts import TextOutputs
from bertd_export.errors import shortened

_WORST = 3  # texts shown with a refusal


@dataclass(frozen=True)
class CosineScores:
    """Agreement of one output over some texts.

    Attributes:
        scores: one cosine for each text, in order; of a text with a vector for each token, the
            mean of their cosines.
        mean: of the scores.
        lowest: the least score.
    """

    scores: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean score."""
        return float(np.mean(self.scores))

    @property
    def lowest(self) -> float:
        """Least score."""
        return min(self.scores)

    def worst(self, texts: Sequence[str], digits: int) -> list[str]:
        """The texts with the least scores, least first, each with its score before it."""
        ranked = sorted(zip(self.scores, texts, strict=True), key=lambda pair: pair[0])
        return [f"{score:.{digits}f} {shortened(text)}" for score, text in ranked[:_WORST]]


def compared_output(outputs: TextOutputs) -> Float32Array:
    """What is compared of a text: the sentence embedding, or all logits side by side."""
    if SENTENCE_EMBEDDING in outputs:
        return outputs[SENTENCE_EMBEDDING]
    columns = [part.reshape(len(part), -1) for part in outputs.values()]
    rows: Float32Array = np.concatenate(columns, axis=1)
    return rows


def cosine(expected: Float32Array, got: Float32Array) -> float:
    """Cosine of two vectors, or the mean over the rows of two matrices. Not finite counts as -1."""
    a, b = (np.atleast_2d(x).astype(np.float64) for x in (expected, got))
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    value = float(np.mean((a * b).sum(axis=1) / np.maximum(lengths, 1e-30)))
    return value if np.isfinite(value) else -1.0


def agreement(expected: Sequence[Float32Array], got: Sequence[Float32Array]) -> CosineScores:
    """Compare the answers of two graphs to the same texts."""
    return CosineScores(tuple(cosine(a, b) for a, b in zip(expected, got, strict=True)))


def logit_agreement(expected: Sequence[Float32Array], got: Sequence[Float32Array]) -> CosineScores:
    """Compare logits on the scale of a cosine.

    A single logit has no cosine, and logits have an offset that says nothing. So the error of a
    text is taken relative to the spread of the logits over all texts, and its score is the cosine
    of two unit vectors that far apart: `1 - error ** 2 / 2`.

    Args:
        expected: float32 `[rows, logits]` for each text.
        got: the same of the other graph.
    """
    everything = np.concatenate([rows.ravel() for rows in expected]).astype(np.float64)
    spread = max(float(everything.std()), 1e-12)
    scores = []
    for a, b in zip(expected, got, strict=True):
        lost = float(np.sqrt(np.mean(np.square(a.astype(np.float64) - b))) / spread)
        scores.append(1 - lost**2 / 2 if np.isfinite(lost) else -1.0)
    return CosineScores(tuple(scores))


def task_agreement(
    task: Task, expected: Sequence[Float32Array], got: Sequence[Float32Array]
) -> CosineScores:
    """Compare embeddings by their cosine, logits on its scale.

    Args:
        task: says which of the two the texts have.
        expected: :func:`compared_output` of each text.
        got: the same of the other graph.
    """
    compare = agreement if task == "feature-extraction" else logit_agreement
    return compare(expected, got)
