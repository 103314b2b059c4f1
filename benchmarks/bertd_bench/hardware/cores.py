"""Cores as they really are: what the system counts, and what they do together.

A virtual machine may call two threads of one core two cores; only work tells. The kernel of
:mod:`bertd_bench.harness.noise` runs on one core and on all: as many cores as that is times the
work are *effective*.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import BaseModel

from bertd_bench.harness.intervals import Interval, median_of, ratio_interval
from bertd_bench.harness.machine import Machine
from bertd_bench.harness.noise import Kernel

CPUS = Path("/sys/devices/system/cpu")


class Cores(BaseModel, frozen=True):
    """What the machine counts, and what was measured.

    Attributes:
        cache_bytes: of the last level that the first of our cores sees; None likewise.
        alone_ns: of the kernel on one core, round by round.
        together_ns: of the kernel on all usable cores at once, in the same rounds.
        threads: how many those were.
    """

    cache_bytes: int | None
    threads: int
    alone_ns: list[list[int]]
    together_ns: list[list[int]]

    @property
    def effective(self) -> float:
        """Work of all cores together over that of one alone."""
        return self.threads * median_of(self.alone_ns) / median_of(self.together_ns)

    @property
    def interval(self) -> Interval | None:
        """95 % interval of that."""
        found = ratio_interval(self.alone_ns, self.together_ns)
        return found and Interval(low=found.low * self.threads, high=found.high * self.threads)

    def facts(self, machine: Machine) -> list[str]:
        """Sentences' parts for a table."""
        quota = "none" if machine.quota_cores is None else f"{machine.quota_cores:g} cores"
        together = machine.threads_per_core
        said = (
            "the system does not tell which share a physical core"
            if together is None
            else "each on a physical core of its own"
            if together == 1
            else f"up to {together} of them siblings on one physical core (SMT)"
        )
        guest = "; a guest, whose host may share them further" if machine.hypervisor else ""
        return [
            f"{len(machine.affinity or [])} logical cores, {said}{guest}",
            f"quota {quota}, {self.threads} usable threads",
            f"{self.threads} threads at once did {self.effective:.2f} times the work of one",
        ]


def measure(
    affinity: Sequence[int], threads: int, rounds: int, between: Callable[[], None]
) -> Cores:
    """Read the topology, and time the kernel on one core and on all in turns.

    Args:
        affinity: logical cores of this process.
        threads: that may run at once.
        rounds: of each.
        between: called before every round.
    """
    one, every = Kernel(1), Kernel(threads)
    alone, together = [], []
    try:
        for _ in range(rounds):
            between()
            alone.append(one.time())
            together.append(every.time())
    finally:
        one.close()
        every.close()
    return Cores(
        cache_bytes=cache_bytes(affinity[0] if affinity else 0),
        threads=threads,
        alone_ns=alone,
        together_ns=together,
    )


def cache_bytes(number: int, cpus: Path = CPUS) -> int | None:
    """Size of the last level of cache of a core."""
    sizes = []
    for index in sorted((cpus / f"cpu{number}/cache").glob("index*")):
        try:
            level = int((index / "level").read_text(encoding="ascii"))
            size = (index / "size").read_text(encoding="ascii").strip()
            unit = {"K": 1 << 10, "M": 1 << 20}[size[-1]]
            sizes.append((level, int(size[:-1]) * unit))
        except (OSError, ValueError, KeyError, IndexError):
            continue
    return max(sizes)[1] if sizes else None
