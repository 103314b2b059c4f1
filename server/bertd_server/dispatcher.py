"""Batches and lanes: a lane that becomes free takes the best batch that exists at that moment.

::

    waiting room ──take──> batch ──> lane (thread) ──one wake-up──> landing: answers, cache
         ^                   ^                           │
         │ dispatch          └──── retries: halves <─────┘ failed
         └── at the end of a turn of the loop that brought texts, or freed a lane

Unless told to, nothing waits for a batch to fill. All of it happens on the event loop.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from bertd_server import batching
from bertd_server.cache import ResultCache
from bertd_server.cost import Shape
from bertd_server.flights import Batch, Flight
from bertd_server.forecast import Forecast
from bertd_server.landing import Landing
from bertd_server.lanes import Job, Lanes, Result, Runs
from bertd_server.statistics import Statistics
from bertd_server.waiting_room import WaitingRoom

log = structlog.get_logger("bertd")


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

    def __init__(  # noqa: PLR0913 - limits by keyword
        self,
        engine: Runs,
        floor: Floor,
        *,
        lanes: int,
        lane_niceness: int,
        max_delay: float,
        on_lanes: Callable[[int], None],
    ) -> None:
        """Start the lanes; construct this on the event loop.

        Args:
            engine: runs batches.
            floor: what is shared.
            lanes: how many.
            lane_niceness: how far they step back behind the event loop.
            max_delay: seconds that a batch may wait for more texts.
            on_lanes: told how many lanes are alive, whenever that changes.
        """
        self._floor = floor
        self._room, self._forecast, self._statistics = floor.room, floor.forecast, floor.statistics
        self._landing = Landing(floor.room, floor.cache, floor.statistics)
        self._max_delay = max_delay
        self._on_lanes = on_lanes
        self._loop = asyncio.get_running_loop()
        self._retries: deque[list[Flight]] = deque()
        self._running: set[Batch] = set()
        self._due = False
        self._alarm: asyncio.TimerHandle | None = None
        self.idle = asyncio.Event()
        self.idle.set()
        self._lanes = Lanes(
            engine,
            lanes,
            clock=floor.clock,
            changed=self._lanes_changed,
            niceness=lane_niceness,
        )

    @property
    def alive(self) -> int:
        """Lanes that can run batches."""
        return self._lanes.alive

    @property
    def running(self) -> int:
        """Batches that run."""
        return len(self._running)

    @property
    def batches(self) -> frozenset[Batch]:
        """The batches that run."""
        return frozenset(self._running)

    def busy(self, now: float) -> list[float]:
        """Seconds that each living lane still needs for what it runs, as predicted.

        A batch that is overdue is taken to need as long again: the machine may be slow or stalled,
        and calls must not be told to come back at once.
        """
        needs = [
            abs(batch.started + batch.seconds - now)
            for batch in self._running
            for _ in range(self.alive if batch.wide else 1)
        ]
        return [*needs, *[0.0] * (self.alive - len(needs))]

    def schedule(self) -> None:
        """Dispatch once this turn of the loop is over, so that its other calls join the batch."""
        self.idle.clear()
        if not self._due:
            self._due = True
            self._loop.call_soon(self._dispatch)

    async def drain(self, within: float = math.inf) -> bool:
        """Finish what waits and runs, holding nothing back, and end the lanes.

        Args:
            within: seconds; what is left then is given up.

        Returns:
            whether everything was finished. If not, a lane may still be running.
        """
        self._max_delay = 0.0
        self.schedule()
        try:
            async with asyncio.timeout(None if math.isinf(within) else within):
                await self.idle.wait()
        except TimeoutError:
            if not self.idle.is_set():
                self._give_up(within)
        finished = self.idle.is_set()
        self._lanes.close(wait=finished)
        return finished

    def _give_up(self, within: float) -> None:
        log.error(
            "gave up",
            texts=self._landing.abandon(self._room.clear()),
            batches_running=len(self._running),
            lanes_alive=self.alive,
            limit_seconds=within,
        )
        self._retries.clear()

    def _dispatch(self) -> None:
        self._due = False
        while (lanes := self._free_lanes()).idle and (self._retries or self._room):
            now = self._floor.clock()
            if self._retries:
                self._retry(self._retries.popleft(), now)
            elif self._is_held(now):
                break
            else:
                self._take(lanes, now)
        self._note_idle()

    def _free_lanes(self) -> batching.Lanes:
        total = self._lanes.alive
        wide = any(batch.wide for batch in self._running)
        return batching.Lanes(0 if wide else max(0, total - len(self._running)), total)

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

    def _take(self, lanes: batching.Lanes, now: float) -> None:
        """Form a batch of what waits and start it."""
        costs = self._forecast.costs
        decision = self._room.take(self._forecast.policy, costs, lanes, now)
        usable = costs if lanes.idle == lanes.total else batching.Costs(costs.lane)
        for flight in decision.late:
            if self._landing.strand(flight, now + usable.soonest(flight.shape)):
                self._room.enter(flight, costs, now)
        if decision.batch:
            self._start(Batch(decision.batch, decision.wide, decision.seconds, now))

    def _retry(self, flights: list[Flight], now: float) -> None:
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
        self._lanes.run(
            Job(sequences, batch.outputs, batch.wide, lambda result: self._finish(batch, result))
        )

    def _finish(self, batch: Batch, result: Result) -> None:
        self._running.remove(batch)
        self._statistics.started_late += sum(
            call.deadline <= result.began
            for flight in batch.flights
            for call, _ in flight.passengers
        )
        try:
            if result.error is None:
                now = self._floor.clock()
                way = max(0.0, now - batch.started - result.seconds)  # calls wait for that too
                self._forecast.observe(batch.shape, result.seconds, now, wide=batch.wide, way=way)
                self._dispatch()  # the lane goes on while the answers are handed out
                self._landing.answer(batch, result)
            else:
                self._split(batch, result.error, died=result.died)
                self._dispatch()
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

    def _lanes_changed(self, alive: int) -> None:
        self.schedule()
        self._on_lanes(alive)

    def _note_idle(self) -> None:
        if self._retries:
            self._drop_deserted()
        if not (self._running or self._retries or self._room):
            self.idle.set()

    def _drop_deserted(self) -> None:
        """Forget retries that nobody waits for any more; no lane may be there to find them."""
        for _ in range(len(self._retries)):
            part = self._retries.popleft()
            for flight in part:
                if not flight.passengers:
                    self._room.land(flight)
            if kept := [flight for flight in part if flight.passengers]:
                self._retries.append(kept)


def _halves(flights: list[Flight]) -> list[list[Flight]]:
    """One flight stays whole."""
    middle = (len(flights) + 1) // 2
    return [part for part in (flights[:middle], flights[middle:]) if part]
