"""`bertd bench engine`: one bundle without transport; parts in an order that keeps them apart.

::

    memory ──> bits ──> times      what comes later does not count in the figures of memory
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Literal, get_args

from bertd import bundle
from bertd_server.engine.engine import EngineOptions
from bertd_server.system import cpu

from bertd_bench.engine import identity, memory, speed
from bertd_bench.engine.results import EngineReport
from bertd_bench.harness import machine

EnginePart = Literal["memory", "bits", "times"]
PARTS: tuple[EnginePart, ...] = get_args(EnginePart)


def measure(  # noqa: PLR0913 - the choices of one run
    folder: Path,
    parts: Collection[EnginePart],
    *,
    rounds: int,
    batches: int,
    memory_limit: int,
    progress: Callable[[str], None],
) -> EngineReport:
    """Measure parts of one bundle.

    Args:
        folder: the bundle.
        parts: that are wanted.
        rounds: turns of each batch that is timed.
        batches: of the random shapes over which memory is watched; a fifth of them for bits.
        memory_limit: bytes, as for `bertd serve`; 0 for none.
        progress: told what is measured.
    """
    threads = cpu.usable_threads()
    here = machine.describe(threads)
    manifest = bundle.read_manifest(folder)
    found: dict[str, Any] = {}
    if "memory" in parts:
        found["memory"] = memory.growth(folder, batches, memory_limit, progress)
    if "bits" in parts:
        found["identity"] = identity.compare(folder, max(1, batches // 5), progress)
    if "times" in parts:
        found |= speed.measure(folder, rounds, progress)
    return EngineReport(
        model=manifest.name,
        precision=manifest.precision,
        threads=threads,
        lanes=EngineOptions(threads).lanes or threads,
        machine=here,
        **found,
    )
