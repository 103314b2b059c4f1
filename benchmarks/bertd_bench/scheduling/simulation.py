"""A server in virtual time: arrivals, a queue, lanes that are busy for as long as the model says.

::

    arrivals ─> admit? ──no──> refused
                  │ yes
               waiting ─> choose ─> a lane, or all of them, until now + seconds ─> answered
                            └─────> dropped

No clock is read and nothing sleeps: time jumps from event to event. The same seed gives the same
events.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from bertd_server.scheduling.batching import Costs, FreeLanes
from bertd_server.scheduling.cost import NOTHING

from bertd_bench.scheduling.traffic import Arrival


class SimulatedRequest:
    """An arrival, and what became of it. It is what `form_batch` calls `Waiting`.

    Attributes:
        arrival: as drawn.
        passed_over: counted by our scheduler.
        answered: when; None if it was not.
        refused: it was turned away, on arrival or later.
    """

    def __init__(self, arrival: Arrival) -> None:
        self.arrival = arrival
        self.passed_over = 0
        self.answered: float | None = None
        self.refused = self.probe = False  # it makes no probes
        # Copies, since these are read for every batch.
        self.shape, self.priority = arrival.shape, arrival.priority
        self.deadline, self.virtual_arrival = arrival.deadline, arrival.at

    @property
    def good(self) -> bool:
        """Answered within its objective."""
        return self.answered is not None and self.answered <= self.deadline


@dataclass(frozen=True, slots=True)
class Choice:
    """What a policy does now.

    Attributes:
        batch: runs; if empty, nothing does.
        dropped: leave the queue without an answer.
        wide: the batch takes all lanes.
        look_again: seconds; when to ask again if nothing ran and nothing happens before.
    """

    batch: Sequence[SimulatedRequest] = ()
    dropped: Sequence[SimulatedRequest] = ()
    wide: bool = False
    look_again: float | None = None


@dataclass(frozen=True, slots=True)
class QueueView:
    """What a policy may know.

    Attributes:
        now: seconds of virtual time.
        waiting: in order of arrival.
        lanes: idle, and all.
        free_at: when each busy lane will be free.
    """

    now: float
    waiting: Sequence[SimulatedRequest]
    lanes: FreeLanes
    free_at: Sequence[float]


class SchedulingPolicy(Protocol):
    """A policy under test."""

    def admit(self, request: SimulatedRequest, state: QueueView) -> bool:
        """Whether an arriving request may wait."""

    def choose(self, state: QueueView) -> Choice:
        """What to run now; at least one lane is idle and at least one request waits."""


@dataclass(frozen=True, slots=True)
class SimulatedBatch:
    """A batch that ran, from `begin` to `end` in seconds."""

    begin: float
    end: float
    requests: tuple[SimulatedRequest, ...]
    wide: bool


@dataclass(frozen=True, slots=True)
class SimulatedRun:
    """All that happened."""

    requests: list[SimulatedRequest]
    batches: list[SimulatedBatch]


def simulate(
    arrivals: Sequence[Arrival], scheduler: SchedulingPolicy, costs: Costs, *, lanes: int
) -> SimulatedRun:
    """Play arrivals against a policy until all have an answer or a refusal.

    Args:
        arrivals: in order of time.
        scheduler: the policy.
        costs: how long batches take.
        lanes: of the machine.

    Raises:
        RuntimeError: the policy would let requests wait for ever.
    """
    world = _World(scheduler, costs, lanes)
    requests = [SimulatedRequest(arrival) for arrival in arrivals]
    coming = deque(requests)
    while coming or world.waiting:
        world.advance(coming[0].virtual_arrival if coming else math.inf)
        while coming and coming[0].virtual_arrival <= world.now:
            world.receive(coming.popleft())
        world.dispatch()
    return SimulatedRun(requests, world.batches)


class _World:
    """The server: what waits, what runs, and what time it is."""

    def __init__(self, scheduler: SchedulingPolicy, costs: Costs, lanes: int) -> None:
        self.now = 0.0
        self.waiting: list[SimulatedRequest] = []
        self.batches: list[SimulatedBatch] = []
        self._scheduler = scheduler
        self._costs = costs
        self._lanes = lanes
        self._busy: list[float] = []  # a heap: when a lane is free
        self._look_again = math.inf

    def advance(self, arrival: float) -> None:
        """Go to the next event: an arrival, a lane that is done, a time that the policy named."""
        done = self._busy[0] if self._busy else math.inf
        self.now = min(arrival, done, self._look_again)
        if math.isinf(self.now):
            raise RuntimeError("the policy rests while requests wait, and names no time to go on")
        self._look_again = math.inf
        while self._busy and self._busy[0] <= self.now:
            heapq.heappop(self._busy)

    def receive(self, request: SimulatedRequest) -> None:
        """A request arrives."""
        request.refused = not self._scheduler.admit(request, self._state())
        if not request.refused:
            self.waiting.append(request)

    def dispatch(self) -> None:
        """Ask the policy while a lane is idle, a request waits, and the policy does something."""
        while self.waiting and len(self._busy) < self._lanes:
            choice = self._scheduler.choose(self._state())
            for request in choice.dropped:
                request.refused = True
            gone = {id(request) for request in (*choice.batch, *choice.dropped)}
            self.waiting = [request for request in self.waiting if id(request) not in gone]
            if choice.look_again is not None:
                self._look_again = choice.look_again
            if choice.batch:
                self._run(choice)
            elif not choice.dropped:  # behind those that were dropped there may be others
                return

    def _run(self, choice: Choice) -> None:
        model = (choice.wide and self._costs.wide) or self._costs.lane
        end = self.now + model.seconds(sum((each.shape for each in choice.batch), NOTHING))
        for request in choice.batch:
            request.answered = end
        self.batches.append(SimulatedBatch(self.now, end, tuple(choice.batch), choice.wide))
        for _ in range(self._lanes if choice.wide else 1):
            heapq.heappush(self._busy, end)

    def _state(self) -> QueueView:
        idle = self._lanes - len(self._busy)
        return QueueView(self.now, self.waiting, FreeLanes(idle, self._lanes), list(self._busy))
