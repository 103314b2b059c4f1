"""How well the answers of two graphs agree, text by text."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from bertd.bundle.arrays import Float32Array


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

    def worst(self, count: int) -> list[tuple[int, float]]:
        """Number and score of the texts with the least scores, least first."""
        ranked = sorted(enumerate(self.scores), key=lambda pair: pair[1])
        return ranked[:count]


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
