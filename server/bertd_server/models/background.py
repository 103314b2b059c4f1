"""Calibration goes on behind traffic: the shapes that the start had no time for, while lanes rest.

::

    Grid.following ──a pool that was quiet for a moment──> trial on lanes ──> Grid.add
          ^                        │ a request came: the trial ends at its next operator
          └── pause <──────────────┘
    every shape has run, and at last ──> the scheduler predicts from it ──> cache, if it is good

It ends by itself: when the grid is whole and clean, or its seconds are spent. All on the event
loop, but for the runs themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from bertd.bundle.arrays import Float32Array

from bertd_server.engine.packing import TokenSequence
from bertd_server.engine.sessions import Interrupt
from bertd_server.models.calibration import Calibration, Grid, Trial
from bertd_server.models.sampling import Sample
from bertd_server.scheduling.deduplication import Batch
from bertd_server.scheduling.lanes import BatchJob, BatchResult
from bertd_server.scheduling.pool import Pool
from bertd_server.system.logs import get_logger

log = get_logger("bertd")

_QUIET_SECONDS = 0.25  # without a batch, before a trial
_PAUSE_SECONDS = 0.05  # between trials
_LONGEST_PAUSE = 5.0


class Background:
    """Runs what is left of a grid. Construct and use it on the event loop of the pool."""

    def __init__(
        self,
        grid: Grid,
        pool: Pool,
        changed: Callable[[Calibration], None],
        name: str,
        *,
        longest_pause: float = _LONGEST_PAUSE,
    ) -> None:
        """Begin.

        Args:
            grid: what the start has left.
            pool: of the lanes.
            changed: told when it is known better how long batches take.
            name: of the model, for the log.
            longest_pause: seconds, while there is traffic or others have the cores.
        """
        self._grid = grid
        self._pool = pool
        self._changed = changed
        self._name = name
        self._longest_pause = longest_pause
        self._quiet = min(_QUIET_SECONDS, longest_pause)
        self._interrupt: Interrupt | None = None
        self._batch: Batch | None = None
        self._task = asyncio.get_running_loop().create_task(self._go_on())

    def stop(self) -> None:
        """Run nothing more; what runs ends at its next operator."""
        self._task.cancel()
        if self._interrupt is not None:
            self._interrupt.set()

    def running(self) -> frozenset[Batch]:
        """The trial that runs, as a batch of nobody's: a lane may be stuck in one too."""
        return frozenset() if self._batch is None else frozenset([self._batch])

    async def _go_on(self) -> None:
        grid, covered = self._grid, False
        pause = shortest = min(_PAUSE_SECONDS, self._longest_pause)
        while True:
            trial = grid.following()
            if trial is None:
                grid.retry()
                trial = grid.following()
            if trial is None:
                break
            await asyncio.sleep(pause)
            if self._pool.quiet_seconds() < self._quiet:
                pause = min(2 * pause, self._longest_pause)
                continue
            clean = await self._run(trial)
            pause = shortest if clean else min(2 * pause, self._longest_pause)
            if not covered and grid.covered:
                covered = True
                self._changed(grid.measured())
        self._changed(grid.measured())
        flaw = grid.flaw()
        log.info("calibrated", model=self._name, kept=flaw is None, reason=flaw)
        await asyncio.to_thread(grid.keep)

    async def _run(self, trial: Trial) -> bool:
        """Run a trial on the lanes; whether it was clean. A request that comes ends it."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        left = lanes = 1 if trial.wide else self._pool.alive
        self._interrupt = Interrupt()
        runner = _Runner(self._grid, trial, self._interrupt)

        def done(_: BatchResult) -> None:
            nonlocal left
            left -= 1
            if not left and not ended.done():
                ended.set_result(None)

        job = BatchJob(runner, [], None, trial.wide, done)
        begin = loop.time()
        self._batch = Batch([], trial.shape, trial.wide, trial.seconds, begin)
        self._pool.lend([job] * lanes, self._interrupt.set)
        await ended
        self._interrupt = self._batch = None
        whole = len(runner.samples) == lanes
        self._grid.add(trial, runner.samples if whole else [], loop.time() - begin)
        return whole and not any(sample.disturbed for sample in runner.samples)


class _Runner:
    """What lanes take for the engine during a trial; it answers nobody."""

    def __init__(self, grid: Grid, trial: Trial, interrupt: Interrupt) -> None:
        self._grid = grid
        self._trial = trial
        self._interrupt = interrupt
        self.samples: list[Sample] = []

    def answer(
        self,
        sequences: Sequence[TokenSequence],  # noqa: ARG002 - as engines have it
        outputs: Sequence[str] | None = None,  # noqa: ARG002
        *,
        wide: bool = False,  # noqa: ARG002 - the trial knows
    ) -> list[dict[str, Float32Array]]:
        """Run the trial, whose texts the grid has; nothing of its answers is kept."""
        self.samples.append(self._grid.run(self._trial, self._interrupt))
        return []
