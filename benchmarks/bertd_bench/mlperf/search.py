"""The highest rate at which a run is valid: up while it is, down while it is not, then between."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from bertd_bench.mlperf.results import TriedRate

_FACTOR = 1.15


def search(
    valid: Callable[[float], bool], start: float, precision: float, most: int
) -> list[TriedRate]:
    """Try rates; gives all of them in order.

    Args:
        valid: runs at a rate.
        start: the first one.
        precision: ends it, between the best that was valid and the next that was not.
        most: tries.
    """
    tried: list[TriedRate] = []
    rate = start
    while len(tried) < most:
        tried.append(TriedRate(rate=rate, valid=valid(rate)))
        low, high = bounds(tried)
        if low == 0:
            rate = high / _FACTOR ** (1 + sum(not each.valid for each in tried) // 2)
        elif math.isinf(high):
            rate = low * _FACTOR
        elif high <= low * (1 + precision):
            break
        else:
            rate = math.sqrt(low * high)
    return tried


def bounds(tried: Sequence[TriedRate]) -> tuple[float, float]:
    """The highest valid rate, 0 without one; and the lowest above it that was not, or inf."""
    low = max((each.rate for each in tried if each.valid), default=0.0)
    high = min(
        (each.rate for each in tried if not each.valid and each.rate > low), default=math.inf
    )
    return low, high
