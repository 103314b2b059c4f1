"""Times of the engine: what padding would cost, what lanes bring, which operators take most.

::

    batches ──in turns──> lane, all lanes, wide session ──> ratios
            └─> ONNX Runtime's profile of one thread ──> shares of operators
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from bertd import bundle
from bertd_server.engine.engine import Engine, EngineOptions
from bertd_server.engine.packing import TokenSequence
from bertd_server.system import cpu

from bertd_bench.engine import batches, operators
from bertd_bench.engine.results import (
    EQUAL,
    LONG_AND_SHORT,
    MIXED,
    LaneTimes,
    PaddingTax,
)
from bertd_bench.harness import timing
from bertd_bench.harness.texts import MIXED_LENGTHS

LONG = "512"
SHORT = "30 x 8"
_LONGER = {"1 x 256": (256,), "4 x 128": (128,) * 4, "1 x 512": (512,), "16 x 128": (128,) * 16}
_LANES = {"1 x 8": (8,), "1 x 32": (32,), "1 x 128": (128,), MIXED: MIXED_LENGTHS, LONG: (512,)}


def measure(folder: Path, rounds: int, progress: Callable[[str], None]) -> dict[str, Any]:
    """Time one bundle; gives the parts of an `EngineReport` that hold times."""
    threads = cpu.usable_threads()
    manifest = bundle.read_manifest(folder)
    engine = Engine(folder, manifest, EngineOptions(threads))
    clock = _Clock(engine, timing.Schedule(rounds, repeats=5, pause_seconds=0.005))
    progress("padding")
    padding = [_padding(clock, wide=wide) for wide in {False, engine.has_wide}]
    rows = []
    for name, lengths in _LANES.items():
        progress(f"lanes, {name}")
        rows.append(_lanes(clock, name, lengths))
    progress("operators")
    shares = {
        name: operators.shares(folder, engine, clock.texts(lengths))
        for name, lengths in {"1 x 8": (8,), MIXED: MIXED_LENGTHS, **_LONGER}.items()
    }
    return {
        "padding": padding,
        "lane_rows": rows,
        "operators": shares,
    }


class _Clock:
    """Times batches of an engine, in turns."""

    def __init__(self, engine: Engine, schedule: timing.Schedule) -> None:
        self.engine = engine
        self._schedule = schedule
        self._rng = np.random.default_rng(0)

    def texts(self, lengths: Sequence[int]) -> list[TokenSequence]:
        return batches.random_texts(self._rng, lengths, self.engine.manifest)

    def call(self, lengths: Sequence[int], *, wide: bool) -> Callable[[], object]:
        return partial(self.engine.answer, self.texts(lengths), wide=wide)

    def medians(self, calls: dict[str, Callable[[], object]]) -> dict[str, float]:
        """Median milliseconds by name."""
        samples = timing.measure(calls, self._schedule, random.Random(0))  # noqa: S311 - turns
        return {name: timing.quartiles(values).median for name, values in samples.items()}


def _padding(clock: _Clock, *, wide: bool) -> PaddingTax:
    total, count = sum(MIXED_LENGTHS), len(MIXED_LENGTHS)
    equal = [total // count + (index < total % count) for index in range(count)]
    cases = {
        MIXED: MIXED_LENGTHS,
        EQUAL: equal,
        LONG_AND_SHORT: [512, *[8] * 30],
        LONG: [512],
        SHORT: [8] * 30,
    }
    took = clock.medians({name: clock.call(case, wide=wide) for name, case in cases.items()})
    return PaddingTax(
        session="wide" if wide else "lane",
        milliseconds=took,
        mixed_to_equal=took[EQUAL] / took[MIXED],
        together_to_apart=took[LONG_AND_SHORT] / (took[LONG] + took[SHORT]),
    )


def _lanes(clock: _Clock, name: str, lengths: Sequence[int]) -> LaneTimes:
    engine = clock.engine
    alone = clock.call(lengths, wide=False)
    with ThreadPoolExecutor(engine.lanes) as pool:

        def all_lanes() -> None:
            """Each lane runs a few, so that their ends hardly matter."""
            for run in [pool.submit(_times, 4, alone) for _ in range(engine.lanes)]:
                run.result()

        took = clock.medians(
            {"alone": alone, "busy": all_lanes, "wide": clock.call(lengths, wide=True)}
        )
    busy = took["busy"] / 4
    return LaneTimes(
        batch=name,
        lane_alone=took["alone"],
        lane_busy=busy,
        wide=took["wide"],
        lanes_to_wide=took["wide"] / (busy / engine.lanes),
    )


def _times(count: int, call: Callable[[], object]) -> None:
    for _ in range(count):
        call()
