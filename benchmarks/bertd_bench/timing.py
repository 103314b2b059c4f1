"""Interleaved timing.

Every contestant has a turn in every round, in an order shuffled anew, so that a slow minute of
the machine falls on all of them::

    round 1:  pause B pause A pause C
    round 2:  pause C pause B pause A
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel


@dataclass(frozen=True, slots=True)
class Schedule:
    """How often each contestant is called."""

    rounds: int
    repeats: int = 10  # timed calls of one turn
    warmups: int = 1  # untimed calls before them
    pause_seconds: float = 0.02  # lets the threads of the contestant before go to sleep


@dataclass(frozen=True, slots=True)
class Summary:
    """What the samples say, in milliseconds."""

    median: float
    p90: float
    p99: float


def summarize(samples_ns: list[int]) -> Summary:
    """Median and percentiles, interpolated linearly between samples.

    Raises:
        ValueError: there are no samples.
    """
    if not samples_ns:
        raise ValueError("there are no samples to summarize")
    median, p90, p99 = np.percentile(np.array(samples_ns, np.float64) / 1e6, [50, 90, 99])
    return Summary(float(median), float(p90), float(p99))


class Quartiles(BaseModel, frozen=True):
    """Milliseconds of so many calls: half of them lie between the outer two."""

    first: float
    median: float
    third: float
    calls: int

    @property
    def spread(self) -> float:
        """The distance between the outer two, as a part of the median."""
        return (self.third - self.first) / self.median


def quartiles(samples_ns: list[int]) -> Quartiles:
    """The quartiles, interpolated linearly between samples; at least one sample."""
    first, median, third = np.percentile(np.array(samples_ns, np.float64) / 1e6, [25, 50, 75])
    return Quartiles(
        first=float(first), median=float(median), third=float(third), calls=len(samples_ns)
    )


def repeats_within(turn_seconds: float, calls: Mapping[str, Callable[[], object]]) -> int:
    """How many calls of the slowest contestant fit into a turn: at least 2, at most 20."""
    slowest = 0.0
    for call in calls.values():
        begin = time.perf_counter()
        call()
        slowest = max(slowest, time.perf_counter() - begin)
    return max(2, min(20, int(turn_seconds / slowest)))


def measure(
    calls: Mapping[str, Callable[[], object]], schedule: Schedule, rng: random.Random
) -> dict[str, list[int]]:
    """Time every call `rounds` x `repeats` times; gives the samples in nanoseconds."""
    samples: dict[str, list[int]] = {name: [] for name in calls}
    for _ in range(schedule.rounds):
        for name in rng.sample(list(calls), len(calls)):
            call = calls[name]
            time.sleep(schedule.pause_seconds)
            for _ in range(schedule.warmups):
                call()
            for _ in range(schedule.repeats):
                begin = time.perf_counter_ns()
                call()
                samples[name].append(time.perf_counter_ns() - begin)
    return samples
