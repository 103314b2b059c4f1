"""How fast memory is read and copied, by so many threads at once.

Reading is the largest of int32 (SIMD, four times as fast on cached data as on memory here);
copying counts every byte twice, once read and once written.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from pydantic import BaseModel

from bertd_bench.harness import rounds
from bertd_bench.harness.intervals import Interval
from bertd_bench.harness.noise import Watch
from bertd_bench.harness.rounds import SystemTimes
from bertd_bench.harness.system import Calls

_LEAST, _MOST = 1 << 26, 1 << 28  # bytes that are gone through: 64 MiB to 256 MiB


class Bandwidth(BaseModel, frozen=True):
    """Bytes a second of one way, with so many threads.

    Attributes:
        way: `read` or `copy`.
        threads: at once, each with a part of its own.
        bytes_moved: in one call.
        measured: times of calls.
    """

    way: str
    threads: int
    bytes_moved: int
    measured: SystemTimes

    @property
    def rate(self) -> float:
        """GB/s."""
        return self.bytes_moved / self.measured.median_ms / 1e6

    @property
    def interval(self) -> Interval | None:
        """95 % interval of that."""
        return rate_interval(self.bytes_moved, self.measured)


def rate_interval(work: float, measured: SystemTimes) -> Interval | None:
    """95 % interval of work over time, in 1e9 a second."""
    found = measured.interval_ms
    return found and Interval(low=work / found.high / 1e6, high=work / found.low / 1e6)


def size(cache: int | None) -> int:
    """Bytes to go through, so that no cache holds them: four times the last level's."""
    return min(_MOST, max(_LEAST, 4 * (cache or 0)))


def measure(
    total: int, threads: Sequence[int], schedule: rounds.Schedule, watch: Watch | None
) -> list[Bandwidth]:
    """Read and copy as many bytes with each number of threads, in turns."""
    source = np.ones(total // 4, np.int32)
    target = np.zeros_like(source)
    systems, kinds = [], []
    with ThreadPoolExecutor(max(threads)) as pool:
        for count in threads:
            parts = list(
                zip(np.array_split(source, count), np.array_split(target, count), strict=True)
            )
            reads = [partial(np.max, part) for part, _ in parts]
            copies = [partial(np.copyto, there, part) for part, there in parts]
            for way, calls, moved in (("read", reads, total), ("copy", copies, 2 * total)):
                call = partial(_together, pool, calls)
                systems.append(Calls(f"{way}, {count} threads", count, [call]))
                kinds.append((way, count, moved))
        seen = rounds.run(
            systems,
            0,
            schedule,
            random.Random(0),  # noqa: S311 - the order of turns is no secret
            watch=watch,
        )
    return [
        Bandwidth(way=way, threads=count, bytes_moved=moved, measured=each)
        for (way, count, moved), each in zip(kinds, seen, strict=True)
    ]


def _together(pool: ThreadPoolExecutor, calls: Sequence[Callable[[], object]]) -> None:
    for done in [pool.submit(call) for call in calls]:
        done.result()
