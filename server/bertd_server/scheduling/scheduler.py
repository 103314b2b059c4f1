"""The front of it all: calls come in, each text leaves with its outcome.

::

    submit() ──> cache ──> admission ──> in flight, queue ──> dispatcher ──> lanes ──> engine
       ^            │          │ refused                          │
       └────────────┴──────────┴─────────── completer <───────────┘

Everything here belongs to the event loop: only code on the loop touches it. No locks, and to
cancel is simply to leave.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import cast

from bertd_server.engine.packing import TokenSequence
from bertd_server.errors import Draining, NoLane, RequestError
from bertd_server.scheduling import admission
from bertd_server.scheduling.batching import BatchPolicy
from bertd_server.scheduling.cache import ResultCache
from bertd_server.scheduling.completion import Completer
from bertd_server.scheduling.cost import Shape
from bertd_server.scheduling.deduplication import (
    Batch,
    Completion,
    Computed,
    InFlightRequest,
    InFlightRequests,
    Submission,
    key_of,
)
from bertd_server.scheduling.dispatcher import Dispatcher
from bertd_server.scheduling.forecast import Forecast, StartMeasurements
from bertd_server.scheduling.lanes import BatchEngine, unheard
from bertd_server.scheduling.pool import Pool
from bertd_server.scheduling.request_queue import RequestQueue
from bertd_server.scheduling.statistics import Gauges, Statistics
from bertd_server.system.call_metrics import Stages

INTERACTIVE, BULK = 0, 1


@dataclass(frozen=True, slots=True)
class SchedulerOptions:
    """How a scheduler works; :mod:`bertd_server.config.settings` says what each value means."""

    lanes: int = 1
    lane_niceness: int = 0
    max_batch_tokens: int = 2_048
    max_batch_sequences: int = 256
    max_queue_tokens: int = 1_048_576
    max_queue_seconds: float = 10.0
    max_queue_delay: float = 0.0
    max_passed_over: int = 16
    cache_bytes: int = 0
    max_request_seconds: float = 0.0


class Scheduler:
    """Answers token sequences with an engine. Construct and use it on one event loop.

    Attributes:
        options: its limits.
        statistics: what has happened so far.
    """

    def __init__(  # noqa: PLR0913 - by keyword
        self,
        engine: BatchEngine,
        measured: StartMeasurements,
        options: SchedulerOptions,
        *,
        clock: Callable[[], float] = time.monotonic,
        on_lanes: Callable[[int], None] = unheard,
        pool: Pool | None = None,
        share: float = 1.0,
    ) -> None:
        """Join a pool of lanes, or start one.

        Args:
            engine: runs batches.
            measured: batches of this engine on this machine.
            options: limits.
            clock: seconds, monotonic; deadlines are on it.
            on_lanes: told how many lanes of its own are alive, whenever that changes.
            pool: lanes to share; None starts as many as the options say.
            share: of the pool's lanes, beside those of its other members.
        """
        self.options = options
        self.statistics = Statistics()
        self._clock = clock
        self._bounds = admission.Bounds(options.max_queue_tokens, options.max_queue_seconds)
        self._queue = RequestQueue[InFlightRequest](horizon=2 * options.max_queue_seconds)
        self._in_flight = InFlightRequests(self._queue)
        self._cache = ResultCache(options.cache_bytes)
        self._forecast = Forecast(
            measured,
            BatchPolicy(
                options.max_batch_tokens,
                options.max_batch_sequences,
                max_passed_over=options.max_passed_over,
            ),
        )
        self._own_pool = pool is None
        self._pool = pool or Pool(
            options.lanes, clock=clock, niceness=options.lane_niceness, on_lanes=on_lanes
        )
        self._dispatcher = Dispatcher(
            self._queue,
            Completer(self._in_flight, self._cache, self.statistics),
            engine=engine,
            forecast=self._forecast,
            pool=self._pool,
            share=share,
            max_delay=options.max_queue_delay,
            clock=clock,
        )
        self._loop = asyncio.get_running_loop()
        self._draining = False

    async def submit(
        self,
        sequences: Sequence[TokenSequence],
        deadline: float = math.inf,
        priority: int = INTERACTIVE,
        outputs: Sequence[str] = (),
        stages: Stages | None = None,
    ) -> list[Completion]:
        """Answer sequences, each with its own outcome, in order.

        Cancelling the call takes its sequences out of the queue before they cost anything.

        Args:
            sequences: what to compute, each with at least one token.
            deadline: on the scheduler's clock.
            priority: class of the call: lower ones go first.
            outputs: of the graph. Either all calls name some, or none does: then the engine
                computes what it computes unless told otherwise.
            stages: told of each text that was computed.

        Raises:
            Draining: the scheduler takes no new work.
            NoLane: nothing can run a batch now.
            Overloaded: the call would wait too long, for the queue's bounds or for its deadline.
            DeadlineMissed: not even an idle server would answer in time.
        """
        now = self._clock()
        if self._draining:
            self.statistics.refused["draining"] += 1
            raise Draining("the server is shutting down: send the request to another one")
        count = len(sequences)
        call = Submission(
            deadline, priority, now, [None] * count, count, self._loop.create_future(), stages
        )
        wanted: list[tuple[int, InFlightRequest]] = []
        names = tuple(outputs)
        for index, sequence in enumerate(sequences):
            key = key_of(sequence, names)
            found = self._cache.get(key) if self._cache.budget else None
            if found is None:
                shape = Shape.single(len(sequence))
                wanted.append((index, InFlightRequest(key, sequence, names, shape, now)))
            else:
                call.complete(index, Computed(found, 0, 0, 0, 0))
        if wanted and (refused := self._refusal(call, wanted, now)) is not None:
            self.statistics.refused[refused.reason] += 1
            try:
                raise refused
            finally:  # its traceback has this frame: the call would stay until a collection
                del refused
        self.statistics.answered += count - len(wanted)  # once the call is taken
        if wanted:
            costs = self._forecast.costs
            self.statistics.deduplicated += self._in_flight.join(call, wanted, costs, now)
            self._dispatcher.schedule()
            try:
                await call.done
            except asyncio.CancelledError:
                self.statistics.cancelled += call.missing
                self._in_flight.leave(call, self._forecast.costs, self._clock())
                self._dispatcher.schedule()  # it may find that nothing is left to do
                raise
        return cast("list[Completion]", call.completions)  # none is missing now

    async def drain(self, within: float = math.inf) -> bool:
        """Take no new work, finish what was taken, and end the lanes, if they are its own.

        Args:
            within: seconds; the calls that have no answer then get `Draining`.

        Returns:
            whether everything was finished. If not, a lane may still be running.
        """
        self._draining = True
        finished = await self._dispatcher.drain(within)
        if self._own_pool:
            self._pool.close(wait=finished)
        return finished

    def running(self) -> frozenset[Batch]:
        """The batches that run, with their starts on the scheduler's clock."""
        return self._dispatcher.running

    def relimit(self, *, max_queue_tokens: int, max_queue_seconds: float) -> None:
        """Change how much may wait; calls that were taken stay."""
        self.options = replace(
            self.options, max_queue_tokens=max_queue_tokens, max_queue_seconds=max_queue_seconds
        )
        self._bounds = admission.Bounds(max_queue_tokens, max_queue_seconds)
        self._queue.backlog.reach(2 * max_queue_seconds)

    def gauges(self) -> Gauges:
        """How things are at this moment."""
        now = self._clock()
        busy = self._pool.busy(now)
        return Gauges(
            waiting=len(self._queue),
            waiting_tokens=self._queue.backlog.tokens(),
            predicted_wait=(
                self._outlook(now).wait(self._queue.backlog.seconds()) if busy else math.inf
            ),
            lanes_alive=self._pool.alive,
            batches_running=len(self._dispatcher.running),
            cost_error=self._forecast.error,
            refits=self._forecast.refits,
            budget_seconds=self._forecast.policy.budget_seconds,
            cache_hits=self._cache.hits,
            cache_misses=self._cache.misses,
            cache_bytes=self._cache.bytes,
        )

    def _refusal(
        self, call: Submission, wanted: Sequence[tuple[int, InFlightRequest]], now: float
    ) -> RequestError | None:
        """Why a call is not taken; None if it is. What is in flight already costs nothing more."""
        if not self._pool.alive:
            return NoLane("the server's lanes died and are being replaced: retry in a second")
        if self._dispatcher.idle.is_set():
            self._forecast.idle(now)
        backlog = self._queue.backlog
        if math.isinf(call.deadline) and not (self._queue and backlog.tokens(call.priority)):
            return None  # nothing goes before it, and it has time
        shapes = [one.shape for one in self._in_flight.new([request for _, request in wanted])]
        if not shapes:
            return None
        costs = self._forecast.costs
        longest = max(shapes, key=lambda shape: shape.tokens)
        demand = admission.Demand(
            priority=call.priority,
            deadline=call.deadline,
            tokens=sum(shape.tokens for shape in shapes),
            seconds=sum(map(costs.lane.share, shapes)),
            longest=costs.lane.seconds(longest),
            soonest=costs.soonest(longest),
            texts=len(shapes),
        )
        return admission.refusal(demand, self._outlook(now), self._bounds)

    def _outlook(self, now: float) -> admission.Outlook:
        return admission.Outlook(
            self._queue.backlog,
            self._pool.busy(now),
            self._forecast.policy.budget_seconds,
            now,
            self._forecast.overrun,
            self._pool.rivals(self._dispatcher),
        )
