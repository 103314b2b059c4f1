"""How fast bundles are with native kernels and with stock operators, in turns.

::

    .venv/bin/python tests/tools/native_speed.py [--seconds 3] BUNDLE…

A row for each size of batch, on a lane and on all threads: the median wall time of both, and how
many times less native kernels take: by the medians of wall time, and by the least CPU time, which
is steadier where other programs run.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bertd.bundle import Manifest, read_manifest
from bertd.bundle.kernels import KernelChoice
from bertd_server.engine.engine import Engine, EngineOptions
from bertd_server.engine.packing import TokenSequence
from bertd_server.system import cpu

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from helpers.engines import texts  # noqa: E402 - the folder of tests is named above

SIZES = {
    "8 tokens": [8],
    "32 tokens": [32],
    "128 tokens": [128],
    "16 mixed": [5, 7, 9, 12, 14, 17, 20, 24, 30, 37, 45, 60, 80, 110, 150, 220],
}
CHOICES: tuple[KernelChoice, ...] = ("stock", "native")
FEWEST = 7  # turns

Times = dict[KernelChoice, list[float]]


def turns(
    engines: dict[KernelChoice, Engine],
    sequences: Sequence[TokenSequence],
    seconds: float,
    *,
    wide: bool,
) -> tuple[Times, Times]:
    """Wall and CPU time of each run, both engines as often, who begins changing."""
    wall: Times = {choice: [] for choice in CHOICES}
    busy: Times = {choice: [] for choice in CHOICES}
    end = time.perf_counter() + seconds
    for turn in itertools.count():
        if turn >= FEWEST and time.perf_counter() > end:
            return wall, busy
        for choice in CHOICES if turn % 2 else reversed(CHOICES):
            begin, cpu_begin = time.perf_counter(), time.process_time()
            engines[choice].rehearse(sequences, wide=wide)
            wall[choice].append(time.perf_counter() - begin)
            busy[choice].append(time.process_time() - cpu_begin)
    raise AssertionError


def measure(folder: Path, manifest: Manifest, seconds: float) -> None:
    threads = max(2, cpu.usable_threads())
    engines = {
        choice: Engine(folder, manifest, EngineOptions(threads=threads, kernels=choice))
        for choice in CHOICES
    }
    print(f"{manifest.name}, {manifest.precision}: {engines['native'].kernels}")
    print("| | threads | stock, ms | native, ms | gain | of CPU |\n|---|---:|---:|---:|---:|---:|")
    for wide, (name, lengths) in itertools.product((False, True), SIZES.items()):
        sequences = texts(lengths, manifest.vocab_size)
        wall, busy = turns(engines, sequences, seconds, wide=wide)
        stock, native = (statistics.median(wall[choice]) for choice in CHOICES)
        least = min(busy["stock"]) / min(busy["native"])
        print(
            f"| {name} | {threads if wide else 1} | {stock * 1e3:.2f} | {native * 1e3:.2f} "
            f"| {stock / native:.2f} | {least:.2f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--seconds", type=float, default=3.0, help="for a row")
    chosen = parser.parse_args()
    for folder in chosen.bundles:
        measure(folder, read_manifest(folder), chosen.seconds)


if __name__ == "__main__":
    main()
