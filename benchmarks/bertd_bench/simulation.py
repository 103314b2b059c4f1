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
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from bertd_server.batching import Costs, Lanes
from bertd_server.cost import NOTHING, Shape

from bertd_bench.traffic import Arrival


@dataclass(slots=True, eq=False)
class Request:
    """An arrival, and what became of it. It is what `form_batch` calls `Waiting`.

    Attributes:
        arrival: as drawn.
        passed_over: counted by our scheduler.
        answered: when; None if it was not.
        refused: it was turned away, on arrival or later.
    """

    arrival: Arrival
    passed_over: int = 0
    answered: float | None = None
    refused: bool = False
    shape: Shape = field(init=False)
    priority: int = field(init=False)
    deadline: float = field(init=False)
    turn: float = field(init=False)

    def __post_init__(self) -> None:
        """Copies, since these are read for every batch."""
        self.shape = self.arrival.shape
        self.priority = self.arrival.priority
        self.deadline = self.arrival.deadline
        self.turn = self.arrival.at

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

    batch: Sequence[Request] = ()
    dropped: Sequence[Request] = ()
    wide: bool = False
    look_again: float | None = None


@dataclass(frozen=True, slots=True)
class State:
    """What a policy may know.

    Attributes:
        now: seconds of virtual time.
        waiting: in order of arrival.
        lanes: idle, and all.
        free_at: when each busy lane is expected to be free.
    """

    now: float
    waiting: Sequence[Request]
    lanes: Lanes
    free_at: Sequence[float]


class Scheduler(Protocol):
    """A policy under test."""

    def admit(self, request: Request, state: State) -> bool:
        """Whether an arriving request may wait."""

    def choose(self, state: State) -> Choice:
        """What to run now; at least one lane is idle and at least one request waits."""

    def charged(self, batch: Sequence[Request]) -> Shape:
        """The shape whose cost a batch has."""


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch that ran, from `begin` to `end` in seconds."""

    begin: float
    end: float
    requests: tuple[Request, ...]
    wide: bool

    @property
    def tokens(self) -> int:
        """Real tokens in it."""
        return sum(request.arrival.tokens for request in self.requests)


@dataclass(frozen=True, slots=True)
class Run:
    """All that happened."""

    requests: list[Request]
    batches: list[Batch]


def simulate(
    arrivals: Sequence[Arrival],
    scheduler: Scheduler,
    costs: Costs,
    *,
    lanes: int,
    noise: float = 0.0,
    seed: int = 0,
) -> Run:
    """Play arrivals against a policy until all have an answer or a refusal.

    Args:
        arrivals: in order of time.
        scheduler: the policy.
        costs: how long batches really take, before noise.
        lanes: of the machine.
        noise: standard deviation of the logarithm of real over predicted time.
        seed: of the noise.

    Raises:
        RuntimeError: the policy would let requests wait for ever.
    """
    rng = np.random.default_rng(seed)
    requests = [Request(arrival) for arrival in arrivals]
    waiting: list[Request] = []
    batches: list[Batch] = []
    busy: list[tuple[float, float]] = []  # a heap: when a lane is free, when it is expected to be
    coming, now, look_again = 0, 0.0, float("inf")

    def state() -> State:
        return State(now, waiting, Lanes(lanes - len(busy), lanes), [e for _, e in busy])

    while coming < len(requests) or waiting:
        next_arrival = requests[coming].turn if coming < len(requests) else float("inf")
        now = min(next_arrival, busy[0][0] if busy else float("inf"), look_again)
        if now == float("inf"):
            raise RuntimeError("the policy rests while requests wait, and names no time to go on")
        look_again = float("inf")
        while busy and busy[0][0] <= now:
            heapq.heappop(busy)
        while coming < len(requests) and requests[coming].turn <= now:
            request = requests[coming]
            coming += 1
            request.refused = not scheduler.admit(request, state())
            if not request.refused:
                waiting.append(request)
        while waiting and len(busy) < lanes:
            choice = scheduler.choose(state())
            for request in choice.dropped:
                request.refused = True
            if choice.look_again is not None:
                look_again = choice.look_again
            gone = {id(request) for request in (*choice.batch, *choice.dropped)}
            waiting[:] = [request for request in waiting if id(request) not in gone]
            if not choice.batch and choice.dropped:
                continue  # there may be others behind them
            if not choice.batch:
                break
            model = costs.wide if choice.wide and costs.wide is not None else costs.lane
            expected = model.seconds(scheduler.charged(choice.batch))
            end = now + expected * float(np.exp(noise * rng.standard_normal()))
            for request in choice.batch:
                request.answered = end
            batches.append(Batch(now, end, tuple(choice.batch), choice.wide))
            for _ in range(lanes if choice.wide else 1):
                heapq.heappush(busy, (end, now + expected))
    return Run(requests, batches)


def packed(batch: Sequence[Request]) -> Shape:
    """What a batch without padding costs."""
    total = NOTHING
    for request in batch:
        total += request.shape
    return total
