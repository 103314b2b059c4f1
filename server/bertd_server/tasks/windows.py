"""Windows of a long text, merged token by token."""

from __future__ import annotations

import numpy as np
from bertd.bundle.arrays import Float32Array, Int64Array

from bertd_server.engine.engine import GraphOutputs
from bertd_server.scheduling.executor import Steps
from bertd_server.tokenization.reader import Reading

_COPIED_BYTES = 1_048_576  # in a step: some tenths of a ms


def merged(
    reading: Reading, outputs: list[GraphOutputs], name: str
) -> Steps[tuple[Int64Array, Float32Array]]:
    """An output of the graph for each token, from the window that speaks for it.

    That is the one in which the token has more context: more tokens to its nearer side; the
    earlier window where that is equal. The outputs are taken out of the list.

    Returns:
        places: `[tokens]`, ascending, those in the whole input that were read.
        values: `[tokens, …]`.
    """
    if len(outputs) == 1:
        return reading.windows[0].places, outputs.pop()[name]
    owner = yield from _owners(reading)
    places = np.flatnonzero(owner >= 0)
    first = outputs[0][name]
    values = np.empty((len(places), *first.shape[1:]), first.dtype)
    row = np.cumsum(owner >= 0) - 1
    rows_of_step = max(1, _COPIED_BYTES // max(1, first[:1].nbytes))
    del first
    for number, window in enumerate(reading.windows):
        given = outputs[number][name]
        outputs[number] = {}
        mine = np.flatnonzero(owner[window.places] == number)
        for start in range(0, len(mine), rows_of_step):
            some = mine[start : start + rows_of_step]
            values[row[window.places[some]]] = given[some]
            yield
    return places, values


def _owners(reading: Reading) -> Steps[Int64Array]:
    """The number of the window that speaks for each place of the input; -1 if none reads it."""
    size = 1 + max(int(window.places[-1]) for window in reading.windows)
    owner, most = np.full(size, -1, np.int64), np.full(size, -1, np.int64)
    for number, window in enumerate(reading.windows):
        places = window.places
        count = np.arange(len(places))
        context = np.minimum(count, count[::-1])
        better = context > most[places]
        most[places[better]], owner[places[better]] = context[better], number
        yield
    return owner


def news(reading: Reading) -> Steps[Int64Array]:
    """How many tokens each window reads that no earlier one has read, `[windows]`."""
    seen = np.zeros(1 + max(int(window.places[-1]) for window in reading.windows), np.bool_)
    counts = []
    for window in reading.windows:
        counts.append(len(window.places) - int(seen[window.places].sum()))
        seen[window.places] = True
        yield
    return np.array(counts, np.int64)
