"""Attention over a packed batch, alone: which graph is fastest at which mix of lengths.

The contestants are in `attention_graphs` and `attention_padded`. Each must give the baseline's
rows before it is timed. Besides them, two threads that take half of the sequences each, in runs
of one thread, stand against one run on two threads.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import onnxruntime as ort
from bertd_server.engine import sessions
from bertd_server.system import cpu
from numpy.typing import NDArray
from pydantic import BaseModel

from bertd_bench.engine.attention_graphs import BASELINE, OURS, PACKED, Feeds
from bertd_bench.engine.attention_padded import PADDED
from bertd_bench.harness import machine, timing
from bertd_bench.harness.texts import MIXED_LENGTHS

HIDDEN_SIZES = {384: 12, 768: 12}  # hidden size: heads
MIXES: dict[str, tuple[int, ...]] = {
    "1 x 8": (8,),
    "1 x 128": (128,),
    "1 x 512": (512,),
    "32 x 8": (8,) * 32,
    "16 x 32": (32,) * 16,
    "4 x 128": (128,) * 4,
    "4 x 384": (384,) * 4,
    "16 mixed": tuple(sorted(MIXED_LENGTHS)),
    "96 of 6 to 32": tuple(sorted(6 + (7 * n) % 27 for n in range(96))),
    "30 x 8 + 512": (8,) * 30 + (512,),
}
CONTESTANTS = {**PACKED, **PADDED}
HALVES = "two loops, halves on threads"
_TOLERANCE = 1e-4


class Row(BaseModel, frozen=True):
    """One mix of lengths: milliseconds of the baseline, and its time over each one's time."""

    hidden: int
    threads: int
    mix: str
    baseline_ms: float
    speed: dict[str, float]
    same_bits: list[str]  # contestants whose rows equal the baseline's bit for bit


class Matrix(BaseModel, frozen=True):
    """One run of the benchmark."""

    machine: machine.Machine
    rows: list[Row]


def measure(rounds: int, progress: Callable[[str], None]) -> Matrix:
    """Time every contestant on every mix, at both sizes, on one thread and on all.

    Raises:
        AssertionError: a contestant computes something else.
    """
    usable = cpu.usable_threads()
    here = machine.describe(usable)
    rows = []
    for hidden, heads in HIDDEN_SIZES.items():
        for threads in sorted({1, usable}):
            loaded = {
                name: _session(each.build(hidden, heads), threads)
                for name, each in CONTESTANTS.items()
            }
            narrow = _session(CONTESTANTS[OURS].build(hidden, heads), 1)
            for mix, lengths in MIXES.items():
                progress(f"hidden {hidden}, {threads} threads, {mix}")
                halves = narrow if threads == 2 and len(lengths) > 1 else None
                rows.append(_row(loaded, halves, (hidden, threads, mix), lengths, rounds))
    return Matrix(machine=here, rows=rows)


def _session(model: Any, threads: int) -> Any:
    options = sessions.configured(threads, sessions.SessionOptions())
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _row(
    loaded: dict[str, Any],
    narrow: Any,
    case: tuple[int, int, str],
    lengths: Sequence[int],
    rounds: int,
) -> Row:
    hidden, threads, mix = case
    rng = np.random.default_rng(0)
    qkv = rng.standard_normal((sum(lengths), 3 * hidden)).astype(np.float32)
    feeds = {name: {"qkv": qkv, **CONTESTANTS[name].feeds(lengths, hidden)} for name in loaded}
    expected = loaded[BASELINE].run(None, feeds[BASELINE])[0]
    calls: dict[str, Callable[[], object]] = {}
    same = []
    for name, session in loaded.items():
        rows = session.run(None, feeds[name])[0]
        difference = float(np.abs(rows - expected).max())
        if not difference <= _TOLERANCE:
            raise AssertionError(f"{name} differs from {BASELINE} by {difference:.1e} on {mix}")
        if np.array_equal(rows, expected):
            same.append(name)
        calls[name] = partial(session.run, None, feeds[name])
    with ThreadPoolExecutor(2) as pool:
        if narrow is not None:
            parts = [_part(qkv, lengths, hidden, start) for start in range(2)]
            calls[HALVES] = partial(_side_by_side, pool, narrow, parts)
        samples = timing.measure(
            calls,
            timing.Schedule(rounds, repeats=5, pause_seconds=0.002),
            random.Random(0),  # noqa: S311 - the order of turns is no secret
        )
    medians = {name: timing.summarize(values).median for name, values in samples.items()}
    return Row(
        hidden=hidden,
        threads=threads,
        mix=mix,
        baseline_ms=medians[BASELINE],
        speed={name: medians[BASELINE] / median for name, median in medians.items()},
        same_bits=same,
    )


def _part(qkv: NDArray[np.float32], lengths: Sequence[int], hidden: int, start: int) -> Feeds:
    """Every second sequence, in order: two parts of about equal work."""
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    chosen = range(start, len(lengths), 2)
    rows = np.concatenate([qkv[bounds[i] : bounds[i + 1]] for i in chosen])
    return {"qkv": rows, **CONTESTANTS[OURS].feeds([lengths[i] for i in chosen], hidden)}


def _side_by_side(pool: ThreadPoolExecutor, session: Any, parts: Sequence[Feeds]) -> None:
    for run in [pool.submit(session.run, None, part) for part in parts]:
        run.result()
