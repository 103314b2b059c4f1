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
from bertd_server.errors import Draining, NoLane, Overloaded, RequestError
from bertd_server.scheduling import admission
from bertd_server.scheduling.batching import BatchPolicy, fits_beside
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
# Requests that the event loop makes, joins or withdraws before others have their turn: 1 to 2 ms.
_A_TURN = 64
_TWO_SHORT = 2  # batches: the one that has the short lane, and that of the call


def _nothing_else() -> bool:
    """Where lanes alone compute."""
    return False


@dataclass(frozen=True, slots=True)
class SchedulerOptions:
    """How a scheduler works; :mod:`bertd_server.config.settings` says what each value means."""

    lanes: int = 1
    lane_niceness: int = 0
    loop_run_seconds: float = 0.0
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
        beside_others: Callable[[], bool] = _nothing_else,
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
            beside_others: whether threads compute that are no lanes, and have no end soon.
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
            beside_others=beside_others,
        )
        self._loop = asyncio.get_running_loop()
        self._draining = False
        self._joining = 0  # calls that were taken, and are not in the queue as a whole yet

    async def submit(  # noqa: PLR0913, PLR0917 - what a call is
        self,
        sequences: Sequence[TokenSequence],
        deadline: float = math.inf,
        priority: int = INTERACTIVE,
        outputs: Sequence[str] = (),
        stages: Stages | None = None,
        hear: Callable[[int, Completion], None] | None = None,
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
            hear: told of each outcome as it comes, by the sequence's index; nothing is then kept
                here, and nothing of use returned. It must not raise.

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
            deadline, priority, now, [None] * count, count, self._loop.create_future(), stages, hear
        )
        wanted = await self._wanted(call, sequences, tuple(outputs))
        here = count == len(wanted) == 1 and self._is_answered_here(call, wanted[0][1])
        refused = None if here or not wanted else self._refusal(call, wanted, self._clock())
        if refused is not None:
            self.statistics.refused[refused.reason] += 1
            try:
                raise refused
            finally:  # its traceback has this frame: the call would stay until a collection
                del refused
        self.statistics.answered += count - len(wanted)  # once the call is taken
        if wanted:
            try:
                if not here:
                    await self._join(call, wanted)
                await call.done
            except asyncio.CancelledError:
                self.statistics.cancelled += call.missing
                self._leave(call)
                raise
        return cast("list[Completion]", call.completions)  # none is missing now

    def _is_answered_here(self, call: Submission, request: InFlightRequest) -> bool:
        """Whether the event loop has answered a call of one text, since nothing else is to do."""
        if not (self.options.loop_run_seconds and self._dispatcher.idle.is_set()):
            return False
        if self.statistics.in_flight.calls > 1 or not self._pool.alive:
            return False
        self._forecast.idle(call.arrived)
        return self._dispatcher.run_here(call, request, self.options.loop_run_seconds)

    def _request(
        self, call: Submission, index: int, sequence: TokenSequence, names: tuple[str, ...]
    ) -> InFlightRequest | None:
        """A request for a text; None if the cache has completed it."""
        key = key_of(sequence, names)
        found = self._cache.get(key)
        if found is None:
            shape = Shape.single(len(sequence.input_ids))
            return InFlightRequest(key, sequence, names, shape, call.arrived)
        call.complete(index, Computed(found, 0, 0, 0, 0))
        return None

    async def _wanted(
        self, call: Submission, sequences: Sequence[TokenSequence], names: tuple[str, ...]
    ) -> list[tuple[int, InFlightRequest]]:
        """Requests for what the cache has not, each with its index; the rest is completed."""
        wanted: list[tuple[int, InFlightRequest]] = []
        for index, sequence in enumerate(sequences, 1):
            request = self._request(call, index - 1, sequence, names)
            if request is not None:
                wanted.append((index - 1, request))
            if not index % _A_TURN:
                await asyncio.sleep(0)
        return wanted

    async def _join(self, call: Submission, wanted: Sequence[tuple[int, InFlightRequest]]) -> None:
        """Let a call that was taken wait for its requests: some in each turn of the event loop.

        Those that have not joined yet are in the backlog as one, so that nobody else is promised
        their time.
        """
        arrival = self._queue.arrival(call.priority, self._clock())
        work = Shape.of(request.shape.tokens for _, request in wanted)
        self._joining += 1
        try:
            for begin in range(0, len(wanted), _A_TURN):
                part = wanted[begin : begin + _A_TURN]
                work -= Shape.of(request.shape.tokens for _, request in part)
                costs, now = self._forecast.costs, self._clock()
                found, arrival = self._in_flight.join(call, part, costs, now, arrival)
                self.statistics.deduplicated += found
                self._dispatcher.schedule()
                if work.sequences:
                    place = self._queue.backlog.add(
                        call.priority,
                        call.deadline,
                        now,
                        seconds=costs.lane.share(work),
                        tokens=work.tokens,
                        virtual_arrival=arrival,
                    )
                    try:
                        await asyncio.sleep(0)
                    finally:
                        self._queue.backlog.remove(place)
        finally:
            self._joining -= 1

    def _leave(self, call: Submission) -> None:
        """Let nothing of a call wait any more: some now, the rest in later turns of the loop."""
        if self._in_flight.leave(call, self._forecast.costs, self._clock(), _A_TURN):
            self._loop.call_soon(self._leave, call)
        self._dispatcher.schedule()  # it may find that nothing is left to do

    def give_up(self) -> int:
        """Take no new work, and end all calls with `Draining`; returns how many texts."""
        self._draining = True
        return self._dispatcher.give_up()

    async def drain(self, within: float = math.inf) -> bool:
        """Take no new work, finish what was taken, and end the lanes, if they are its own.

        Args:
            within: seconds; the calls that have no answer then get `Draining`.

        Returns:
            whether everything was finished. If not, a lane may still be running.
        """
        self._draining = True
        while self._joining:  # noqa: ASYNC110 - they wait for nothing but their turns
            await asyncio.sleep(0)
        finished = await self._dispatcher.drain(within)
        if self._own_pool:
            self._pool.close(wait=finished)
        return finished

    def rebase(self, measured: StartMeasurements) -> None:
        """Predict from better measurements of the same engine than those of the start."""
        self._forecast.rebase(measured)

    def running(self) -> frozenset[Batch]:
        """The batches that run, with their starts on the scheduler's clock."""
        return self._dispatcher.running

    @property
    def pool(self) -> Pool:
        """The lanes that it uses."""
        return self._pool

    def relimit(self, *, max_queue_tokens: int, max_queue_seconds: float) -> None:
        """Change how much may wait; calls that were taken stay."""
        self.options = replace(
            self.options, max_queue_tokens=max_queue_tokens, max_queue_seconds=max_queue_seconds
        )
        self._bounds = admission.Bounds(max_queue_tokens, max_queue_seconds)
        self._queue.backlog.reach(2 * max_queue_seconds)

    def gauges(self) -> Gauges:
        """How things are at this moment."""
        self._forecast.learn()
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
        self._forecast.learn()
        if not self._pool.alive:
            return NoLane("the server's lanes died and are being replaced: retry in a second")
        if self._dispatcher.idle.is_set():
            self._forecast.idle(now)
        backlog = self._queue.backlog
        if math.isinf(call.deadline) and not (self._queue and backlog.tokens(call.priority)):
            return None  # nothing goes before it, and it has time
        new = self._in_flight.new(request for _, request in wanted)
        if not new:
            return None
        costs, lengths = self._forecast.costs, [len(request.sequence) for request in new]
        shape, longest = Shape.of(lengths), Shape.single(max(lengths))
        demand = admission.Demand(
            priority=call.priority,
            deadline=call.deadline,
            tokens=shape.tokens,
            seconds=costs.lane.share(shape),
            longest=costs.lane.seconds(longest),
            soonest=costs.soonest(longest),
            texts=shape.sequences,
        )
        refused = admission.refusal(demand, self._outlook(now), self._bounds)
        if isinstance(refused, Overloaded) and self._runs_beside(demand, new, now):
            return None
        if refused is not None and self._is_worth_a_probe(demand, longest, now):
            for request in new:
                request.probe = True
            return None
        return refused

    def _runs_beside(
        self, demand: admission.Demand, new: Sequence[InFlightRequest], now: float
    ) -> bool:
        """Whether a call need not wait for lanes, as few and short as its texts are."""
        waiting = self._queue.short_tokens(demand.priority)
        lengths = [len(request.sequence) for request in new]
        shape = Shape.of([*lengths, waiting] if waiting else lengths)
        policy, costs = self._forecast.policy, self._forecast.costs
        if not fits_beside(shape, policy, costs, self._pool.lasting()):
            return False
        return now + _TWO_SHORT * costs.lane.seconds(shape) < demand.deadline

    def _is_worth_a_probe(self, demand: admission.Demand, longest: Shape, now: float) -> bool:
        """Whether a call that an idle server would refuse is to correct the prediction, or not."""
        if not self._pool.is_idle or not admission.might_do(demand, now):
            return False
        most = max(self.options.max_batch_tokens, longest.tokens)
        return self._forecast.probe(Shape.single(min(most, demand.tokens)), now)

    def _outlook(self, now: float) -> admission.Outlook:
        return admission.Outlook(
            self._queue.backlog,
            self._pool.busy(now),
            self._forecast.policy.budget_seconds,
            now,
            self._forecast.overrun,
            self._pool.rivals(self._dispatcher),
        )
