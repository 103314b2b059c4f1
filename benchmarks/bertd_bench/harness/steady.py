"""Warm-up until steady.

A first call pages in weights, a second fills caches of kernels, a compiled model compiles. How
many calls that takes differs by contestant, so that no fixed number is fair. The rule::

    calls  ··· [a a a a a] [b b b b b]      two windows of five calls, side by side
    steady when  |median(b) - median(a)| <= 5 % of median(a)

It ends when that holds, or after a limit of seconds, which is then said beside the result.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

from pydantic import BaseModel

WINDOW = 5
DRIFT = 0.05


class Warmup(BaseModel, frozen=True):
    """What a warm-up took, and whether it came to rest.

    Attributes:
        last_ns: median of the last window.
    """

    calls: int
    seconds: float
    steady: bool
    last_ns: float


def is_steady(samples: list[int]) -> bool:
    """Whether the last two windows agree."""
    if len(samples) < 2 * WINDOW:
        return False
    before = median(samples[-2 * WINDOW : -WINDOW])
    return abs(median(samples[-WINDOW:]) - before) <= DRIFT * before


def warm_up(turn: Callable[[int], list[int]], limit_seconds: float) -> Warmup:
    """Call until steady, or until calls have taken so long; at least once.

    Args:
        turn: makes so many calls, gives nanoseconds of each.
        limit_seconds: of calls.
    """
    samples: list[int] = []
    while True:
        samples += turn(1)
        spent = sum(samples) / 1e9
        steady = is_steady(samples)
        if steady or spent >= limit_seconds:
            last = float(median(samples[-WINDOW:]))
            return Warmup(calls=len(samples), seconds=spent, steady=steady, last_ns=max(last, 1.0))
