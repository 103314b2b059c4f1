"""A ramp of rates: up until goodput falls, then halving down on the last rate that held.

::

    rate   0.4 ─ 0.5 ─ 0.63 ─ 0.78 ─ 0.98 ─ 1.22 x capacity
    p99     ok    ok     ok     ok    missed  missed, and goodput is lower: the ramp ends
    then                           0.88 ok, 0.93 missed, …    until both are within 5 %

What a step is made of is the caller's: a probe puts one rate on a system and says what came of it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydantic import BaseModel

from bertd_bench.load.generator import RequestOutcome, TimedRequest

SHARE = 0.99  # of all requests, which must be answered within the objective
_FEWEST = 20  # requests of a step that held: what fewer say of a hundredth is luck
_EASY = 0.3  # of the objective: below it the next rate is two steps up


class Step(BaseModel, frozen=True):
    """One rate, held for a while.

    Attributes:
        rate: requests a second that were due on average, one text each.
        seconds: for how long.
        requests: that were due.
        latencies_us: microseconds of every request that was answered, from when it was due, in
            the order of their ends.
        outcomes: how many requests ended how.
        late_us: 99th percentile of how far the generator was behind its plan.
        cores: CPU seconds a second of the contestant, all its processes.
    """

    rate: float
    seconds: float
    requests: int
    latencies_us: list[int]
    outcomes: dict[str, int]
    late_us: int
    cores: float

    def percentile(self, share: float) -> float:
        """Seconds within which this share of all requests was answered; inf if it was not.

        The nearest rank: of what was not answered nobody knows how long it would have taken.
        """
        rank = math.ceil(share * self.requests)
        if not 0 < rank <= len(self.latencies_us):
            return math.inf
        return sorted(self.latencies_us)[rank - 1] / 1e6

    def goodput(self, objective: float) -> float:
        """Requests a second that were answered within so many seconds."""
        return sum(each <= objective * 1e6 for each in self.latencies_us) / self.seconds

    def meets(self, objective: float) -> bool:
        """Whether 99 % of enough requests were answered within so many seconds."""
        return self.requests >= _FEWEST and self.percentile(SHARE) <= objective


def step_of(rate: float, seconds: float, records: Sequence[TimedRequest], cores: float) -> Step:
    """What an open loop's records say of a rate."""
    late = sorted(record.sent - record.due for record in records)
    return Step(
        rate=rate,
        seconds=seconds,
        requests=len(records),
        latencies_us=[
            round(record.latency * 1e6)
            for record in records
            if record.reply.outcome is RequestOutcome.ANSWERED
        ],
        outcomes=Counter(record.reply.outcome.value for record in records),
        late_us=round(late[math.ceil(SHARE * len(late)) - 1] * 1e6) if late else 0,
        cores=cores,
    )


@dataclass(frozen=True, slots=True)
class RampSchedule:
    """How a ramp goes.

    Attributes:
        objective: seconds within which 99 % of all requests must be answered.
        start: first rate, of the capacity.
        factor: from one rate to the next.
        precision: ends the search between a rate that held and one that did not.
        falls: goodput below this share of the best is falling.
        most: steps, at most.
    """

    objective: float
    start: float = 0.4
    factor: float = 1.25
    precision: float = 0.05
    falls: float = 0.97
    most: int = 16


Probe = Callable[[float], Step]


def climb(probe: Probe, capacity: float, plan: RampSchedule) -> list[Step]:
    """Put one rate after the other on a system.

    Args:
        probe: holds a rate.
        capacity: about what the system does; a guess saves steps, a wrong one costs some.
        plan: of the ramp.

    Returns:
        Every step, in the order in which they were made.
    """
    steps: list[Step] = []
    rate = plan.start * capacity
    while len(steps) < plan.most:
        step = probe(rate)
        best = max((each.goodput(plan.objective) for each in steps), default=0.0)
        steps.append(step)
        if step.meets(plan.objective):
            easy = step.percentile(SHARE) <= plan.objective * _EASY
            rate = max(each.rate for each in steps) * plan.factor ** (2 if easy else 1)
        elif not held(steps, plan.objective):
            if step.requests < _FEWEST:
                break  # it takes no rate that could be measured
            rate = min(each.rate for each in steps) / 2
        elif step.goodput(plan.objective) < plan.falls * best:
            break
        else:
            rate *= plan.factor
    while len(steps) < plan.most:
        low = held(steps, plan.objective)
        missed = [s.rate for s in steps if s.rate > low and not s.meets(plan.objective)]
        if not low or not missed or min(missed) <= low * (1 + plan.precision):
            break
        steps.append(probe(math.sqrt(low * min(missed))))
    return steps


def held(steps: Sequence[Step], objective: float) -> float:
    """The highest rate that met the objective; 0 if none did."""
    return max((step.rate for step in steps if step.meets(objective)), default=0.0)
