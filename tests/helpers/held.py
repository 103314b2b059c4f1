"""An engine whose runs a test holds back, and a clock that it sets."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence

import numpy as np
from bertd.bundle.arrays import Float32Array
from bertd_server.engine.packing import TokenSequence
from bertd_server.models.calibration import Calibration
from bertd_server.scheduling.cost import CostModel, Measurement, Shape
from bertd_server.scheduling.deduplication import Completion, Computed
from bertd_server.scheduling.lanes import unheard
from bertd_server.scheduling.scheduler import Scheduler, SchedulerOptions
from helpers.patience import PATIENCE

FAILS, KILLS = 13, 17  # tokens of texts that make the engine fail, and that kill its lane

# 1 ms and 100 µs a token on a lane, half of it on the wide session.
LANE = CostModel((1e-3, 0.0, 0.0, *([1e-4] * 9)))
GRID = [Shape.of([length] * count) for length in (1, 8, 64, 512) for count in (1, 4)]


def calibration(*, wide: bool = False) -> Calibration:
    """What LANE measured, and a wide session twice as fast."""
    lane = [Measurement(shape, LANE.seconds(shape)) for shape in GRID]
    return Calibration(lane, [Measurement(m.shape, m.seconds / 2) for m in lane if wide])


def sequences(*lengths: int, token: int = 1) -> list[TokenSequence]:
    """Sequences of equal tokens."""
    return [TokenSequence(np.full(n, token), np.zeros(n, np.int64)) for n in lengths]


def values(outcomes: list[Completion]) -> list[float | type]:
    """The value of each answer, the class of each error."""
    return [
        float(one.outputs["value"][0]) if isinstance(one, Computed) else type(one)
        for one in outcomes
    ]


class Clock:
    """Seconds, as many as the test says."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class HeldEngine:
    """The value of a sequence is its length. Each run waits to be let go."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._started: asyncio.Queue[list[int]] = asyncio.Queue()
        self._permits = threading.Semaphore(0)
        self.runs: list[list[int]] = []
        self.wide_runs = 0

    async def started(self) -> list[int]:
        """Wait for the next run to begin; returns the lengths in it."""
        return await self._started.get()

    def let_go(self, runs: int = 10_000) -> None:
        """Let so many runs end, those that have not begun included."""
        self._permits.release(runs)

    def answer(
        self,
        batch: Sequence[TokenSequence],
        outputs: Sequence[str] | None = None,
        *,
        wide: bool = False,
    ) -> list[dict[str, Float32Array]]:
        assert outputs is None
        lengths = [len(sequence) for sequence in batch]
        self.runs.append(lengths)
        self.wide_runs += wide
        self._loop.call_soon_threadsafe(self._started.put_nowait, lengths)
        assert self._permits.acquire(timeout=PATIENCE)
        if FAILS in lengths:
            raise RuntimeError("thirteen")
        if KILLS in lengths:
            raise SystemExit("seventeen")
        return [{"value": np.array([n], np.float32)} for n in lengths]


def scheduler(
    engine: HeldEngine,
    clock: Clock | None = None,
    *,
    wide: bool = False,
    on_lanes: Callable[[int], None] = unheard,
    beside_others: Callable[[], bool] = lambda: False,
    **options: float,
) -> Scheduler:
    """A scheduler of small batches; further options by name."""
    given = {"max_batch_tokens": 40, "max_batch_sequences": 4, **options}
    return Scheduler(
        engine,
        calibration(wide=wide),
        SchedulerOptions(**given),  # type: ignore[arg-type]
        clock=clock or Clock(),
        on_lanes=on_lanes,
        beside_others=beside_others,
    )
