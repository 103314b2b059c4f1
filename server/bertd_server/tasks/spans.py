"""Stretches of a context and their scores: the best of them, and what all of them sum up to.

::

    windows ──a few starts at a time──> band [starts, lengths]: the best score of any window
                                          └──> best stretches so far, sum of exponentials so far

A context of 50,000 tokens has millions of spans: none is an object, and no more than a block of
them is in memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from bertd.bundle import heads
from bertd.bundle.arrays import Float32Array, Int64Array
from numpy.typing import NDArray

from bertd_server.scheduling.executor import Steps

_BLOCK = 32_768  # spans of a block: about a ms


@dataclass(frozen=True, slots=True)
class WindowLogits:
    """What a window says of the context's tokens that it has read.

    Attributes:
        places: int64 `[tokens]`, ascending, among the context's tokens.
        starts: float32 `[tokens]`, logits.
        ends: float32 `[tokens]`.
    """

    places: Int64Array
    starts: Float32Array
    ends: Float32Array


@dataclass(slots=True)
class BestStretches:
    """The best of the stretches that were seen, best first, and the sum over all of them.

    Attributes:
        count: how many are kept.
        first: int64 `[kept]`, code points; -1 for no answer.
        last: int64 `[kept]`.
        scores: float32 `[kept]`.
    """

    count: int
    first: Int64Array = field(default_factory=lambda: np.empty(0, np.int64))
    last: Int64Array = field(default_factory=lambda: np.empty(0, np.int64))
    scores: Float32Array = field(default_factory=lambda: np.empty(0, np.float32))
    _highest: float = -math.inf
    _sum: float = 0.0

    def add(self, first: Int64Array, last: Int64Array, scores: Float32Array) -> None:
        """Take stretches, each of which was not there before; of equal scores the earlier stay."""
        if not len(scores):
            return
        highest = max(self._highest, float(scores.max()))
        self._sum *= math.exp(self._highest - highest)
        self._sum += float(np.exp(scores - np.float32(highest), dtype=np.float64).sum())
        self._highest = highest
        best = heads.largest(scores, self.count)
        first, last = np.r_[self.first, first[best]], np.r_[self.last, last[best]]
        scores = np.r_[self.scores, scores[best]]
        kept = heads.largest(scores, self.count)
        self.first, self.last, self.scores = first[kept], last[kept], scores[kept]

    def probabilities(self) -> list[float]:
        """Of the kept ones, among all, as float32 has them."""
        powers = np.exp(self.scores.astype(np.float64) - self._highest)
        found: list[float] = (powers / self._sum).astype(np.float32).tolist()
        return found


def best_stretches(
    windows: Sequence[WindowLogits], points: Int64Array, *, count: int, max_tokens: int
) -> Steps[BestStretches]:
    """The best stretches of a context; equal ones of several windows, or spans, count once.

    Args:
        windows: in the order of their first places.
        points: int64 `[tokens, 2]`, code points of the context's tokens.
        count: how many.
        max_tokens: of the longest span.
    """
    found = BestStretches(count)
    firsts = np.array([window.places[0] for window in windows])
    lasts = np.maximum.accumulate([window.places[-1] for window in windows])
    # Several tokens may stand for parts of a character: then spans differ that are one stretch.
    ambiguous = bool((np.diff(points, axis=0) <= 0).any())
    for begin, end in _blocks(points[:, 0], max(1, _BLOCK // max_tokens)):
        band = np.full((end - begin, max_tokens), -np.inf, np.float32)
        before = int(np.searchsorted(firsts, end))
        for window in windows[int(np.searchsorted(lasts, begin)) : before]:
            _score(band, begin, window)
            yield
        rows, lengths = np.nonzero(band > -np.inf)
        stretches = points[begin + rows, 0], points[begin + rows + lengths, 1], band[rows, lengths]
        found.add(*(_unique(*stretches) if ambiguous else stretches))
        yield
    return found


def _blocks(starts: Int64Array, size: int) -> Sequence[tuple[int, int]]:
    """Neighbouring tokens, so many or a few more: those that begin at one code point together."""
    if (np.diff(starts) < 0).any():  # equal ones may be anywhere
        return [(0, len(starts))]
    allowed = np.r_[0, 1 + np.flatnonzero(np.diff(starts)), len(starts)]
    bounds = allowed[np.searchsorted(allowed, np.arange(0, len(starts), size))]
    bounds = np.unique(np.r_[bounds, len(starts)]).tolist()
    return list(pairwise(bounds))


def _score(band: Float32Array, begin: int, window: WindowLogits) -> None:
    """Raise the scores of spans that begin at `begin` or later to what a window says of them."""
    size, longest = band.shape
    low = int(np.searchsorted(window.places, begin))
    high = int(np.searchsorted(window.places, begin + size))
    if low == high:
        return
    rows = window.places[low:high] - begin
    first, reach = int(rows[0]), int(rows[-1]) + longest
    ends = np.full(reach - first, -np.inf, np.float32)
    within = slice(low, int(np.searchsorted(window.places, begin + reach)))
    ends[window.places[within] - begin - first] = window.ends[within]
    scores = np.lib.stride_tricks.sliding_window_view(ends, longest)[rows - first]
    scores = scores + window.starts[low:high, None]
    band[rows] = np.maximum(band[rows], scores)


def _unique(
    first: Int64Array, last: Int64Array, scores: Float32Array
) -> tuple[Int64Array, Int64Array, Float32Array]:
    """Each stretch once, in their order, with its best score."""
    order = np.lexsort((-scores, last, first))
    first, last, scores = first[order], last[order], scores[order]
    unique: NDArray[np.bool_] = np.r_[
        np.ones(len(order[:1]), np.bool_), (np.diff(first) != 0) | (np.diff(last) != 0)
    ]
    return first[unique], last[unique], scores[unique]
