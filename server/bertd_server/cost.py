"""What a batch will cost: seconds, predicted from its shape.

::

    measurements on this machine ──fit──> CostModel ──seconds(shape)──> batching, admission
              ^                               │
              └── live batches ── CostTracker ┘   error as a metric; fits again when it drifts

A packed batch costs a fixed overhead, something for each sequence (a turn of each attention
loop), the linear layers (a function of its tokens) and attention (of the pairs of tokens that see
each other). Matrix products are slow per token while they are small, so that the cost of tokens
is a rising line with bends, not a straight one.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_BENDS = (0, 8, 16, 32, 64, 128, 256, 512, 1024)  # tokens at which the line may bend
_KNEE = 1.1  # at the knee a token costs at most this multiple of the cheapest
_SWEEPS = 2_000  # of coordinate descent; the fit has a dozen unknowns
_FLOOR = 1e-7  # seconds; nothing is predicted to be free

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Shape:
    """What the cost of a batch depends on.

    Attributes:
        sequences: how many.
        tokens: of all of them.
        pairs: the sum of their squared lengths, the work of attention.
    """

    sequences: int
    tokens: int
    pairs: int

    @classmethod
    def of(cls, lengths: Iterable[int]) -> Shape:
        """The shape of a batch of these lengths."""
        sizes = list(lengths)
        return cls(len(sizes), sum(sizes), sum(n * n for n in sizes))

    def __add__(self, other: Shape) -> Shape:
        return Shape(
            self.sequences + other.sequences, self.tokens + other.tokens, self.pairs + other.pairs
        )


NOTHING = Shape(0, 0, 0)


@dataclass(frozen=True, slots=True)
class Measurement:
    """A batch that ran, and how long it took."""

    shape: Shape
    seconds: float


def _features(shape: Shape) -> list[float]:
    """Overhead, sequences, pairs, then the tokens that lie in each stretch between two bends."""
    ends = (*_BENDS[1:], math.inf)
    stretches = [
        max(0.0, min(shape.tokens, end) - begin) for begin, end in zip(_BENDS, ends, strict=True)
    ]
    return [1.0, float(shape.sequences), float(shape.pairs), *stretches]


def _non_negative_least_squares(matrix: Floats, target: Floats) -> Floats:
    """`argmin |matrix @ x - target|` over `x >= 0`, by coordinate descent."""
    gram, projected = matrix.T @ matrix, matrix.T @ target
    solution = np.zeros(len(projected))
    for _ in range(_SWEEPS):
        before = solution.copy()
        for i, diagonal in enumerate(np.diag(gram)):
            if diagonal > 0:
                step = (projected[i] - gram[i] @ solution) / diagonal
                solution[i] = max(0.0, solution[i] + step)
        if np.abs(solution - before).max() <= 1e-9 * max(1.0, np.abs(solution).max()):
            break
    return solution


@dataclass(frozen=True, slots=True)
class CostModel:
    """Predicts seconds. All weights are at least 0, so that more work never costs less.

    Attributes:
        weights: seconds per unit of overhead, sequence, pair, and token in each stretch.
    """

    weights: tuple[float, ...]

    def seconds(self, shape: Shape) -> float:
        """Predicted time of a batch; 0 for none."""
        if not shape.sequences:
            return 0.0
        features = _features(shape)
        return max(_FLOOR, sum(w * f for w, f in zip(self.weights, features, strict=True)))

    def share(self, shape: Shape) -> float:
        """Predicted time that a part of a full batch adds to it: no overhead, tokens at their best.

        The sum of shares of all that waits is how long the queue takes.
        """
        _, sequence, pair, *stretches = self.weights
        return shape.sequences * sequence + shape.pairs * pair + shape.tokens * stretches[-1]

    def knee(self, length: int, limit: int) -> int:
        """Tokens beyond which a larger batch hardly serves more tokens a second.

        Args:
            length: typical tokens of one sequence.
            limit: the largest batch, in tokens.
        """

        def per_token(tokens: int) -> float:
            count = max(1, tokens // length)
            return self.seconds(Shape(count, tokens, tokens * length)) / tokens

        sizes = sorted({limit, *(size for size in _BENDS if 0 < size < limit)})
        least = min(map(per_token, sizes))
        return next(size for size in sizes if per_token(size) <= _KNEE * least)

    def scaled(self, factor: float) -> CostModel:
        """The same machine, slower or faster by a factor."""
        return CostModel(tuple(weight * factor for weight in self.weights))


def fit(measurements: Sequence[Measurement]) -> CostModel:
    """The model with the least relative error on measurements.

    Raises:
        ValueError: there are none, or one took no time.
    """
    if not measurements or any(not m.seconds > 0 for m in measurements):
        raise ValueError("a cost model needs measurements, each above 0 seconds")
    rows = np.array([_features(m.shape) for m in measurements])
    rows /= np.array([m.seconds for m in measurements])[:, None]  # errors become relative
    norms = np.linalg.norm(rows, axis=0)
    norms[norms == 0] = 1.0
    solution = _non_negative_least_squares(rows / norms, np.ones(len(rows)))
    weights = solution / norms
    seen = [index for index, column in enumerate(rows.T) if index >= 3 and column.any()]
    if seen:  # what is longer than all that was measured goes on as the last stretch did
        weights[seen[-1] + 1 :] = weights[seen[-1]]
    return CostModel(tuple(float(weight) for weight in weights))


def relative_error(model: CostModel, measurement: Measurement) -> float:
    """How far the prediction was off, as a share of what the batch took."""
    return abs(model.seconds(measurement.shape) - measurement.seconds) / measurement.seconds


class CostTracker:
    """The current model, checked against live batches and fitted again when it drifts.

    Attributes:
        model: what predicts now.
        error: mean relative error of recent predictions; 0 before the first.
        refits: how often live batches changed the model.
    """

    def __init__(
        self,
        measurements: Sequence[Measurement],
        *,
        tolerance: float = 0.25,
        window: int = 64,
    ) -> None:
        """Fit to the measurements of the start.

        Args:
            measurements: a grid of shapes, measured on this machine.
            tolerance: median error above which a window of live batches leads to a new fit.
            window: live batches between two checks.
        """
        self._grid = tuple(measurements)
        self._tolerance = tolerance
        self._live: deque[Measurement] = deque(maxlen=4 * window)
        self._errors: deque[float] = deque(maxlen=window)
        self._window = window
        self.model = fit(self._grid)
        self.refits = 0

    @property
    def error(self) -> float:
        """Mean relative error of the last predictions."""
        return sum(self._errors) / len(self._errors) if self._errors else 0.0

    def observe(self, measurement: Measurement) -> None:
        """Take in a live batch; every full window with too large an error fits again."""
        self._live.append(measurement)
        self._errors.append(relative_error(self.model, measurement))
        if len(self._errors) == self._window and np.median(self._errors) > self._tolerance:
            self._refit()

    def _refit(self) -> None:
        """The grid, as slow or fast as the machine is now, and the live batches on top of it."""
        recent = list(self._live)[-self._window :]
        grid = fit(self._grid)
        ratios = [m.seconds / grid.seconds(m.shape) for m in recent]
        factor = float(np.median(ratios))
        scaled = [Measurement(m.shape, m.seconds * factor) for m in self._grid]
        self.model = fit([*scaled, *recent])
        self.refits += 1
        self._errors.clear()
