"""When batches run: one queue with one owner, and lanes that pull from it.

::

    submit() ──> queue (event loop) ──form_batch──> lane (thread): engine ──> futures resolved
                   ^                                       │
                   └──────── one wake-up per batch ────────┘

The queue belongs to the event loop: only code on the loop touches it. A lane that becomes free
takes the best batch that exists at that moment; nothing ever waits for a batch to fill.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from bertd_server.batching import Limits, form_batch
from bertd_server.engine import Engine, Float32Array
from bertd_server.errors import DeadlineMissed, Draining, EngineFailure, Overloaded, RequestError
from bertd_server.packing import TokenSequence


@dataclass(frozen=True, slots=True)
class Answer:
    """One text's vector, float32 `[dimensions]`, and how it came about; durations in ns."""

    vector: Float32Array
    queue_ns: int
    compute_ns: int
    batch_sequences: int
    batch_tokens: int


@dataclass(slots=True, eq=False)
class _Waiting:
    sequence: TokenSequence
    deadline: float
    arrived: float
    future: asyncio.Future[Answer | RequestError] = field(repr=False)

    @property
    def tokens(self) -> int:
        return len(self.sequence)


class Scheduler:
    """Answers token sequences with an engine. Construct and use it on one event loop."""

    def __init__(
        self,
        engine: Engine,
        *,
        lanes: int,
        limits: Limits,
        max_queue_tokens: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._limits = limits
        self._max_queue_tokens = max_queue_tokens
        self._clock = clock
        self._queue: list[_Waiting] = []
        self._queue_tokens = 0
        self._idle_lanes = lanes
        self._running: set[asyncio.Task[None]] = set()
        self._threads = ThreadPoolExecutor(lanes, thread_name_prefix="bertd-lane")
        self._dispatch_due = False
        self._draining = False

    async def submit(
        self, sequences: Sequence[TokenSequence], deadline: float = math.inf
    ) -> list[Answer | RequestError]:
        """Answer sequences, each with its own outcome, in order.

        Cancelling the call takes its sequences out of the queue before they cost anything.

        Args:
            sequences: what to compute.
            deadline: on the scheduler's clock; what still waits then gets DeadlineMissed.

        Raises:
            Draining: the scheduler takes no new work.
            Overloaded: the queue has no room for these tokens.
        """
        if self._draining:
            raise Draining("the server is shutting down: send the request to another one")
        tokens = sum(map(len, sequences))
        if self._queue and self._queue_tokens + tokens > self._max_queue_tokens:
            raise Overloaded(
                f"{self._queue_tokens} tokens are waiting and the limit is "
                f"{self._max_queue_tokens}: retry later with back-off, or send fewer texts a call"
            )
        loop = asyncio.get_running_loop()
        now = self._clock()
        waiting = [_Waiting(s, deadline, now, loop.create_future()) for s in sequences]
        self._queue.extend(waiting)
        self._queue_tokens += tokens
        self._schedule_dispatch()
        try:
            return list(await asyncio.gather(*(text.future for text in waiting)))
        except asyncio.CancelledError:
            self._withdraw(waiting)
            raise

    async def drain(self) -> None:
        """Take no new work, finish what was taken, and end the lanes."""
        self._draining = True
        while self._queue or self._running:
            self._dispatch()
            if self._running:
                await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
            else:
                await asyncio.sleep(0)
        self._threads.shutdown(wait=True)

    def _withdraw(self, texts: list[_Waiting]) -> None:
        gone = {id(text) for text in texts}
        leaving = [text for text in self._queue if id(text) in gone]
        self._queue = [text for text in self._queue if id(text) not in gone]
        self._queue_tokens -= _tokens(leaving)

    def _schedule_dispatch(self) -> None:
        """Dispatch once this turn of the loop is over, so that its other calls join the batch."""
        if not self._dispatch_due:
            self._dispatch_due = True
            asyncio.get_running_loop().call_soon(self._dispatch)

    def _dispatch(self) -> None:
        self._dispatch_due = False
        while self._idle_lanes and self._queue:
            decision = form_batch(self._queue, self._limits, self._clock())
            self._queue = decision.remaining
            self._queue_tokens -= _tokens(decision.batch) + _tokens(decision.expired)
            for text in decision.expired:
                _resolve(text, DeadlineMissed("the deadline passed before the text was computed"))
            if decision.batch:
                self._idle_lanes -= 1
                task = asyncio.get_running_loop().create_task(self._run(decision.batch))
                self._running.add(task)
                task.add_done_callback(self._running.discard)

    async def _run(self, batch: list[_Waiting]) -> None:
        loop = asyncio.get_running_loop()
        started = self._clock()
        try:
            outcomes = await loop.run_in_executor(
                self._threads, self._compute, [text.sequence for text in batch]
            )
        finally:
            self._idle_lanes += 1
            self._schedule_dispatch()
        for text, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, RequestError):
                _resolve(text, outcome)
                continue
            vector, compute_ns, sequences, tokens = outcome
            queue_ns = round((started - text.arrived) * 1e9)
            _resolve(text, Answer(vector, queue_ns, compute_ns, sequences, tokens))

    def _compute(
        self, sequences: list[TokenSequence]
    ) -> list[tuple[Float32Array, int, int, int] | RequestError]:
        """Run a batch; if it fails, halve it until the guilty sequence stands alone."""
        begin = time.perf_counter_ns()
        try:
            vectors = self._engine.embed(sequences)
        except Exception as error:  # noqa: BLE001 - whatever the engine throws is this batch's fault
            if len(sequences) == 1:
                return [EngineFailure(f"the model failed on this text: {error}")]
            middle = len(sequences) // 2
            return self._compute(sequences[:middle]) + self._compute(sequences[middle:])
        took = time.perf_counter_ns() - begin
        tokens = sum(map(len, sequences))
        return [(vector, took, len(sequences), tokens) for vector in vectors]


def _tokens(texts: list[_Waiting]) -> int:
    return sum(text.tokens for text in texts)


def _resolve(text: _Waiting, outcome: Answer | RequestError) -> None:
    with contextlib.suppress(asyncio.InvalidStateError):  # its caller has gone
        text.future.set_result(outcome)
