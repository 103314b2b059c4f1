"""Windows of a long text, merged token by token."""

from __future__ import annotations

import numpy as np
from bertd.bundle.arrays import Int64Array

from bertd_server.tokenization.reader import Reading


def owners(reading: Reading) -> tuple[Int64Array, Int64Array]:
    """Which window speaks for each token: the one in which it has more context.

    That is, more tokens to its nearer side; the earlier window where that is equal.

    Returns:
        places: `[tokens]`, ascending, those in the whole input that were read.
        rows: `[tokens]`, where each is among all tokens of all windows, end to end.
    """
    places = np.concatenate([window.places for window in reading.windows])
    if len(reading.windows) == 1:
        return places, np.arange(len(places))
    sizes = [len(window.places) for window in reading.windows]
    context = np.concatenate([np.minimum(np.arange(n), np.arange(n)[::-1]) for n in sizes])
    order = np.lexsort((np.arange(len(places)), -context, places))
    first = np.r_[True, np.diff(places[order]) > 0]
    rows = order[first]
    return places[rows], rows
