"""What batches cost on a machine, measured once and kept, so that a simulation needs none.

On 2026-11-24 each model, with random weights, was run on an AMD EPYC of two cores with 25 shapes
of batches, from one text of 8 tokens to 64 of them and 4 of 256: on two lanes at once, one thread
each, and on one wide session with both. What follows are the cost models that a server fits to such
measurements at its start.
"""

from __future__ import annotations

from dataclasses import dataclass

from bertd_server.scheduling.batching import Costs
from bertd_server.scheduling.cost import CostModel

MACHINE = "AMD EPYC"
LANES = 2


@dataclass(frozen=True, slots=True)
class MeasuredModel:
    """A model on that machine, as tables call it, and what its batches cost."""

    name: str
    costs: Costs


def _model(*microseconds: float) -> CostModel:
    """Of the overhead, of a sequence, of a pair of tokens, and of a token at each bend."""
    return CostModel(tuple(each / 1e6 for each in microseconds))


MEASURED = (
    MeasuredModel(
        "6 layers of 384 (MiniLM-L6)",
        Costs(
            _model(2374, 44.41, 0.0546, 108.4, 108.4, 87.9, 91.9, 90.56, 92.2, 99.7, 115.4, 115.4),
            _model(1337, 29.58, 0.0374, 57.6, 57.6, 45.9, 43.4, 47.24, 47.2, 52.3, 50.86, 50.86),
        ),
    ),
    MeasuredModel(
        "12 layers of 768 (BERT-base)",
        Costs(
            _model(11230, 0, 0.2119, 1021, 1021, 739.7, 677, 686.1, 719.3, 755.4, 857.5, 857.5),
            _model(
                8644, 62.7, 0.1203, 401.1, 401.1, 351.4, 347.8, 369.9, 339.2, 388.3, 371.9, 371.9
            ),
        ),
    ),
)
