"""What a task makes of the outputs of each input, as soon as all of them are there.

::

    completion ──hear──> input: its windows ──last one──> light: at the call's end
                                                 └──────> heavy: on the executor, now
                                                            └── its outputs are given up
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from bertd_server.engine.engine import GraphOutputs
from bertd_server.errors import InvalidInput, RequestError
from bertd_server.scheduling.deduplication import Completion, Computed
from bertd_server.scheduling.executor import JobQueue, Steps
from bertd_server.tokenization.reader import Reading

T = TypeVar("T")
Conclude = Callable[[Reading, list[GraphOutputs]], Steps[T]]
"""The value of an input, from its reading and the outputs of each of its windows. It may take
entries out of the list, so that they are in memory no longer than needed."""

# What an input's outputs may take until the end of its call.
_LIGHT_BYTES = 262_144


@dataclass(slots=True, eq=False)
class ConcludedInput(Generic[T]):
    """An input of a call, and what has become of it. Durations in ns.

    Attributes:
        reading: of it.
        missing: windows that have no completion yet.
        outputs: of the windows, in their order; none once it is concluded.
        error: the first that a window has met, or why it cannot be concluded.
        value: what the task makes of it.
        queue_ns: of its windows, the longest.
        compute_ns: likewise.
        batch: sequences and tokens of the last window's batch.
        nbytes: of the outputs.
    """

    reading: Reading
    missing: int
    outputs: list[GraphOutputs]
    error: RequestError | None = None
    value: T | None = None
    queue_ns: int = 0
    compute_ns: int = 0
    batch: tuple[int, int] = (0, 0)
    nbytes: int = 0


@dataclass(slots=True, eq=False)
class Conclusions(Generic[T]):
    """The inputs of a call that were read. Use it on the event loop.

    Attributes:
        inputs: in their order.
    """

    inputs: list[ConcludedInput[T]]
    _conclude: Conclude[T]
    _jobs: JobQueue
    _deadline: float
    _owners: list[tuple[int, int]] = field(default_factory=list)
    _ready: list[ConcludedInput[T]] = field(default_factory=list)
    _running: asyncio.Future[None] | None = None

    @classmethod
    def of(
        cls,
        readings: Sequence[Reading | InvalidInput],
        conclude: Conclude[T],
        jobs: JobQueue,
        deadline: float = math.inf,
    ) -> Conclusions[T]:
        """Of a call with these readings, whose sequences are those of its windows in order."""
        made = cls([], conclude, jobs, deadline)
        for reading in readings:
            if isinstance(reading, Reading):
                count = len(reading.windows)
                made._owners += [(len(made.inputs), window) for window in range(count)]
                made.inputs.append(ConcludedInput(reading, count, [{}] * count))
        return made

    def hear(self, index: int, completion: Completion) -> None:
        """Take the completion of a sequence of the call."""
        place, window = self._owners[index]
        one = self.inputs[place]
        one.missing -= 1
        if isinstance(completion, Computed):
            one.outputs[window] = completion.outputs
            one.nbytes += sum(array.nbytes for array in completion.outputs.values())
            one.queue_ns = max(one.queue_ns, completion.queue_ns)
            one.compute_ns = max(one.compute_ns, completion.compute_ns)
            one.batch = completion.batch_sequences, completion.batch_tokens
        else:
            one.error = one.error or completion
        if one.missing:
            return
        self._ready.append(one)
        if one.nbytes > _LIGHT_BYTES and self._running is None:
            self._begin()

    async def rest(self) -> None:
        """Conclude what is left, once all completions are there."""
        while (job := self._running) is not None:
            await job
            if self._running is job:  # it had ended before, and the loop has not told of it yet
                self._running = None
        await self._jobs.run(self._steps(self._taken()), self._deadline)

    def leave(self) -> None:
        """Drop what is left: nobody waits for it."""
        self._ready.clear()
        if self._running is not None:
            self._running.cancel()

    def _begin(self) -> None:
        """Conclude what is ready on the executor: a call has one job there at a time."""
        try:
            self._running = self._jobs.submit(self._steps(self._taken()), self._deadline)
        except RequestError:  # it is closed, as whoever waits for the rest is told
            return
        self._running.add_done_callback(self._ended)

    def _ended(self, job: asyncio.Future[None]) -> None:
        """A job has ended: the next one, if so much is ready again."""
        if job.cancelled() or job.exception() is not None or self._running is not job:
            return  # whoever awaits it is told
        self._running = None
        if sum(one.nbytes for one in self._ready) > _LIGHT_BYTES:
            self._begin()

    def _taken(self) -> list[ConcludedInput[T]]:
        taken, self._ready = self._ready, []
        return taken

    def _steps(self, inputs: list[ConcludedInput[T]]) -> Steps[None]:
        """Conclude inputs, one after the other."""
        for one in inputs:
            outputs, one.outputs = one.outputs, []
            if one.error is None:
                try:
                    one.value = yield from self._conclude(one.reading, outputs)
                except RequestError as refused:
                    one.error = refused
            del outputs
            yield
