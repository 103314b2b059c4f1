"""The highest rate at which a run is valid: up while it is, down while it is not, then between."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bertd_bench.mlperf.results import TriedRate

_FACTOR = 1.15


def next_rate(tried: Sequence[TriedRate], start: float, precision: float) -> float | None:
    """The rate to try next; None once the search is over.

    Args:
        tried: rates so far.
        start: the first one.
        precision: ends it, between the best that was valid and the next that was not.
    """
    if not tried:
        return start
    low, high = bounds(tried)
    if low == 0:
        return high / _FACTOR ** (1 + sum(not each.valid for each in tried) // 2)
    if math.isinf(high):
        return low * _FACTOR
    return None if high <= low * (1 + precision) else math.sqrt(low * high)


def bounds(tried: Sequence[TriedRate]) -> tuple[float, float]:
    """The highest valid rate, 0 without one; and the lowest above it that was not, or inf."""
    low = max((each.rate for each in tried if each.valid), default=0.0)
    high = min(
        (each.rate for each in tried if not each.valid and each.rate > low), default=math.inf
    )
    return low, high
