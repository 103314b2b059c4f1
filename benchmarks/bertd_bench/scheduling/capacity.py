"""What a machine can do at most: the unit in which loads are given.

A batch costs at least the sum over its texts of :func:`least_work`, so that no schedule does more
work than there is time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bertd_server.scheduling.batching import Costs
from bertd_server.scheduling.cost import Shape

from bertd_bench.scheduling.traffic import Arrival

_SIZES = tuple(2**i for i in range(15))


def least_work(costs: Costs, lanes: int, max_tokens: int) -> Callable[[Shape], float]:
    """Seconds of the whole machine that a text needs at least, whatever batch it is in.

    With `line(T)` the time of T tokens and nothing else, overhead included, a batch costs
    `line(T)`, plus what its sequences and pairs cost, which is theirs alone. Each token's share is
    at least the least `line(T) / T` of any legal T.
    """
    sessions = [(costs.lane, lanes)] + ([] if costs.wide is None else [(costs.wide, 1)])
    sizes = [size for size in (*_SIZES, max_tokens) if size <= max_tokens]
    least = [
        min((model.seconds(Shape(1, size, 0)) - model.weights[1]) / size for size in sizes)
        for model, _ in sessions
    ]

    def seconds(shape: Shape) -> float:
        works: list[float] = []
        for (model, at_once), line in zip(sessions, least, strict=True):
            _, sequence, pair, *_ = model.weights
            work = shape.sequences * sequence + shape.pairs * pair + shape.tokens * line
            works.append(work / at_once)
        return min(works)

    return seconds


def capacity(costs: Costs, lanes: int, max_tokens: int, texts: Sequence[Arrival]) -> float:
    """Texts a second that the machine does at most, in endless work on texts like these."""
    work = least_work(costs, lanes, max_tokens)
    return len(texts) / sum(work(text.shape) for text in texts)
