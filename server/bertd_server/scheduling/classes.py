"""How live batches of one size compare with predictions, on a lane and on all threads.

::

    batch that had the lanes for itself ──> its class: the power of two of its tokens
                                              ├──> factor: what such batches take over predictions
                                              └──> due: the other session was not tried for long

The pace of a session is one number for all batches. But neighbours do not slow all of them alike: a
short text on all threads waits for each of them at every operator. So which session is faster is
decided by batches of the same class. Pure: it takes the time as an argument.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from bertd_server.scheduling.cost import CostModel, Shape, known_ratio

_KEPT = 8  # batches of a class
_FEW = 3  # of them that say how long such batches take
_AGAIN = 32  # batches of a class on one session, after which the other is tried

NEUTRAL = 1.0
"""The factor of a class of which nothing is known."""


def size_class(shape: Shape) -> int:
    """The power of two of a batch's tokens, rounded down."""
    return shape.tokens.bit_length()


@dataclass(slots=True)
class _Lone:
    """A batch that had all lanes for itself, and what it took over what a model predicts."""

    shape: Shape
    seconds: float
    by: CostModel | None = None
    ratio: float = NEUTRAL

    def over(self, model: CostModel) -> float:
        """That ratio; models change seldom."""
        if self.by is not model:
            self.by, self.ratio = model, self.seconds / model.seconds(self.shape)
        return self.ratio


class SizeClasses:
    """Live batches of one session, by class."""

    def __init__(self) -> None:
        self._batches: dict[int, deque[_Lone]] = {}
        self._last: dict[int, float] = {}

    @property
    def oldest(self) -> float:
        """When the class that was longest without a batch had one; infinite if none has."""
        return min(self._last.values(), default=math.inf)

    def observe(self, shape: Shape, seconds: float, now: float) -> None:
        """Take in a batch that had all lanes for itself.

        Args:
            shape: of it.
            seconds: from its start to its end, the way to the lane included.
            now: when it ended.
        """
        kind = size_class(shape)
        self._batches.setdefault(kind, deque(maxlen=_KEPT)).append(_Lone(shape, seconds))
        self._last[kind] = now

    def forget(self, before: float) -> bool:
        """Forget classes that have seen no batch since a time; whether there were any."""
        stale = [kind for kind, last in self._last.items() if last < before]
        for kind in stale:
            del self._batches[kind], self._last[kind]
        return bool(stale)

    def factor(self, kind: int, model: CostModel) -> float:
        """What batches of a class take, over what a model predicts of them."""
        return known_ratio([one.over(model) for one in self._batches.get(kind, ())], _FEW)

    def factors(self, model: CostModel) -> dict[int, float]:
        """The same, of all classes that have seen a batch."""
        return {kind: self.factor(kind, model) for kind in self._batches}


class Rows:
    """How many batches of each class went to one session since the other one was tried."""

    def __init__(self) -> None:
        self._wide: dict[int, int] = {}  # in a row; below 0 those on a lane

    def observe(self, shape: Shape, *, wide: bool) -> None:
        """Count a batch that could have gone to either."""
        kind = size_class(shape)
        row = self._wide.get(kind, 0)
        self._wide[kind] = max(0, row) + 1 if wide else min(0, row) - 1

    def due(self) -> dict[int, bool]:
        """Classes whose other session is to be tried where that costs little: the wide one?"""
        return {kind: row < 0 for kind, row in self._wide.items() if abs(row) >= _AGAIN}
