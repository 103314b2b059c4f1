"""How the sequences of a packed batch are arranged: part of the bundle's contract.

Attention takes neighbours of equal length together, so sequences lie in ascending order of
length, and the graph is told where each run of equal lengths begins. Short and long sequences go
through different kernels; a sequence's own length decides which, never its neighbours::

    lengths      3 3 5 300
    short_runs   0   2 3        two runs of short sequences: 0 and 1, 2
    long_runs          3   4    one run of long sequences: 3
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Int64Array = NDArray[np.int64]

SHORT_TOKENS = 256
"""The longest sequence that counts as short."""


@dataclass(frozen=True, slots=True)
class Arrangement:
    """The order of the sequences, and their runs.

    Attributes:
        order: int64 `[sequences]`: which of the given sequences lies at each place.
        short_runs: int64 `[runs + 1]`: the place at which each run of short sequences begins, and
            the place after the last of them.
        long_runs: the same for long sequences.
    """

    order: Int64Array
    short_runs: Int64Array
    long_runs: Int64Array


def arrange(lengths: Int64Array) -> Arrangement:
    """Arrange sequences by length; equal ones keep their order.

    Args:
        lengths: int64 `[sequences]`, tokens of each.
    """
    order = np.argsort(lengths, kind="stable")
    ascending = lengths[order]
    starts = np.flatnonzero(np.diff(ascending, prepend=-1))
    short = int(np.searchsorted(ascending, SHORT_TOKENS, side="right"))
    edge = int(np.searchsorted(starts, short))
    return Arrangement(
        order=order,
        short_runs=np.append(starts[:edge], short),
        long_runs=np.append(starts[edge:], len(lengths)),
    )
