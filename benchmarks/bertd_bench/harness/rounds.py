"""Interleaved rounds: the one way in which contestants are timed here.

::

    warm-up   A until steady, B until steady, C until steady
    round 1   kernel · pause [wake B: warm, timed, n times, rest] · pause [A …] · pause [C …]
    round 2   kernel · pause [C …] · pause [B …] · pause [A …]          an order shuffled anew

A slow minute of the machine falls on all, and while cores are further apart than before, a turn
waits. A round in which others were at work is dropped and taken again, where the watch says so.
Between turns a pause lets the threads of the one before go to sleep; a system in a process of its
own is stopped while others have theirs. The first calls of a turn are not timed: others have had
the caches since.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pydantic import BaseModel

from bertd_bench.harness.intervals import Interval, median_interval, median_of
from bertd_bench.harness.noise import NoiseWatch
from bertd_bench.harness.steady import Warmup, warm_up
from bertd_bench.harness.system import SystemUnderTest

OVER_BUDGET = 1.10  # of its threads: what may be measured before a contestant is marked


@dataclass(frozen=True, slots=True)
class Schedule:
    """How often each contestant is called.

    Attributes:
        rounds: turns of each.
        repeats: timed calls of one turn, at most.
        warmups: untimed calls before them.
        pause_seconds: before each turn; lets the threads of the contestant before go to sleep.
        steady_seconds: limit of the warm-up before the first round; 0 leaves it out.
        turn_seconds: with a warm-up, a turn has as many calls as fit, and at least two; this keeps
            a slow contestant from taking all the time. 0 gives every turn all its repeats.
    """

    rounds: int
    repeats: int = 10
    warmups: int = 1
    pause_seconds: float = 0.02
    steady_seconds: float = 0.0
    turn_seconds: float = 0.0

    def repeats_of(self, warmup: Warmup | None) -> int:
        """Timed calls of a turn of one whose warm-up was this."""
        if warmup is None or not self.turn_seconds:
            return self.repeats
        return max(2, min(self.repeats, int(self.turn_seconds * 1e9 / warmup.last_ns)))


class SystemTimes(BaseModel, frozen=True):
    """All that was seen of one contestant with one sample.

    Attributes:
        name: of the contestant.
        threads: its budget.
        cores: CPU seconds over seconds of its turns, all its processes; what it really used.
        warmup: before the first round; None if the schedule had none.
        rounds_ns: every raw sample, round by round, in the order of the rounds.
        turn_seconds: of all its turns together, untimed calls included.
        cpu_seconds: likewise.
    """

    name: str
    threads: int
    warmup: Warmup | None
    rounds_ns: list[list[int]]
    turn_seconds: float
    cpu_seconds: float

    @property
    def cores(self) -> float:
        """Cores that were used, on average over the turns."""
        return self.cpu_seconds / self.turn_seconds if self.turn_seconds else 0.0

    @property
    def over_budget(self) -> bool:
        """Whether it used more than its threads, and 10 % more at that."""
        return self.cores > self.threads * OVER_BUDGET

    @property
    def samples_ns(self) -> list[int]:
        """All samples in one list."""
        return [sample for each in self.rounds_ns for sample in each]

    @property
    def median_ms(self) -> float:
        """Median of all samples, in milliseconds."""
        return median_of(self.rounds_ns) / 1e6

    @property
    def interval_ms(self) -> Interval | None:
        """95 % interval of the median, in milliseconds."""
        found = median_interval(self.rounds_ns)
        return found and Interval(low=found.low / 1e6, high=found.high / 1e6)


class _Turn(NamedTuple):
    """One turn: nanoseconds of its answers; its seconds, and CPU seconds, untimed calls too."""

    samples: list[int]
    seconds: float
    cpu: float


class _Tally:
    """What one contestant has shown so far."""

    def __init__(self, system: SystemUnderTest, clock: Callable[[], float]) -> None:
        self.system = system
        self._clock = clock
        self.warmup: Warmup | None = None
        self._rounds: list[list[int]] = []
        self._seconds = 0.0
        self._cpu = 0.0

    def turn(self, index: int, schedule: Schedule) -> _Turn:
        """One turn, that does not count before it is kept."""
        self.system.wake()
        try:
            cpu, begin = self.system.cpu_seconds(), self._clock()
            if schedule.warmups:
                self.system.turn(index, schedule.warmups)
            samples = self.system.turn(index, schedule.repeats_of(self.warmup))
            return _Turn(samples, self._clock() - begin, self.system.cpu_seconds() - cpu)
        finally:
            self.system.rest()

    def keep(self, turn: _Turn) -> None:
        """Count a turn."""
        self._rounds.append(turn.samples)
        self._seconds += turn.seconds
        self._cpu += turn.cpu

    def warm(self, index: int, limit_seconds: float) -> None:
        self.system.wake()
        try:
            self.warmup = warm_up(lambda calls: self.system.turn(index, calls), limit_seconds)
        finally:
            self.system.rest()

    def measured(self) -> SystemTimes:
        return SystemTimes(
            name=self.system.name,
            threads=self.system.threads,
            warmup=self.warmup,
            rounds_ns=self._rounds,
            turn_seconds=self._seconds,
            cpu_seconds=self._cpu,
        )


def run(  # noqa: PLR0913 - the clock and the sleep are there for tests in virtual time
    systems: Sequence[SystemUnderTest],
    index: int,
    schedule: Schedule,
    rng: random.Random,
    *,
    watch: NoiseWatch | None = None,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> list[SystemTimes]:
    """Time every system with one sample; gives one result for each, in their order.

    Args:
        systems: with names that differ, ready to answer, at rest.
        index: the sample.
        schedule: how often.
        rng: shuffles the turns.
        watch: times its kernel between rounds.
        clock: seconds, of the turns as a whole.
        sleep: makes the pauses.

    Raises:
        ValueError: two systems have one name.
    """
    if len({system.name for system in systems}) != len(systems):
        raise ValueError(f"names of systems repeat: {[system.name for system in systems]}")
    tallies = [_Tally(system, clock) for system in systems]
    if schedule.steady_seconds:
        for tally in rng.sample(tallies, len(tallies)):
            sleep(schedule.pause_seconds)
            tally.warm(index, schedule.steady_seconds)

    def one_round() -> list[tuple[_Tally, _Turn]]:
        turns = []
        for tally in rng.sample(tallies, len(tallies)):
            sleep(schedule.pause_seconds)
            if watch is not None:
                watch.settle(sleep)
            turns.append((tally, tally.turn(index, schedule)))
        return turns

    for _ in range(schedule.rounds):
        if watch is None:
            kept = one_round()
        else:
            sleep(schedule.pause_seconds)
            watch.calibrate()
            kept = watch.undisturbed(one_round)
        for tally, turn in kept:
            tally.keep(turn)
    return [tally.measured() for tally in tallies]
