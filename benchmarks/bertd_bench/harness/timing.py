"""Timing of calls in this process, and percentiles of what came out.

`measure` is :func:`bertd_bench.harness.rounds.run` for plain functions: same rounds, same pauses.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from bertd_server.system import cpu
from pydantic import BaseModel

from bertd_bench.harness import rounds
from bertd_bench.harness.rounds import Schedule
from bertd_bench.harness.system import Calls

__all__ = [
    "Quartiles",
    "Schedule",
    "Summary",
    "measure",
    "quartiles",
    "repeats_within",
    "summarize",
]


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
    systems = Calls.each(calls, cpu.usable_threads())
    return {each.name: each.samples_ns for each in rounds.run(systems, 0, schedule, rng)}
