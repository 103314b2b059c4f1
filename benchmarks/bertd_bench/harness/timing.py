"""Timing of calls in this process, and the quartiles of what came out.

`measure` is :func:`bertd_bench.harness.rounds.run` for plain functions: same rounds, same pauses.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

import numpy as np
from bertd_server.system import cpu
from pydantic import BaseModel

from bertd_bench.harness import rounds
from bertd_bench.harness.rounds import Schedule
from bertd_bench.harness.system import Calls

__all__ = ["Quartiles", "Schedule", "measure", "quartiles"]


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
    """The quartiles, interpolated linearly between samples.

    Raises:
        ValueError: there are no samples.
    """
    if not samples_ns:
        raise ValueError("there are no samples to take quartiles of")
    first, median, third = np.percentile(np.array(samples_ns, np.float64) / 1e6, [25, 50, 75])
    return Quartiles(
        first=float(first), median=float(median), third=float(third), calls=len(samples_ns)
    )


def measure(
    calls: Mapping[str, Callable[[], object]], schedule: Schedule, rng: random.Random
) -> dict[str, list[int]]:
    """Time every call as the schedule says; gives the samples in nanoseconds."""
    systems = Calls.each(calls, cpu.usable_threads())
    return {each.name: each.samples_ns for each in rounds.run(systems, 0, schedule, rng)}
