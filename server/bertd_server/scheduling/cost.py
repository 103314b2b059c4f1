"""What a batch will cost: seconds, predicted from its shape.

::

    measurements on this machine ──fit──> CostModel ──seconds(shape)──> batching, admission
              ^                               │
              └── live batches ── CostTracker ┘   scaled to their pace; fitted again when it drifts

A packed batch costs a fixed overhead, something for each sequence (a turn of each attention
loop), the linear layers (a function of its tokens) and attention (of the pairs of tokens that see
each other). Matrix products are slow per token while they are small, so that the cost of tokens
is a rising line with bends, not a straight one.
"""

from __future__ import annotations

import itertools
import math
import statistics
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from bertd.bundle.arrays import Float64Array

_BENDS = (0, 8, 16, 32, 64, 128, 256, 512, 1024)  # tokens at which the line may bend
_KNEE = 1.05  # at the knee a token costs at most this multiple of the cheapest
_SMOOTHNESS = 0.1  # error, as a share, for which a token's cost may double at a bend
_FEW = 8  # live batches that say how fast the machine is, and as many more that say it anew
_PAIRS_A_TOKEN = 512  # a pair costs at most this part of a token, unless long texts were measured
_LONG = 128  # tokens of a text whose pairs weigh enough to be measured
_FLOOR = 1e-7  # seconds; nothing is predicted to be free


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

    @classmethod
    def single(cls, tokens: int) -> Shape:
        """The shape of one sequence."""
        return cls(1, tokens, tokens * tokens)

    def __add__(self, other: Shape) -> Shape:
        return Shape(
            self.sequences + other.sequences, self.tokens + other.tokens, self.pairs + other.pairs
        )

    def __sub__(self, other: Shape) -> Shape:
        return Shape(
            self.sequences - other.sequences, self.tokens - other.tokens, self.pairs - other.pairs
        )


NOTHING = Shape(0, 0, 0)

AT_ONCE = 0.75
"""Of the prediction: one batch that took less says alone that it was too slow."""


def known_ratio(ratios: Sequence[float], few: int) -> float:
    """What batches take over what is predicted: the median of a few, else 1 or the least.

    None is faster than the machine can be, so that one which took far less proves as much; one that
    took longer proves little.
    """
    if len(ratios) >= few:
        return statistics.median(ratios)
    least = min(ratios, default=1.0)
    return least if least < AT_ONCE else 1.0


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


def _non_negative_least_squares(matrix: Float64Array, target: Float64Array) -> Float64Array:
    """`argmin |matrix @ x - target|` over `x >= 0`: the active-set method of Lawson and Hanson."""
    unknowns = matrix.shape[1]
    solution, free = np.zeros(unknowns), np.zeros(unknowns, bool)
    for _ in range(3 * unknowns):
        slope = np.where(free, -np.inf, matrix.T @ (target - matrix @ solution))
        if slope.max() <= 1e-9:
            break
        free[slope.argmax()] = True
        while True:
            trial = np.zeros(unknowns)
            trial[free] = np.linalg.lstsq(matrix[:, free], target, rcond=None)[0]
            below = free & (trial <= 0)
            if not below.any():
                break
            step = (solution[below] / (solution[below] - trial[below] + 1e-300)).min()
            solution += step * (trial - solution)
            free &= ~(below & (solution <= 1e-12))
            solution[~free] = 0.0
        solution = trial
    return solution


@dataclass(frozen=True)
class CostModel:
    """Predicts seconds. All weights are at least 0, so that more work never costs less.

    Attributes:
        weights: seconds per unit of overhead, sequence, pair, and token in each stretch.
    """

    weights: tuple[float, ...]

    @cached_property
    def _at_bends(self) -> tuple[float, ...]:
        """Seconds that as many tokens cost as there are at each bend."""
        stretches = zip(_BENDS[1:], _BENDS[:-1], self.weights[3:-1], strict=True)
        return tuple(
            itertools.accumulate(((end - begin) * w for end, begin, w in stretches), initial=0.0)
        )

    @cached_property
    def _best_token(self) -> float:
        """Seconds, above 0, of a token in the batch, of all sizes, in which they are cheapest."""
        sizes = zip(_BENDS[1:], self._at_bends[1:], strict=True)
        return max(_FLOOR, min((self.weights[0] + s) / tokens for tokens, s in sizes))

    def seconds(self, shape: Shape) -> float:
        """Predicted time of a batch; 0 for none."""
        if not shape.sequences:
            return 0.0
        weights, tokens = self.weights, shape.tokens
        stretch = bisect_right(_BENDS, tokens) - 1
        seconds = (
            weights[0]
            + shape.sequences * weights[1]
            + shape.pairs * weights[2]
            + self._at_bends[stretch]
            + (tokens - _BENDS[stretch]) * weights[3 + stretch]
        )
        return max(_FLOOR, seconds)

    def share(self, shape: Shape) -> float:
        """Predicted time that texts add to a full batch: their tokens at their cheapest.

        The sum of the shares of all that waits is how long one lane takes for it, whatever
        batches it is cut into, as long as they are large.
        """
        return (
            shape.sequences * self.weights[1]
            + shape.pairs * self.weights[2]
            + shape.tokens * self._best_token
        )

    def knee(self, length: int, limit: int) -> Shape:
        """The smallest batch that serves nearly as many tokens a second as any.

        Args:
            length: typical tokens of one sequence.
            limit: the largest batch, in tokens.
        """
        shapes = _batches(length, limit)
        rates = [self.seconds(shape) / shape.tokens for shape in shapes]
        least = min(rates)
        return next(s for s, rate in zip(shapes, rates, strict=True) if rate <= _KNEE * least)

    def scaled(self, factor: float) -> CostModel:
        """The same machine, slower or faster by a factor."""
        return CostModel(tuple(weight * factor for weight in self.weights))

    def delayed(self, seconds: float) -> CostModel:
        """The same machine where every batch takes so many seconds more."""
        return CostModel((self.weights[0] + seconds, *self.weights[1:]))


@lru_cache(maxsize=64)
def _batches(length: int, limit: int) -> tuple[Shape, ...]:
    """Batches of texts of a length, with as many tokens as there are at each bend, and `limit`."""
    sizes = sorted({limit, *(size for size in _BENDS if 0 < size < limit)})
    return tuple(Shape(max(1, size // length), size, size * min(size, length)) for size in sizes)


def fit(measurements: Sequence[Measurement]) -> CostModel:
    """The model with the least relative error on measurements, and few bends beyond need.

    What was not measured is bounded by what was: beyond the most tokens of any measured batch a
    token costs at most what one cost in the batch in which they were cheapest, and a pair at most
    a 512th of that where no text of 128 tokens was measured. Few and slow measurements of small
    batches so never make a large one slower than as many small ones.

    Raises:
        ValueError: there are none, or one took no time.
    """
    if not measurements or any(not m.seconds > 0 for m in measurements):
        raise ValueError("a cost model needs measurements, each above 0 seconds")
    seconds = np.array([m.seconds for m in measurements])
    rows = np.array([_features(m.shape) for m in measurements]) / seconds[:, None]
    # Where measurements leave it open, a token costs in one stretch what it costs in the next.
    rate = np.median([m.shape.tokens / m.seconds for m in measurements])
    stretches = np.eye(len(_BENDS), rows.shape[1], k=rows.shape[1] - len(_BENDS))
    smooth = _SMOOTHNESS * rate * np.diff(stretches, axis=0)
    matrix = np.vstack([rows, smooth])
    target = np.concatenate([np.ones(len(rows)), np.zeros(len(smooth))])
    weights = _bounded(matrix, target, _most(measurements))
    return CostModel(tuple(float(weight) for weight in weights))


def _bounded(matrix: Float64Array, target: Float64Array, most: Float64Array) -> Float64Array:
    """Non-negative least squares of which no unknown exceeds `most`: those that would are fixed."""
    fixed = np.zeros(matrix.shape[1], bool)
    weights = np.zeros(matrix.shape[1])
    while True:
        free = matrix[:, ~fixed]
        norms = np.linalg.norm(free, axis=0)
        norms[norms == 0] = 1.0
        rest = target - matrix[:, fixed] @ weights[fixed]
        weights[~fixed] = _non_negative_least_squares(free / norms, rest) / norms
        above = weights > most
        if not above.any():
            return weights
        weights[above] = most[above]
        fixed |= above


def _most(measurements: Sequence[Measurement]) -> Float64Array:
    """The most that each weight may be, infinite where measurements decide it."""
    most = np.full(3 + len(_BENDS), np.inf)
    token = min(m.seconds / m.shape.tokens for m in measurements)
    if max(m.shape.pairs / m.shape.tokens for m in measurements) < _LONG:
        most[2] = token / _PAIRS_A_TOKEN
    tokens = max(m.shape.tokens for m in measurements)
    most[3:][np.array(_BENDS) >= tokens] = token
    return most


class CostTracker:
    """The current model: as fast or slow as the last batches were, fitted again when it drifts.

    A server shares its cores with its own front end and with others, so that batches take a
    little longer than at the start, and the way to a lane and back takes a while too. Each
    prediction alone may be good enough without that, but a queue adds them up: a bias of a sixth
    makes every call late that was promised an answer just in time.

    Attributes:
        model: what predicts now.
        at_start: what the measurements of the grid alone predict.
        refits: how often live batches changed the form of the model.
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
            tolerance: error, below 1; if most of a window of live batches have a larger one, the
                model is fitted again.
            window: live batches that are judged together.
        """
        self._tolerance = tolerance
        self._live: deque[Measurement] = deque(maxlen=window)
        self._ways: deque[float] = deque(maxlen=window)
        self._paces: deque[float] = deque(maxlen=window)  # what batches took, over what fits say
        self._ratios: deque[float] = deque(maxlen=window)  # the same, over what was predicted
        self._overruns: deque[float] = deque(maxlen=window)
        self.refits = 0
        self.rebase(measurements)

    @property
    def error(self) -> float:
        """Mean relative error of the last predictions; 0 before the first."""
        return _mean([abs(1 / ratio - 1) for ratio in self._ratios])

    @property
    def overrun(self) -> float:
        """Seconds by which the last batches took longer than predicted, on average.

        A batch that took less counts as none, and one that took more than twice as long as twice.
        """
        return _mean(self._overruns)

    def rebase(self, measurements: Sequence[Measurement]) -> None:
        """Put a better grid in the place of the first; live batches set its pace as before."""
        self._grid = tuple(measurements)
        self.at_start = self._rested = fit(self._grid)
        self._adopt(self.at_start)
        if len(self._live) >= _FEW:
            self._paces.extend(m.seconds / self.at_start.seconds(m.shape) for m in self._live)
            self._keep_pace()

    def observe(self, measurement: Measurement, way: float = 0.0) -> bool:
        """Take in a live batch.

        Args:
            measurement: what the engine took.
            way: seconds to the lane and back.

        Returns:
            whether it changed the model.
        """
        self._live.append(measurement)
        self._ways.append(way)
        predicted, took = self.model.seconds(measurement.shape), measurement.seconds + way
        self._ratios.append(took / predicted)
        self._overruns.append(min(predicted, max(0.0, took - predicted)))
        self._paces.append(measurement.seconds / self._fitted.seconds(measurement.shape))
        self._since += 1
        before = self.model
        if self._since % _FEW:  # medians of a window move little from one batch to the next
            if len(self._paces) < _FEW and took < AT_ONCE * predicted:
                self._keep_pace()
        elif len(self._ratios) == self._ratios.maxlen and self._is_off():
            self._refit()
        else:
            self._keep_pace()
        return self.model is not before and self.model != before

    def _keep_pace(self) -> None:
        paces = self._paces
        pace = statistics.median(paces) if len(paces) >= _FEW else min(paces)
        self.model = self._fitted.scaled(pace).delayed(statistics.median(self._ways))

    def _is_off(self) -> bool:
        """Whether most predictions of the window were wrong by more than is tolerated."""
        low, high = 1 / (1 + self._tolerance), 1 / (1 - self._tolerance)
        good = sum([low <= ratio <= high for ratio in self._ratios])
        return 2 * good < len(self._ratios)

    def forget(self) -> None:
        """After a pause: trust the grid again, or the last live batches that were faster than it.

        A model that became too slow would refuse the very batches that could correct it; so would
        a grid that was measured in a bad minute.
        """
        paces = [m.seconds / self.at_start.seconds(m.shape) for m in self._live]
        if (pace := known_ratio(paces, _FEW)) < 1.0:
            self._rested = self.at_start.scaled(pace)
        self._live.clear()
        self._ways.clear()
        self._adopt(self._rested)

    def _refit(self) -> None:
        """The grid, as slow or fast as the machine is now, and the live batches on top of it."""
        factor = statistics.median(m.seconds / self.at_start.seconds(m.shape) for m in self._live)
        scaled = [Measurement(m.shape, m.seconds * factor) for m in self._grid]
        self._adopt(fit([*scaled, *self._live]))
        self.refits += 1

    def _adopt(self, fitted: CostModel) -> None:
        self._fitted = fitted
        self.model = fitted.delayed(statistics.median(self._ways)) if self._ways else fitted
        self._since = 0
        self._paces.clear()
        self._ratios.clear()
        self._overruns.clear()


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
