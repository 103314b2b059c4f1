"""What batches cost on a machine, measured once and kept, and what it can do at most, by them.

On 2026-11-24 each model, with random weights, was run on an AMD EPYC of two cores with 25 shapes
of batches, from one text of 8 tokens to 64 of them and 4 of 256: on two lanes at once, one thread
each, and on one wide session with both. What follows are the cost models that a server fits to such
measurements at its start.

The most that it can do is the unit in which loads are given. A batch costs at least the sum over
its texts of :func:`least_work`, so that no schedule does more work than there is time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bertd_server.scheduling.batching import Costs
from bertd_server.scheduling.cost import CostModel, Shape

MACHINE = "AMD EPYC"
LANES = 2
_SIZES = tuple(2**i for i in range(15))


def _model(*microseconds: float) -> CostModel:
    """Of the overhead, of a sequence, of a pair of tokens, and of a token at each bend."""
    return CostModel(tuple(each / 1e6 for each in microseconds))


MEASURED = {
    "6 layers of 384 (MiniLM-L6)": Costs(
        _model(2374, 44.41, 0.0546, 108.4, 108.4, 87.9, 91.9, 90.56, 92.2, 99.7, 115.4, 115.4),
        _model(1337, 29.58, 0.0374, 57.6, 57.6, 45.9, 43.4, 47.24, 47.2, 52.3, 50.86, 50.86),
    ),
    "12 layers of 768 (BERT-base)": Costs(
        _model(11230, 0, 0.2119, 1021, 1021, 739.7, 677, 686.1, 719.3, 755.4, 857.5, 857.5),
        _model(8644, 62.7, 0.1203, 401.1, 401.1, 351.4, 347.8, 369.9, 339.2, 388.3, 371.9, 371.9),
    ),
}
"""By the names of models, as tables show them."""


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


def capacity(costs: Costs, lanes: int, max_tokens: int, texts: Sequence[Shape]) -> float:
    """Texts a second that the machine does at most, in endless work on texts like these."""
    work = least_work(costs, lanes, max_tokens)
    return len(texts) / sum(map(work, texts))
