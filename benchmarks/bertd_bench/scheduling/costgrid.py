"""What batches cost on a machine, measured once and kept, so that a simulation needs no machine.

::

    random weights ─> bundle ─> each lane in a thread, all at once ─> lane: seconds of a shape
                            └─> one run with all threads           ─> wide: seconds of a shape
                                                                         └─fit─> Costs
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from bertd_server.scheduling.batching import Costs
from bertd_server.scheduling.cost import Measurement, Shape, fit
from pydantic import BaseModel

from bertd_bench.harness.machine import Machine

# Lengths, and how many sequences of each. Together they tell overhead, sequences, tokens and
# attention apart, up to batches that are at their best.
GRID: tuple[tuple[int, tuple[int, ...]], ...] = (
    (8, (1, 2, 4, 16, 64)),
    (16, (1, 4, 16, 64)),
    (32, (1, 4, 16, 32)),
    (64, (1, 4, 16)),
    (128, (1, 4, 8)),
    (256, (1, 2, 4)),
)
_MIXED = (8, 9, 12, 15, 20, 30, 60, 120)


class Cost(BaseModel, frozen=True):
    """Seconds of a batch: the median of its runs."""

    sequences: int
    tokens: int
    pairs: int
    lane: float
    wide: float


class ModelCosts(BaseModel, frozen=True):
    """One model on one machine.

    Attributes:
        size: a size of `checkpoints.SIZES`; weights are random, which costs the same.
        lanes: single-threaded runs that went on at the same time.
        grid: what was measured.
    """

    size: str
    lanes: int
    grid: list[Cost]

    def costs(self) -> Costs:
        """The models that a server would fit at its start."""
        lane, wide = (
            fit(
                [
                    Measurement(Shape(c.sequences, c.tokens, c.pairs), getattr(c, name))
                    for c in self.grid
                ]
            )
            for name in ("lane", "wide")
        )
        return Costs(lane, wide)


class CostGrid(BaseModel, frozen=True):
    """What `bertd bench costs` measured."""

    machine: Machine
    models: list[ModelCosts]


def batches() -> list[tuple[int, ...]]:
    """The lengths of each batch of the grid."""
    equal = [(length,) * count for length, counts in GRID for count in counts]
    return [*equal, _MIXED, _MIXED * 3]


def measure(size: str, lanes: int, rounds: int) -> ModelCosts:
    """Export BERT of a size with random weights, and time the grid in turns.

    Args:
        size: of `checkpoints.SIZES`.
        lanes: single-threaded runs at once; the wide run has as many threads.
        rounds: runs of each batch that are timed, after one that is not.
    """
    # Imported here: whoever only reads a grid needs no torch.
    from bertd_export.bundle import export_model  # noqa: PLC0415
    from bertd_server.engine.engine import Engine, EngineOptions  # noqa: PLC0415
    from bertd_server.engine.packing import TokenSequence  # noqa: PLC0415

    from bertd_bench.contestants import checkpoints  # noqa: PLC0415

    def sequences(lengths: Sequence[int]) -> list[TokenSequence]:
        rng = np.random.default_rng(0)
        return [
            TokenSequence(rng.integers(5, manifest.vocab_size, n), np.zeros(n, np.int64))
            for n in lengths
        ]

    with tempfile.TemporaryDirectory(prefix="bertd-costs-") as folder:
        source, target = Path(folder) / "checkpoint", Path(folder) / "bundle"
        checkpoints.save_random("bert", "feature-extraction", size, source)
        manifest = export_model(str(source), target).manifest
        engine = Engine(target, manifest, EngineOptions(threads=lanes, lanes=lanes))
        works = [(lengths, sequences(lengths)) for lengths in batches()]
        grid = []
        with ThreadPoolExecutor(lanes) as pool:
            for lengths, batch in works:
                shape = Shape.of(lengths)
                grid.append(
                    Cost(
                        sequences=shape.sequences,
                        tokens=shape.tokens,
                        pairs=shape.pairs,
                        lane=_together(pool, lanes, rounds, partial(engine.embed, batch)),
                        wide=_median(rounds, partial(engine.embed, batch, wide=True)),
                    )
                )
    return ModelCosts(size=size, lanes=lanes, grid=grid)


def _median(rounds: int, run: Callable[[], object]) -> float:
    """Seconds of a run, after one that warms up."""
    run()
    seconds = []
    for _ in range(rounds):
        begin = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


def _together(
    pool: ThreadPoolExecutor, lanes: int, rounds: int, run: Callable[[], object]
) -> float:
    """Seconds of a run while the other lanes do the same: as it is under load."""
    futures = [pool.submit(_median, rounds, run) for _ in range(lanes)]
    return statistics.median(future.result() for future in futures)
