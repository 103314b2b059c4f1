"""A model's batches: a lane that becomes free takes the best one that exists at that moment.

::

    waiting room ──take──> batch ──pool──> lane (thread) ──one wake-up──> landing: answers, cache
         ^                   ^                                 │
         │ step              └──────── retries: halves <───────┘ failed
         └── at the end of a turn of the loop that brought texts, or freed a lane

Unless told to, nothing waits for a batch to fill. All of it happens on the event loop.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from bertd_server.scheduling import batching
from bertd_server.scheduling.cache import ResultCache
from bertd_server.scheduling.completion import Landing
from bertd_server.scheduling.cost import Shape
from bertd_server.scheduling.deduplication import Batch, InFlightRequest
from bertd_server.scheduling.forecast import Forecast
from bertd_server.scheduling.lanes import BatchEngine, BatchJob, BatchResult
from bertd_server.scheduling.pool import Pool
from bertd_server.scheduling.statistics import Statistics
from bertd_server.scheduling.waiting_room import WaitingRoom
from bertd_server.system.logs import get_logger

log = get_logger("bertd")


@dataclass(frozen=True, slots=True)
class Floor:
    """What taking calls and running batches share; all of it belongs to the event loop."""

    room: WaitingRoom
    forecast: Forecast
    cache: ResultCache
    statistics: Statistics
    clock: Callable[[], float]


class Dispatcher:
    """Runs what waits, until there is nothing.

    Attributes:
        idle: set while nothing waits or runs.
    """

    def __init__(
        self, engine: BatchEngine, floor: Floor, pool: Pool, *, share: float, max_delay: float
    ) -> None:
        """Join a pool; construct this on the event loop.

        Args:
            engine: runs batches.
            floor: what is shared with those who take calls.
            pool: the lanes.
            share: of them, beside those of the pool's other members.
            max_delay: seconds that a batch may wait for more texts.
        """
        self._engine = engine
        self._floor = floor
        self._pool = pool
        self._room, self._forecast, self._statistics = floor.room, floor.forecast, floor.statistics
        self._landing = Landing(floor.room, floor.cache, floor.statistics)
        self._max_delay = max_delay
        self._loop = asyncio.get_running_loop()
        self._retries: deque[list[InFlightRequest]] = deque()
        self._running: set[Batch] = set()
        self._alarm: asyncio.TimerHandle | None = None
        self._closed = False
        self.idle = asyncio.Event()
        self.idle.set()
        pool.join(self, share)

    @property
    def running(self) -> int:
        """Batches that run."""
        return len(self._running)

    @property
    def batches(self) -> frozenset[Batch]:
        """The batches that run."""
        return frozenset(self._running)

    @property
    def waits(self) -> bool:
        """Whether anything waits for a lane."""
        return bool(self._retries or self._room)

    def backlog_seconds(self) -> float:
        """Predicted lane seconds of what waits."""
        return self._room.backlog.seconds()

    def schedule(self) -> None:
        """Dispatch once this turn of the loop is over, so that its other calls join the batch."""
        if self._closed and self.idle.is_set():  # it has left the pool, and has nothing to do there
            return
        if self.idle.is_set():
            self.idle.clear()
            self._pool.wake(self)
        self._pool.schedule()

    async def drain(self, within: float = math.inf) -> bool:
        """Finish what waits and runs, holding nothing back, and leave the pool.

        Args:
            within: seconds; what is left then is given up.

        Returns:
            whether everything was finished. If not, a lane may still be running.
        """
        self._max_delay = 0.0
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

    def _give_up(self, within: float) -> None:
        log.error(
            "gave up",
            texts=self._landing.abandon(self._room.clear()),
            batches_running=len(self._running),
            lanes_alive=self._pool.alive,
            limit_seconds=within,
        )
        self._retries.clear()

    def step(self, lanes: batching.FreeLanes, *, alone: bool) -> bool:
        """Start a batch, or settle what needs none; False if there is nothing to do now."""
        now = self._floor.clock()
        if self._retries:
            self._retry(self._retries.popleft(), now)
        elif not self._room or self._is_held(now):
            return False
        else:
            self._take(lanes, now, alone=alone)
        return True

    def rest(self) -> None:
        """Note whether anything is left to do."""
        if self._retries:
            self._drop_deserted()
        if not (self._running or self._retries or self._room):
            self.idle.set()
            if self._closed:
                self._pool.leave(self)

    def _is_held(self, now: float) -> bool:
        """Whether to wait for more texts, as `max_delay` allows; then an alarm is set."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        full = (
            self._room.backlog.tokens() >= self._forecast.full.tokens
            or len(self._room) >= self._forecast.policy.max_sequences
        )
        if full or not self._max_delay:
            return False
        first = self._room.first
        latest = first.deadline - 2 * self._forecast.costs.lane.seconds(first.shape)
        due = min(self._room.eldest.turn + self._max_delay, latest)
        if due <= now:
            return False
        self._alarm = self._loop.call_later(due - now, self.schedule)
        return True

    def _take(self, lanes: batching.FreeLanes, now: float, *, alone: bool) -> None:
        """Form a batch of what waits and start it."""
        known = self._forecast.costs
        costs = known if alone else batching.Costs(known.lane)  # all lanes are not for one of many
        decision = self._room.take(self._forecast.policy, costs, lanes, now)
        usable = costs if lanes.idle == lanes.total else batching.Costs(costs.lane)
        for flight in decision.late:
            if self._landing.strand(flight, now + usable.soonest(flight.shape)):
                self._room.enter(flight, costs, now)
        if decision.batch:
            self._start(Batch(decision.batch, decision.wide, decision.seconds, now))

    def _retry(self, flights: list[InFlightRequest], now: float) -> None:
        """Start a part of a batch that failed, without those who cannot wait or have gone.

        Where the part is too slow for one that could be in time with less beside it, the part is
        halved again, the most urgent first.
        """
        lane = self._forecast.costs.lane
        flights = [f for f in flights if self._landing.strand(f, now + lane.seconds(f.shape))]
        if not flights:
            return
        seconds = lane.seconds(Shape.of(len(flight.sequence) for flight in flights))
        flights.sort(key=lambda flight: flight.deadline)
        if len(flights) > 1 and now + seconds >= flights[0].deadline:
            self._retries.extendleft(reversed(_halves(flights)))
        else:
            self._start(Batch(flights, wide=False, seconds=seconds, started=now))

    def _start(self, batch: Batch) -> None:
        self._running.add(batch)
        sequences = [flight.sequence for flight in batch.flights]
        job = BatchJob(
            self._engine,
            sequences,
            batch.outputs,
            batch.wide,
            lambda result: self._finish(batch, result),
        )
        self._pool.run(self, batch, job)

    def _finish(self, batch: Batch, result: BatchResult) -> None:
        self._running.remove(batch)
        self._pool.ended(self, batch, result.seconds)
        self._statistics.started_late += sum(
            call.deadline <= result.began
            for flight in batch.flights
            for call, _ in flight.passengers
        )
        try:
            if result.error is None:
                now = self._floor.clock()
                way = max(0.0, now - batch.started - result.seconds)  # calls wait for that too
                self._statistics.cost_ratio.observe((result.seconds + way) / batch.seconds)
                self._forecast.observe(batch.shape, result.seconds, now, wide=batch.wide, way=way)
                self._pool.dispatch()  # the lane goes on while the answers are handed out
                self._landing.answer(batch, result)
            else:
                self._split(batch, result.error, died=result.died)
                self._pool.dispatch()
        except Exception as error:
            log.exception("a batch was lost", sequences=batch.shape.sequences)
            self._landing.fail(batch.flights, error)  # nobody waits for it for ever
            self.schedule()

    def _split(self, batch: Batch, error: BaseException, *, died: bool) -> None:
        """Halve a batch that failed until the guilty text stands alone.

        One that alone makes the engine fail has its error. One that kills a lane may have been on
        board of another's death: it has its error once it has killed twice, at last alone.
        """
        self._statistics.batch_failures += 1
        self._statistics.lane_deaths += died
        for flight in batch.flights:
            flight.deaths += died
        flights = batch.flights
        if len(flights) == 1 and not (died and flights[0].deaths < 2):
            self._landing.fail(flights, error)
        else:
            self._retries.extend(_halves(flights))

    def _drop_deserted(self) -> None:
        """Forget retries that nobody waits for any more; no lane may be there to find them."""
        for _ in range(len(self._retries)):
            part = self._retries.popleft()
            for flight in part:
                if not flight.passengers:
                    self._room.land(flight)
            if kept := [flight for flight in part if flight.passengers]:
                self._retries.append(kept)


def _halves(flights: list[InFlightRequest]) -> list[list[InFlightRequest]]:
    """One flight stays whole."""
    middle = (len(flights) + 1) // 2
    return [part for part in (flights[:middle], flights[middle:]) if part]
