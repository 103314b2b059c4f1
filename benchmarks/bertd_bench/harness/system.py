"""What is measured, as far as the harness knows it: a system, and samples by their numbers.

As in MLPerf's LoadGen, nothing here knows what a sample is or how it is answered::

    SystemUnderTest   turn(index, repeats) -> nanoseconds of each answer

A turn is timed by the system itself, with the harness's loop (:func:`timed`), so that one in
another process is charged for its answers and not for the pipe.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


class SystemUnderTest(Protocol):
    """Anything that answers samples.

    Attributes:
        name: as tables show it.
        threads: its budget, in cores.
    """

    @property
    def name(self) -> str: ...  # noqa: D102 - described above

    @property
    def threads(self) -> int: ...  # noqa: D102 - described above

    def turn(self, index: int, repeats: int) -> list[int]:
        """Answer a sample so many times, one after the other; nanoseconds of each answer."""
        ...

    def cpu_seconds(self) -> float:
        """CPU time of all its processes so far."""
        ...

    def wake(self) -> None:
        """Its turn begins."""
        ...

    def rest(self) -> None:
        """Its turn is over: from here on it takes no CPU time."""
        ...


def timed(call: Callable[[], object], repeats: int) -> list[int]:
    """Call so many times; nanoseconds of each. The clock stands around the call alone."""
    samples = []
    for _ in range(repeats):
        begin = time.perf_counter_ns()
        call()
        samples.append(time.perf_counter_ns() - begin)
    return samples


@dataclass(frozen=True, slots=True)
class Calls:
    """A system of this process: one call for each sample.

    Its CPU time is that of the whole process, so nothing else may run here meanwhile.
    """

    name: str
    threads: int
    calls: Sequence[Callable[[], object]]

    @classmethod
    def each(cls, calls: Mapping[str, Callable[[], object]], threads: int) -> list[Calls]:
        """One system for each call, all with sample 0 alone."""
        return [cls(name, threads, [call]) for name, call in calls.items()]

    def turn(self, index: int, repeats: int) -> list[int]:
        """See :class:`SystemUnderTest`."""
        return timed(self.calls[index], repeats)

    def cpu_seconds(self) -> float:
        """See :class:`SystemUnderTest`."""
        return time.process_time()

    def wake(self) -> None:
        """Nothing was stopped."""

    def rest(self) -> None:
        """Threads of this process go to sleep by themselves; the pause lets them."""
