"""An upper bound: what no scheduler can beat, not even one that knows all arrivals.

Three things are granted that no real one has:

- **Each text costs its least share of any batch.** A batch costs at least the sum over its texts
  of :func:`least_work`, so that a schedule with more work than time is impossible.
- **The machine is one fluid.** Work is done in any pieces, at any time between a text's arrival
  and its deadline. Real batches run whole, on one lane or on all.
- **Parts of a text count.** Half of its work is worth half of its tokens.

What is left is a linear program: give each text `y` of work, at most its own, so that for every
`s < t` the texts that arrive after `s` and expire before `t` get no more than `t - s` in all; the
value of a text is earned in proportion. The feasible `y` form a polymatroid, hence adding texts
one by one, each time throwing out the cheapest of the texts that compete for the same time, gives
the exact optimum (Edmonds 1970). Texts that are late even alone on an idle machine count nothing.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from bertd_server.scheduling.batching import Costs
from bertd_server.scheduling.cost import CostModel, Shape
from numpy.typing import NDArray

from bertd_bench.scheduling.traffic import Arrival, lone

_EPSILON = 1e-9  # seconds; less is rounding
_SIZES = tuple(2**i for i in range(15))


@dataclass(frozen=True, slots=True)
class Bound:
    """The most that any scheduler could do.

    Attributes:
        requests: answered in time, if requests are what counts; parts of one count as parts.
        tokens: of requests answered in time, if tokens are what counts.
    """

    requests: float
    tokens: float


def least_work(costs: Costs, lanes: int, max_tokens: int) -> Callable[[Shape], float]:
    """Seconds of the whole machine that a text needs at least, whatever batch it is in.

    With `line(T)` the time of T tokens and nothing else, overhead included, a batch costs
    `line(T)`, plus what its sequences and pairs cost, which is theirs alone. Each token's share is
    at least the least `line(T) / T` of any legal T.
    """

    @functools.cache
    def of(model: CostModel, longest: int) -> tuple[float, float, float]:
        _, sequence, pair, *_ = model.weights
        sizes = [size for size in (*_SIZES, longest) if size <= longest]
        line = min((model.seconds(Shape(1, size, 0)) - sequence) / size for size in sizes)
        return sequence, pair, line

    def seconds(shape: Shape) -> float:
        longest = max(max_tokens, shape.tokens)
        choices = [(costs.lane, lanes)]
        if costs.wide is not None:
            choices.append((costs.wide, 1))
        works = []
        for model, at_once in choices:
            sequence, pair, line = of(model, longest)
            work = shape.sequences * sequence + shape.pairs * pair + shape.tokens * line
            works.append(work / at_once)
        return min(works)

    return seconds


def capacity(costs: Costs, lanes: int, max_tokens: int, texts: Sequence[Arrival]) -> float:
    """Texts a second that the machine does at most, in endless work on texts like these."""
    work = least_work(costs, lanes, max_tokens)
    return len(texts) / sum(work(text.shape) for text in texts)


def bound(arrivals: Sequence[Arrival], costs: Costs, lanes: int, max_tokens: int) -> Bound:
    """The most requests, and the most tokens, that could be answered in time."""
    work = least_work(costs, lanes, max_tokens)
    possible = [a for a in arrivals if a.at + lone(costs, a.tokens) <= a.deadline]
    if not possible:
        return Bound(0.0, 0.0)
    needed = np.array([work(a.shape) for a in possible])
    tokens = np.array([a.tokens for a in possible], np.float64)
    starts = np.array([a.at for a in possible])
    ends = np.array([a.deadline for a in possible])
    requests = _most(starts, ends, needed, 1 / needed)
    best = _most(starts, ends, needed, tokens / needed)
    return Bound(
        float((requests / needed).sum()),
        float((best / needed * tokens).sum()),
    )


Floats = NDArray[np.float64]


def _most(starts: Floats, ends: Floats, needed: Floats, worth: Floats) -> Floats:
    """Seconds of work for each text, so that the sum of `worth` times them is the greatest.

    Args:
        starts: of each text's time, ascending.
        ends: of it.
        needed: seconds of work, at most.
        worth: of a second of work.
    """
    given = np.zeros(len(starts))
    for new in np.argsort(ends, kind="stable").tolist():
        # load[i]: work so far between starts[i] and the deadline of the new text, beyond the time
        # there is. Only texts that expire no later have been given any.
        load = np.cumsum(given[::-1])[::-1] - (ends[new] - starts)
        missing = float(needed[new])
        while missing > _EPSILON:
            room = -float(load[: new + 1].max())
            if room > _EPSILON:
                step = min(missing, room)
                given[new] += step
                load[: new + 1] += step
                missing -= step
                continue
            tight = int(np.flatnonzero(load[: new + 1] >= -_EPSILON)[-1])
            rivals = np.flatnonzero(given[tight:] > _EPSILON) + tight
            worst = int(rivals[np.argmin(worth[rivals])]) if len(rivals) else new
            if worth[worst] >= worth[new]:
                break
            between = load[worst + 1 : new + 1]
            step = min(missing, float(given[worst]), -float(between.max(initial=-math.inf)))
            given[worst] -= step
            given[new] += step
            load[: worst + 1] -= step
            load[: new + 1] += step
            missing -= step
    return given
