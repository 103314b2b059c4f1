"""Batches and lanes: a lane that becomes free takes the best batch that exists at that moment.

::

    waiting room ──take──> batch ──> lane (thread) ──one wake-up──> land: answers, cache
         ^                   ^                           │
         │ dispatch          └──── retries: halves <─────┘ failed
         └── at the end of a turn of the loop that brought texts, or freed a lane

Unless told to, nothing waits for a batch to fill. All of it happens on the event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from bertd_server import batching
from bertd_server.cache import ResultCache
from bertd_server.cost import Shape
from bertd_server.errors import DeadlineMissed, EngineFailure
from bertd_server.flights import Answer, Flight
from bertd_server.forecast import Forecast
from bertd_server.lanes import Job, Lanes, Result, Runs
from bertd_server.statistics import Statistics
from bertd_server.waiting_room import WaitingRoom


@dataclass(slots=True, eq=False)
class _Batch:
    """Flights that run together; `seconds` are predicted."""

    flights: list[Flight]
    wide: bool
    seconds: float
    started: float
    shape: Shape = field(init=False)

    def __post_init__(self) -> None:
        self.shape = Shape.of(len(flight.sequence) for flight in self.flights)


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
        self._count = lanes
        self._max_delay = max_delay
        self._on_lanes = on_lanes
        self._loop = asyncio.get_running_loop()
        self._retries: deque[list[Flight]] = deque()
        self._running: set[_Batch] = set()
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

    def busy(self, now: float) -> list[float]:
        """Seconds that each lane still needs for what it runs, as predicted.

        A batch that is overdue is taken to need as long again: the machine may be slow or stalled,
        and calls must not be told to come back at once.
        """
        needs = [
            abs(batch.started + batch.seconds - now)
            for batch in self._running
            for _ in range(self._count if batch.wide else 1)
        ]
        return [*needs, *[0.0] * (self._count - len(needs))]

    def schedule(self) -> None:
        """Dispatch once this turn of the loop is over, so that its other calls join the batch."""
        self.idle.clear()
        if not self._due:
            self._due = True
            self._loop.call_soon(self._dispatch)

    async def drain(self) -> None:
        """Finish what waits and runs, holding nothing back, and end the lanes."""
        self._max_delay = 0.0
        self.schedule()
        await self.idle.wait()
        self._lanes.close()

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
            if self._strand(flight, now + usable.soonest(flight.shape)):
                self._room.enter(flight, costs, now)
        if decision.batch:
            self._start(_Batch(decision.batch, decision.wide, decision.seconds, now))

    def _retry(self, flights: list[Flight], now: float) -> None:
        """Start a part of a batch that failed, without those who cannot wait or have gone."""
        lane = self._forecast.costs.lane
        arrival = now + lane.seconds(Shape.of(len(flight.sequence) for flight in flights))
        flights = [flight for flight in flights if self._strand(flight, arrival)]
        if flights:
            self._start(_Batch(flights, wide=False, seconds=arrival - now, started=now))

    def _strand(self, flight: Flight, arrival: float) -> bool:
        """Tell those for whom `arrival` is too late; False if the flight then carries nobody."""
        for call, index in flight.strand(arrival):
            self._statistics.expired += 1
            call.settle(
                index, DeadlineMissed("the deadline came too close before the text was computed")
            )
        if flight.passengers:
            return True
        self._room.land(flight)
        return False

    def _start(self, batch: _Batch) -> None:
        self._running.add(batch)
        sequences = [flight.sequence for flight in batch.flights]
        self._lanes.run(Job(sequences, batch.wide, lambda result: self._finish(batch, result)))

    def _finish(self, batch: _Batch, result: Result) -> None:
        self._running.remove(batch)
        self._statistics.started_late += sum(
            call.deadline <= result.began
            for flight in batch.flights
            for call, _ in flight.passengers
        )
        if result.error is None:
            now = self._floor.clock()
            way = max(0.0, now - batch.started - result.seconds)  # calls wait for that too
            self._forecast.observe(batch.shape, result.seconds, now, wide=batch.wide, way=way)
            self._dispatch()  # the lane goes on while the answers are handed out
            self._land(batch, result)
        else:
            self._split(batch, result.error, died=result.died)
            self._dispatch()

    def _land(self, batch: _Batch, result: Result) -> None:
        """Hand out the answers of a batch."""
        statistics, shape = self._statistics, batch.shape
        statistics.compute.observe(result.seconds)
        statistics.batch_sequences.observe(shape.sequences)
        statistics.batch_tokens.observe(shape.tokens)
        statistics.wide_batches += batch.wide
        compute_ns = round(result.seconds * 1e9)
        for flight, outputs in zip(batch.flights, result.outputs, strict=True):
            self._floor.cache.put(flight.key, outputs)
            for call, index in self._room.land(flight):
                queued = max(0.0, batch.started - call.arrived)
                statistics.queue.observe(queued)
                statistics.answered += 1
                call.settle(
                    index,
                    Answer(outputs, round(queued * 1e9), compute_ns, shape.sequences, shape.tokens),
                )

    def _split(self, batch: _Batch, error: BaseException, *, died: bool) -> None:
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
            for call, index in self._room.land(flights[0]):
                self._statistics.failed += 1
                call.settle(index, EngineFailure(f"the model failed on this text: {error}"))
        else:
            middle = (len(flights) + 1) // 2
            self._retries.extend(part for part in (flights[:middle], flights[middle:]) if part)

    def _lanes_changed(self, alive: int) -> None:
        self.schedule()
        self._on_lanes(alive)

    def _note_idle(self) -> None:
        if not (self._running or self._retries or self._room):
            self.idle.set()
