"""Lanes: threads that run batches on an engine, one each at a time.

::

    event loop ──run(job)──> lane thread: engine.answer ──one wake-up──> job.done(result)
         ^                        │ something worse than an Exception
         └── replace() <── died ──┘

An Exception belongs to the batch: the lane lives. Whatever else leaves the engine ends the lane,
which the loop replaces before it hears about the batch.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Protocol

from bertd.bundle.arrays import Float32Array

from bertd_server.engine.packing import TokenSequence
from bertd_server.system import cpu
from bertd_server.system.logs import get_logger

log = get_logger("bertd")


class BatchEngine(Protocol):
    """What lanes need of an engine."""

    def answer(
        self,
        sequences: Sequence[TokenSequence],
        outputs: Sequence[str] | None = None,
        *,
        wide: bool = False,
    ) -> list[dict[str, Float32Array]]:
        """Compute outputs for sequences, as one packed batch; many threads may do so at once."""


@dataclass(frozen=True, slots=True)
class BatchResult:
    """How a job ended: `outputs` of each sequence, or `error`; when it began, and its seconds."""

    outputs: list[dict[str, Float32Array]]
    began: float
    seconds: float
    error: BaseException | None = None
    died: bool = False


@dataclass(frozen=True, slots=True)
class BatchJob:
    """A batch for a lane. `done` is called on the event loop.

    Attributes:
        engine: that runs it.
        sequences: of the batch.
        outputs: that any of them wants; None for those that the engine computes unless told
            otherwise.
        wide: run on all threads.
        done: told how it ended.
    """

    engine: BatchEngine
    sequences: Sequence[TokenSequence]
    outputs: Sequence[str] | None
    wide: bool
    done: Callable[[BatchResult], None]


def result_of(job: BatchJob, clock: Callable[[], float]) -> BatchResult:
    """Run a job on this thread; whatever it raises is in the result."""
    begin = clock()
    try:
        outputs = job.engine.answer(job.sequences, job.outputs, wide=job.wide)
        if len(outputs) != len(job.sequences):  # callers must not wait for ever
            raise RuntimeError(f"{len(outputs)} answers for {len(job.sequences)} sequences")  # noqa: TRY301
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the batch's
        return BatchResult([], begin, clock() - begin, error)
    except BaseException as error:  # noqa: BLE001 - the loop must learn of the death
        return BatchResult([], begin, clock() - begin, error, died=True)
    return BatchResult(outputs, begin, clock() - begin)


def unheard(alive: int) -> None:
    """Where nobody wants to know how many lanes are alive."""


class Lanes:
    """As many lane threads as asked for, as far as the system gives them.

    Attributes:
        alive: lanes that can run a job.
    """

    def __init__(
        self,
        count: int,
        *,
        clock: Callable[[], float],
        changed: Callable[[int], None],
        niceness: int = 0,
        retry_seconds: float = 1.0,
    ) -> None:
        """Start lanes; construct this on the event loop.

        Args:
            count: how many lanes.
            clock: seconds.
            changed: told how many lanes are alive, whenever that changes.
            niceness: of the lanes, above that of the process.
            retry_seconds: pause after which a lane that could not be replaced is tried again.
        """
        self._clock = clock
        self._changed = changed
        self._niceness = niceness
        self._retry_seconds = retry_seconds
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[BatchJob | None] = SimpleQueue()
        self._threads: set[threading.Thread] = set()
        self._closed = False
        self.alive = 0
        for _ in range(count):
            self._start()

    def run(self, job: BatchJob) -> None:
        """Hand a job to the lane that is free next."""
        self._jobs.put(job)

    def close(self, *, wait: bool = True) -> None:
        """End the lanes, once they have finished what was handed to them.

        Args:
            wait: for their end; without, a lane that never comes back is left behind.
        """
        self._closed = True
        for _ in self._threads:
            self._jobs.put(None)
        for thread in tuple(self._threads) if wait else ():
            thread.join()

    def _start(self) -> None:
        if self._closed:
            return
        thread = threading.Thread(target=self._work, name="bertd-lane", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the system has no thread to give
            log.warning("no thread", error=str(error), retry_seconds=self._retry_seconds)
            self._loop.call_later(self._retry_seconds, self._start)
            return
        self._threads.add(thread)
        self.alive += 1
        self._changed(self.alive)

    def _work(self) -> None:
        """What a lane's thread does: jobs, until there is no more or one kills it."""
        cpu.step_back(self._niceness)
        while (job := self._jobs.get()) is not None:
            if not self._do(job):
                return
            del job  # a lane that waits must not keep a model in memory that is not served any more

    def _do(self, job: BatchJob) -> bool:
        """Run a job; whether the lane lives."""
        result = result_of(job, self._clock)
        if result.died:
            self._tell(self._replace, threading.current_thread(), job, result)
        else:
            self._tell(job.done, result)
        return not result.died

    def _tell(self, what: Callable[..., None], *given: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(what, *given)

    def _replace(self, thread: threading.Thread, job: BatchJob, result: BatchResult) -> None:
        log.error("a lane died", error=repr(result.error), sequences=len(job.sequences))
        self._threads.discard(thread)
        self.alive -= 1
        self._changed(self.alive)
        self._start()
        job.done(result)
