"""When a model's batches run: a lane that becomes free takes the best one that exists then.

::

    queue ──take──> batch ──pool──> lane (thread) ──one wake-up──> completer: answers, cache
      ^               ^                                 │
      │ step          └──────── retries: halves <───────┘ failed
      └── at the end of a turn of the loop that brought requests, or freed a lane

Unless told to, nothing waits for a batch to fill. All of it happens on the event loop.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from functools import partial

from bertd_server.scheduling.batching import Costs, FreeLanes, form_alone
from bertd_server.scheduling.completion import Completer
from bertd_server.scheduling.cost import Shape
from bertd_server.scheduling.deduplication import Batch, InFlightRequest, Submission
from bertd_server.scheduling.forecast import Forecast
from bertd_server.scheduling.lanes import BatchEngine, BatchJob, BatchResult, result_of
from bertd_server.scheduling.pool import Pool
from bertd_server.scheduling.request_queue import LATE_AT_ONCE, RequestQueue
from bertd_server.system.logs import get_logger
from bertd_server.system.turns import Turns

log = get_logger("bertd")


class Dispatcher:
    """Runs what waits, until there is nothing.

    Attributes:
        idle: set while nothing waits or runs.
    """

    def __init__(  # noqa: PLR0913 - by keyword
        self,
        queue: RequestQueue[InFlightRequest],
        completer: Completer,
        *,
        engine: BatchEngine,
        forecast: Forecast,
        pool: Pool,
        share: float,
        max_delay: float,
        clock: Callable[[], float],
        beside_others: Callable[[], bool],
    ) -> None:
        """Join a pool; construct this on the event loop.

        Args:
            queue: what waits; others add to it, and call :meth:`schedule`.
            completer: told of each request that ends here.
            engine: runs batches.
            forecast: predicts batches, and hears of each that ran.
            pool: the lanes.
            share: of them, beside those of the pool's other members.
            max_delay: seconds that a batch may wait for more requests.
            clock: seconds.
            beside_others: whether threads compute that are no lanes, and have no end soon.
        """
        self._queue = queue
        self._completer = completer
        self._engine = engine
        self._forecast = forecast
        self._pool = pool
        self._max_delay = max_delay
        self._clock = clock
        self._beside_others = beside_others
        self._loop = asyncio.get_running_loop()
        self._retries: deque[list[InFlightRequest]] = deque()
        self._running: set[Batch] = set()
        self._alarm: asyncio.TimerHandle | None = None
        self._closed = False
        self._expirations = Turns(LATE_AT_ONCE)
        self.idle = asyncio.Event()
        self.idle.set()
        pool.join(self, share)

    @property
    def running(self) -> frozenset[Batch]:
        """The batches that run."""
        return frozenset(self._running)

    @property
    def waits(self) -> bool:
        """Whether anything waits for a lane."""
        return bool(self._retries or self._queue)

    def backlog_seconds(self) -> float:
        """Predicted lane seconds of what waits."""
        return self._queue.backlog.seconds()

    @property
    def is_beside_others(self) -> bool:
        """Whether other threads of its model compute for long."""
        return self._beside_others()

    def schedule(self) -> None:
        """Dispatch once this turn of the loop is over, so that its other calls join the batch."""
        if self.idle.is_set():
            if self._closed:  # it has left the pool, and has nothing to do there
                return
            self.idle.clear()
            self._pool.wake(self)
        self._pool.schedule()

    def give_up(self) -> int:
        """End all calls with `Draining`; returns their texts. What runs goes on, for nobody."""
        self._retries.clear()
        return self._completer.abandon()

    async def drain(self, within: float = math.inf) -> bool:
        """Finish what waits and runs, holding nothing back, and leave the pool.

        Args:
            within: seconds; what is left then is given up.

        Returns:
            whether everything was finished. If not, a lane may still be running.
        """
        self._max_delay = 0.0
        if self._alarm is not None:
            self._alarm.cancel()
        if not self._closed:
            self.schedule()
        try:
            async with asyncio.timeout(None if math.isinf(within) else within):
                await self.idle.wait()
        except TimeoutError:
            if not self.idle.is_set():
                self._give_up(within)
        self._closed = True
        self.rest()
        return self.idle.is_set()

    def step(self, lanes: FreeLanes, *, alone: bool) -> bool:
        """Start a batch, or complete what needs none; False if there is nothing to do now."""
        now = self._clock()
        if self._retries:
            self._retry(self._retries.popleft(), now)
            return True
        if not self._queue or (self._max_delay and self._is_held(now)):
            return False
        known = self._forecast.costs
        costs = known if alone else Costs(known.lane)  # all lanes are not for one of many
        decision = self._queue.take(self._forecast.policy, costs, lanes, now)
        usable = costs if lanes.idle == lanes.total else Costs(costs.lane)
        for request in decision.late:
            if self._completer.expire(request, now + usable.soonest(request.shape)):
                self._queue.add(request, costs, now)
        if decision.batch:
            lone = alone and lanes.idle == lanes.total and not self._queue
            wide, seconds = decision.wide, decision.seconds
            self._start(Batch(decision.batch, decision.shape, wide, seconds, now, lone))
        elif self._expirations.over(len(decision.late)):  # others have their turn before the rest
            self.schedule()
            return False
        return True

    def step_beside(self, lasting: float) -> bool:
        """Start a batch of short texts beside the lanes, if there are some that it spares a wait.

        Args:
            lasting: seconds that the longest of what runs still needs.
        """
        now, forecast = self._clock(), self._forecast
        decision = self._queue.take_short(forecast.policy, forecast.costs, lasting, now)
        if decision is None:
            return False
        seconds = decision.seconds
        self._start(
            Batch(
                decision.batch, decision.shape, wide=False, seconds=seconds, started=now, short=True
            )
        )
        return True

    def run_here(self, call: Submission, request: InFlightRequest, most: float) -> bool:
        """Run the only text of a call on the event loop itself; False if it is to be queued.

        Afterwards it is completed, but for one that would have ended a lane, which one tries again.

        Args:
            call: nothing else of this model runs or waits.
            request: not in flight.
            most: seconds that the event loop may compute.
        """
        rested = self._pool.quiet_seconds()
        if self._max_delay or not rested or self._beside_others():
            return False  # it waits for others, or others run
        request.deadline = call.deadline
        now, forecast = self._clock(), self._forecast
        decision = form_alone(
            request, forecast.policy, forecast.costs, now, rested=rested, most=most
        )
        if decision is None:
            return False
        request.join(call, 0)
        batch = Batch([request], decision.shape, decision.wide, decision.seconds, now, lone=True)
        result = result_of(self._job(batch), self._clock)
        self._pool.ran(self, batch, result.seconds)
        self._hear(batch, result, here=True)
        return True

    def rest(self) -> None:
        """Note whether anything is left to do."""
        if self._retries:
            self._drop_deserted()
        if not (self._running or self._retries or self._queue):
            self.idle.set()
            if self._closed:
                self._pool.leave(self)

    def _is_held(self, now: float) -> bool:
        """Whether to wait for more requests; then an alarm is set."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        policy, costs = self._forecast.policy, self._forecast.costs
        full = self._queue.backlog.tokens() >= self._forecast.full.tokens
        if full or len(self._queue) >= policy.max_sequences:
            return False
        first = next(iter(self._queue))
        latest = first.deadline - 2 * costs.lane.seconds(first.shape)
        due = min(self._queue.eldest.virtual_arrival + self._max_delay, latest)
        if due <= now:
            return False
        self._alarm = self._loop.call_later(due - now, self.schedule)
        return True

    def _start(self, batch: Batch) -> None:
        self._running.add(batch)
        self._pool.run(self, batch, self._job(batch))

    def _job(self, batch: Batch) -> BatchJob:
        sequences = [request.sequence for request in batch.requests]
        ended = partial(self._ended, batch)
        return BatchJob(self._engine, sequences, batch.outputs, batch.wide, ended)

    def _ended(self, batch: Batch, result: BatchResult) -> None:
        self._running.remove(batch)
        self._pool.ended(self, batch, result.seconds)
        self._hear(batch, result)

    def _hear(self, batch: Batch, result: BatchResult, *, here: bool = False) -> None:
        """Learn from a batch that has ended on a lane, or here, and complete its requests."""
        try:
            now = self._clock()
            way = max(0.0, now - batch.started - result.seconds)  # calls wait for that too
            self._completer.count(batch, result, way)
            if result.error is None:
                self._learn(batch, result, now, way, here=here)
                if not here:
                    self._pool.dispatch()  # the lane goes on while the answers are handed out
                self._completer.answer(batch, result)
            else:
                self._split(batch.requests, result.error, died=result.died)
                if here:
                    self.schedule()
                else:
                    self._pool.dispatch()
        except Exception as error:
            log.exception("a batch was lost", sequences=batch.shape.sequences)
            self._completer.fail(batch.requests, error)  # nobody waits for it for ever
            self.schedule()

    def _learn(
        self, batch: Batch, result: BatchResult, now: float, way: float, *, here: bool
    ) -> None:
        """Predict from a batch, unless it was no lane's, and beside more than those run beside."""
        seconds, wide = result.seconds, batch.wide
        if here:
            if self._forecast.note(batch.shape, seconds, now, wide=wide, way=way):
                self._loop.call_soon(self._forecast.learn)  # the call has its answer first
        elif not batch.short:
            lone = batch.lone
            self._forecast.observe(batch.shape, seconds, now, wide=wide, way=way, lone=lone)

    def _split(self, requests: list[InFlightRequest], error: BaseException, *, died: bool) -> None:
        """Halve a batch that failed until the guilty text stands alone.

        One that alone makes the engine fail has its error. One that kills a lane may have been
        beside another that did: it has its error once it has killed twice, at last alone.
        """
        for request in requests:
            request.deaths += died
        if len(requests) == 1 and not (died and requests[0].deaths < 2):
            self._completer.fail(requests, error)
        else:
            self._retries.extend(_halves(requests))

    def _retry(self, requests: list[InFlightRequest], now: float) -> None:
        """Start a part of a batch that failed, without those who cannot wait or have gone.

        Where the part is too slow for one that could be in time with less beside it, the part is
        halved again, the most urgent first.
        """
        lane = self._forecast.costs.lane
        requests = [r for r in requests if self._completer.expire(r, now + lane.seconds(r.shape))]
        if not requests:
            return
        shape = Shape.of(len(request.sequence) for request in requests)
        seconds = lane.seconds(shape)
        requests.sort(key=lambda request: request.deadline)
        if len(requests) > 1 and now + seconds >= requests[0].deadline:
            self._retries.extendleft(reversed(_halves(requests)))
        else:
            self._start(Batch(requests, shape, wide=False, seconds=seconds, started=now))

    def _drop_deserted(self) -> None:
        """Forget retries that nobody waits for any more; no lane may be there to find them."""
        for _ in range(len(self._retries)):
            part = self._retries.popleft()
            # No time is too late here: nobody expires who is there.
            if kept := [request for request in part if self._completer.expire(request, -math.inf)]:
                self._retries.append(kept)

    def _give_up(self, within: float) -> None:
        log.error(
            "gave up",
            texts=self.give_up(),
            batches_running=len(self._running),
            lanes_alive=self._pool.alive,
            limit_seconds=within,
        )


def _halves(requests: list[InFlightRequest]) -> list[list[InFlightRequest]]:
    """One request stays whole."""
    middle = (len(requests) + 1) // 2
    return [part for part in (requests[:middle], requests[middle:]) if part]
