"""What follows a model's run, in slices: one thread, which the jobs of all models share.

::

    steps ──a few, at once──> done, as most are
       └──> queue of the model ──round robin: models, then jobs──> thread: some steps ──> loop
                  ↑ steps are left ───────────────────────────────────────────────┘
                  └── cancelled: dropped at once; late: DeadlineMissed; closed: Draining

A job is a generator: each `yield` is a place where another job, and the event loop, may go on.
Between two slices the thread waits for the loop, so that a loop that wants the interpreter has it
after a slice at the latest. All but the steps belongs to the event loop: no locks.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any, NamedTuple, TypeVar

from bertd_server.errors import DeadlineMissed, Draining
from bertd_server.scheduling.statistics import Statistics

T = TypeVar("T")
Steps = Generator[Any, None, T]
"""Work that yields after each part of it that takes some tenths of a ms, and returns its value.
Before a part that takes longer, and cannot be divided, it yields :data:`LONG`."""
LONG = "long"

SLICE_SECONDS = 0.002
# Most jobs are done sooner than a thread would begin them.
INLINE_SECONDS = 0.0005


@dataclass(slots=True, eq=False)
class _Job:
    """Steps that wait for a slice, or have one."""

    steps: Steps[Any]
    deadline: float
    done: asyncio.Future[Any]
    queue: JobQueue


class _SliceResult(NamedTuple):
    """How a slice ended: with steps left unless `ended`; then with a value, or an error."""

    seconds: float
    ended: bool
    value: Any = None
    error: BaseException | None = None


class SlicedExecutor:
    """The thread, and whose turn it is. Construct and use it on one event loop."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        slice_seconds: float = SLICE_SECONDS,
        inline_seconds: float = INLINE_SECONDS,
    ) -> None:
        """Start the thread.

        Args:
            clock: deadlines are on it.
            slice_seconds: after which a job lets others go on; 0 for a step at a time.
            inline_seconds: that a job may take on the event loop before it goes to the thread; 0
                sends each there.
        """
        self._loop = asyncio.get_running_loop()
        self._clock = clock
        self._slice_seconds = slice_seconds
        self.inline_seconds = inline_seconds
        self._turns: deque[JobQueue] = deque()
        self._running: _Job | None = None
        self._closed = False
        self._handed: SimpleQueue[_Job | None] = SimpleQueue()
        # Nobody waits for its end: a slice is short, and a step that is not must not hold the exit.
        threading.Thread(target=self._work, name="bertd-conclude", daemon=True).start()

    @property
    def busy(self) -> bool:
        """Whether the thread has something to do."""
        return self._running is not None or bool(self._turns)

    def put(self, job: _Job) -> None:
        """Let a job wait for its turn."""
        if self._closed:
            raise Draining("the server is shutting down: send the request to another one")
        job.done.add_done_callback(partial(self._settled, job))
        self._wait(job)
        self._next()

    def close(self) -> int:
        """Take no more; jobs that have not ended get `Draining`. Returns their number."""
        self._closed = True
        self._handed.put(None)
        ended = 0
        waiting = [job for queue in self._turns for job in queue.waiting]
        for job in [*waiting, *([self._running] if self._running else [])]:
            if not job.done.done():
                ended += 1
                job.done.set_exception(
                    Draining("the server stopped before it had an answer: send the text again")
                )
        return ended

    def _wait(self, job: _Job) -> None:
        if not job.queue.waiting:
            self._turns.append(job.queue)
        job.queue.waiting[job] = None

    def _settled(self, job: _Job, done: asyncio.Future[Any]) -> None:
        """Drop what nobody waits for any more, unless it has a slice at this moment."""
        job.queue.statistics.dropped += done.cancelled()
        if job in job.queue.waiting:
            del job.queue.waiting[job]
            job.steps.close()
            if not job.queue.waiting:
                self._turns.remove(job.queue)

    def _next(self) -> None:
        """Hand the next job to the thread, if it is free."""
        while self._running is None and self._turns and not self._closed:
            queue = self._turns.popleft()
            job = next(iter(queue.waiting))
            del queue.waiting[job]
            if queue.waiting:
                self._turns.append(queue)
            if job.done.done():  # settled in this turn of the loop
                job.steps.close()
            elif self._clock() >= job.deadline:
                job.steps.close()
                queue.statistics.refused["deadline"] += 1
                job.done.set_exception(
                    DeadlineMissed(
                        "the deadline passed while the answer was put together: allow more time, "
                        "or send fewer or shorter texts a call"
                    )
                )
            else:
                self._running = job
                self._handed.put(job)

    def _ended(self, job: _Job, result: _SliceResult) -> None:
        """A slice has ended: the next one first, then whoever waits for this one."""
        self._running = None
        job.queue.statistics.slices.observe(result.seconds)
        gone = job.done.done()
        if not gone and not result.ended:
            self._wait(job)
        self._next()
        if gone:
            job.steps.close()
        elif result.error is not None:
            job.done.set_exception(result.error)
        elif result.ended:
            job.done.set_result(result.value)

    def _work(self) -> None:
        """What the thread does: a slice of one job after the other."""
        while (job := self._handed.get()) is not None:
            result = _slice(job.steps, self._slice_seconds)
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._ended, job, result)
            del job, result  # a thread that waits must not keep a call's outputs in memory


class JobQueue:
    """The jobs of one model.

    Attributes:
        waiting: those that wait for a slice, in their order.
        statistics: of the model; slices are timed there, and dropped jobs counted.
    """

    def __init__(self, executor: SlicedExecutor, statistics: Statistics) -> None:
        """Have an executor do them."""
        self._executor = executor
        self.waiting: dict[_Job, None] = {}
        self.statistics = statistics

    async def run(self, steps: Steps[T], deadline: float = math.inf) -> T:
        """The value of some steps: done here at once if they are few, else on the thread.

        Cancelling the call drops the steps that are left.

        Args:
            steps: of a job.
            deadline: on the executor's clock; then the steps that are left are dropped.

        Raises:
            DeadlineMissed: the deadline passed.
            Draining: the server stopped meanwhile.
        """
        begin = time.perf_counter()
        try:
            while time.perf_counter() - begin < self._executor.inline_seconds:
                if next(steps) is LONG:
                    break
        except StopIteration as ended:
            value: T = ended.value
            return value
        return await self.submit(steps, deadline)

    def submit(self, steps: Steps[T], deadline: float = math.inf) -> asyncio.Future[T]:
        """Have steps done on the thread; as :meth:`run`, which waits."""
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._executor.put(_Job(steps, deadline, done, self))
        return done


def at_once(value: T) -> Steps[T]:
    """Steps of which none is left, for work that is too small to be divided."""
    yield from ()
    return value


def _slice(steps: Steps[Any], seconds: float) -> _SliceResult:
    """Some steps of a job: at least one, and no more once so many seconds are over."""
    begin = time.perf_counter()
    try:
        while True:
            next(steps)
            if (taken := time.perf_counter() - begin) >= seconds:
                return _SliceResult(taken, ended=False)
    except StopIteration as ended:
        return _SliceResult(time.perf_counter() - begin, ended=True, value=ended.value)
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is the job's
        return _SliceResult(time.perf_counter() - begin, ended=True, error=error)
