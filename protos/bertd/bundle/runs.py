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

from bertd.bundle.arrays import Int64Array

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

    Returns:
        For a sequence alone, one that others share: its arrays are read-only.
    """
    if len(lengths) == 1:
        return _LONE_SHORT if lengths[0] <= SHORT_TOKENS else _LONE_LONG
    order = lengths.argsort(kind="stable")
    ascending = lengths[order]
    begins = np.ones(len(lengths), np.bool_)
    np.not_equal(ascending[1:], ascending[:-1], out=begins[1:])
    starts = begins.nonzero()[0]
    short = ascending.searchsorted(SHORT_TOKENS, side="right")
    edge = starts.searchsorted(short)
    return Arrangement(
        order=order,
        short_runs=np.concatenate((starts[:edge], [short])),
        long_runs=np.concatenate((starts[edge:], [len(lengths)])),
    )


def _constant(*places: int) -> Int64Array:
    array = np.array(places, np.int64)
    array.flags.writeable = False
    return array


# Nothing is to be arranged where a text comes alone. Right after a run NumPy's code is in no cache,
# and to sort one length would cost a lone text a twentieth of its time.
_LONE_SHORT = Arrangement(_constant(0), short_runs=_constant(0, 1), long_runs=_constant(1))
_LONE_LONG = Arrangement(_constant(0), short_runs=_constant(0), long_runs=_constant(0, 1))
