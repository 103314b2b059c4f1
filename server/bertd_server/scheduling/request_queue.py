"""What waits: in which order it goes, and how much work it is.

::

    add, remove ──> by urgency          [priority, deadline, virtual arrival] ──front──> form_batch
                    by virtual arrival  when the eldest was passed over too often
                    short ones          by class, for the thread beside the lanes
                    backlog             seconds by class and deadline, for admission

Forming a batch looks at the front alone: its work does not grow with the queue.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Generic, NamedTuple

from bertd_server.scheduling.batching import (
    SHORT_TOKENS,
    BatchPolicy,
    Costs,
    Decision,
    FreeLanes,
    W,
    form_batch,
    form_short_batch,
    urgency,
)

_FINEST = -8  # deadlines are told apart to 2**-8 s
_PER_OCTAVE = 6  # or, further away, to 2**-6 of what is left until then, or better

LATE_AT_ONCE = 64
"""Requests whose deadline has passed that are looked at at once: to end them takes 1 to 2 ms."""

DeadlineRange = tuple[float, float]
"""A stretch of time: deadlines from its begin until before its end are taken for one."""

_NEVER: DeadlineRange = (math.inf, math.inf)


class ArrivalClock:
    """Virtual time of a class: it goes as time does, and waits for the rest of large calls.

    A large call's requests arrive one after the other, as fast as they are predicted to run. If
    they take longer, they would arrive before they can run, and all who come later would wait for
    them; so the clock stands still at the first that should have run, until it has.
    """

    def __init__(self) -> None:
        self._behind = 0.0  # seconds, of time
        self._following: list[float] = []

    def add(self, arrival: float) -> None:
        """A request waits that follows another of its call."""
        insort(self._following, arrival)

    def remove(self, arrival: float) -> None:
        """It does not wait any more."""
        del self._following[bisect_left(self._following, arrival)]

    def reads(self, now: float) -> float:
        """What it reads."""
        self._behind = max(self._behind, now - self._following[0]) if self._following else 0.0
        return now - self._behind


class RequestQueue(Generic[W]):
    """Requests that wait. Their urgency and virtual arrival must not change meanwhile.

    Attributes:
        backlog: predicted work of all of them.
    """

    def __init__(self, horizon: float) -> None:
        """Tell deadlines apart up to `horizon` seconds from now."""
        self.backlog = Backlog(horizon)
        # Keys end with the request's number, which makes them unique.
        self._by_urgency: list[tuple[tuple[float, float, float], int]] = []
        self._by_arrival: list[tuple[float, int]] = []
        self._requests: dict[int, W] = {}
        # By class: those that may be short, and their tokens.
        self._short: defaultdict[int, dict[int, W]] = defaultdict(dict)
        self._short_tokens: defaultdict[int, int] = defaultdict(int)
        self._places: dict[int, tuple[int, Place, bool]] = {}  # number, work, follows; by identity
        self._clocks: defaultdict[int, ArrivalClock] = defaultdict(ArrivalClock)
        self._added = 0

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[W]:
        """The most urgent first."""
        return (self._requests[number] for _, number in self._by_urgency)

    def __contains__(self, request: W) -> bool:
        return id(request) in self._places

    @property
    def eldest(self) -> W:
        """The request with the earliest virtual arrival; there must be one."""
        return self._requests[self._by_arrival[0][1]]

    def arrival(self, priority: int, now: float) -> float:
        """When what comes now virtually arrives, in its class."""
        return self._clocks[priority].reads(now)

    def add(self, request: W, costs: Costs, now: float, *, follows: bool = False) -> None:
        """Let a request wait, and count its work.

        Args:
            request: it.
            costs: predicts its work.
            now: on the clock of the deadlines.
            follows: whether it virtually arrives after another of its call.
        """
        follows = follows and math.isinf(request.deadline)
        if follows:
            self._clocks[request.priority].add(request.virtual_arrival)
        number = self._added = self._added + 1
        self._requests[number] = request
        insort(self._by_urgency, (urgency(request), number))
        insort(self._by_arrival, (request.virtual_arrival, number))
        if request.shape.tokens <= SHORT_TOKENS:
            self._short[request.priority][number] = request
            self._short_tokens[request.priority] += request.shape.tokens
        place = self.backlog.add(
            request.priority,
            request.deadline,
            now,
            seconds=costs.lane.share(request.shape),
            tokens=request.shape.tokens,
            virtual_arrival=request.virtual_arrival,
        )
        self._places[id(request)] = (number, place, follows)

    def remove(self, request: W) -> None:
        """Take a request out; it must be there."""
        number, place, follows = self._places.pop(id(request))
        if follows:
            self._clocks[request.priority].remove(request.virtual_arrival)
        del self._requests[number]
        del self._by_urgency[bisect_left(self._by_urgency, (urgency(request), number))]
        del self._by_arrival[bisect_left(self._by_arrival, (request.virtual_arrival, number))]
        if self._short[request.priority].pop(number, None) is not None:
            self._short_tokens[request.priority] -= request.shape.tokens
        self.backlog.remove(place)

    def take(self, policy: BatchPolicy, costs: Costs, lanes: FreeLanes, now: float) -> Decision[W]:
        """Form a batch of the front, and take it and what is late out of the queue.

        `remaining` of the decision is what was looked at and stays.
        """
        decision = form_batch(self._front(policy, costs, lanes, now), policy, costs, lanes, now)
        for request in (*decision.batch, *decision.late):
            self.remove(request)
        if decision.batch and self._requests:
            eldest = self.eldest
            if any(one.virtual_arrival > eldest.virtual_arrival for one in decision.batch):
                eldest.passed_over += 1
        return decision

    def short_tokens(self, priority: int) -> int:
        """Tokens of the texts of a class of which each is short enough for the short lane."""
        return self._short_tokens[priority]

    def take_short(
        self, policy: BatchPolicy, costs: Costs, lasting: float, now: float
    ) -> Decision[W] | None:
        """Take the short texts of the best class that has some, if they are to run beside lanes.

        Nobody counts as passed over: they take no lane.
        """
        kind = min((priority for priority, some in self._short.items() if some), default=None)
        if kind is None or self._short_tokens[kind] > SHORT_TOKENS:
            return None
        texts = list(self._short[kind].values())
        decision = form_short_batch(texts, policy, costs, lasting, now)
        for request in decision.batch if decision else ():
            self.remove(request)
        return decision

    def _front(self, policy: BatchPolicy, costs: Costs, lanes: FreeLanes, now: float) -> list[W]:
        """As many requests, first ones first, as could fill every idle lane; few of late ones."""
        if len(self._requests) <= 1:
            return list(self._requests.values())
        overdue = self.eldest.passed_over >= policy.max_passed_over
        keys: Sequence[tuple[object, int]] = self._by_arrival if overdue else self._by_urgency
        front: list[W] = []
        work, enough = 0.0, policy.budget_seconds * lanes.idle
        for _, number in keys[: policy.max_sequences * lanes.idle]:
            front.append(self._requests[number])
            work += costs.lane.share(front[-1].shape)
            late = len(front) >= LATE_AT_ONCE and front[-1].deadline <= now
            if work > enough or late:
                break
        return front


class Place(NamedTuple):
    """What one request adds to the backlog, and where."""

    priority: int
    due: DeadlineRange
    virtual_arrival: float
    seconds: float
    tokens: int


class _PriorityClass:
    """What waits in one priority class."""

    def __init__(self) -> None:
        self.requests = 0
        self.tokens = 0
        self.seconds: defaultdict[DeadlineRange, float] = defaultdict(float)
        self.counts: defaultdict[DeadlineRange, int] = defaultdict(int)
        # Without a deadline: virtual arrivals that lie ahead, each with its seconds, and the
        # seconds of all others.
        self.ahead: list[tuple[float, float]] = []
        self.arrived = 0.0

    def until(self, now: float) -> float:
        """Seconds of the requests without a deadline that have virtually arrived."""
        count = bisect_right(self.ahead, (now, math.inf))
        self.arrived += sum(seconds for _, seconds in self.ahead[:count])
        del self.ahead[:count]
        return self.arrived


class Backlog:
    """Predicted work of what waits: a few hundred ranges at most, however many deadlines."""

    def __init__(self, horizon: float) -> None:
        """Keep deadlines apart up to `horizon` seconds from now; nothing waits longer."""
        self._horizon = horizon
        self._classes: dict[int, _PriorityClass] = {}

    def reach(self, horizon: float) -> None:
        """Keep deadlines of requests that come from now on apart up to another `horizon`."""
        self._horizon = horizon

    def add(  # noqa: PLR0913 - what a request is, by keyword
        self,
        priority: int,
        deadline: float,
        now: float,
        *,
        seconds: float,
        tokens: int,
        virtual_arrival: float = -math.inf,
    ) -> Place:
        """Count a request; give back what this returns when it leaves.

        Args:
            priority: its class.
            deadline: on the same clock as `now`.
            now: the present.
            seconds: predicted, of one lane.
            tokens: that it has.
            virtual_arrival: when it comes before others that have no deadline either.
        """
        due = _range(deadline, now) if deadline < now + self._horizon else _NEVER
        kind = self._classes.get(priority)
        if kind is None:
            kind = self._classes[priority] = _PriorityClass()
        kind.requests += 1
        kind.tokens += tokens
        kind.seconds[due] += seconds
        kind.counts[due] += 1
        if due == _NEVER:
            insort(kind.ahead, (virtual_arrival, seconds))
        return Place(priority, due, virtual_arrival, seconds, tokens)

    def remove(self, place: Place) -> None:
        """Uncount a request."""
        kind, due = self._classes[place.priority], place.due
        kind.requests -= 1
        if not kind.requests:  # with it goes what rounding has left
            del self._classes[place.priority]
            return
        kind.tokens -= place.tokens
        kind.seconds[due] -= place.seconds
        kind.counts[due] -= 1
        if due == _NEVER:
            key = (place.virtual_arrival, place.seconds)
            at = bisect_left(kind.ahead, key)
            if kind.ahead[at : at + 1] == [key]:
                del kind.ahead[at]
            else:
                kind.arrived -= place.seconds
        if not kind.counts[due]:
            del kind.counts[due], kind.seconds[due]
            if due == _NEVER:
                kind.arrived = 0.0

    def tokens(self, priority: float = math.inf) -> int:
        """Tokens of what waits in a class and those before it."""
        return sum(kind.tokens for p, kind in self._classes.items() if p <= priority)

    def seconds(self, priority: float = math.inf) -> float:
        """Lane seconds of what waits in a class and those before it."""
        return sum(sum(kind.seconds.values()) for p, kind in self._classes.items() if p <= priority)

    def before(self, priority: int, deadline: float, now: float) -> float:
        """Lane seconds of what goes before a request that comes now.

        The rest of a large call does not: without a deadline, its requests virtually arrive one
        after the other.
        """
        work = self.seconds(priority - 1)
        kind = self._classes.get(priority)
        if kind is None:
            return work
        work += sum(
            seconds for due, seconds in kind.seconds.items() if due[0] <= deadline and due != _NEVER
        )
        return work + kind.until(now) if math.isinf(deadline) else work

    def promises(self, priority: int) -> list[tuple[DeadlineRange, float]]:
        """For each range of deadlines in a class, in ascending order, the lane seconds until then.

        Those count that go before the range has passed.
        """
        work = self.seconds(priority - 1)
        kind = self._classes.get(priority)
        found = []
        for due, seconds in sorted(kind.seconds.items()) if kind else ():
            work += seconds
            found.append((due, work))
        return found


def _range(deadline: float, now: float) -> DeadlineRange:
    """The later a deadline, the wider its range: so there are few."""
    _, octave = math.frexp(max(deadline - now, 2.0**_FINEST))
    width = 2.0 ** max(_FINEST, octave - 1 - _PER_OCTAVE)
    begin = math.floor(deadline / width) * width
    return begin, begin + width
