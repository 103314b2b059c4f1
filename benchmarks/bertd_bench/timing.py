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
