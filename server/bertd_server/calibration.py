"""How long batches take on this machine: measured at start, and kept for the next one.

::

    grid of shapes ──all lanes at once──> lane measurements ─┐
                   └──wide, alone───────> wide measurements ─┴──> Calibration <──> cache file

A batch on a lane is timed while all other lanes run one like it, as they do when the choice of
batches matters: lanes share caches and memory bandwidth, and a lone lane's time would promise too
much.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import onnxruntime as ort
from pydantic import BaseModel, Field, PositiveFloat, ValidationError

from bertd_server import shapes
from bertd_server.cost import Measurement, Shape
from bertd_server.engine import Engine
from bertd_server.packing import TokenSequence
from bertd_server.sessions import cpu_identity

MAX_TOKENS = 2_048
"""The largest batch of the grid; larger ones cost no less a token."""

_PASSES = 7  # over the grid; the median of each shape counts
_VERSION = 1

Batch = Sequence[TokenSequence]
Timed = Callable[[Batch], list[float]]


@dataclass(frozen=True, slots=True)
class Calibration:
    """What batches took, on a lane while all lanes are busy, and on the wide session alone."""

    lane: list[Measurement]
    wide: list[Measurement] = field(default_factory=list)
    from_cache: bool = False


class _Row(BaseModel, extra="forbid", frozen=True):
    sequences: int = Field(gt=0)
    tokens: int = Field(gt=0)
    pairs: int = Field(gt=0)
    seconds: PositiveFloat = Field(allow_inf_nan=False)


class _File(BaseModel, extra="forbid", frozen=True):
    """What a cache file holds; `made_for` tells it from those of other machines and bundles."""

    made_for: list[str]
    lane: list[_Row] = Field(min_length=1)
    wide: list[_Row]


def calibrate(engine: Engine, *, seconds: float, cache: Path | None = None) -> Calibration:
    """Measure a grid of batches, or read what an earlier start measured.

    Args:
        engine: loaded; nothing else runs on it meanwhile.
        seconds: to measure for; the smallest batch is measured in any case, and one batch may
            go over the limit.
        cache: folder of earlier measurements; a file that is damaged or made for something else
            is measured again and replaced. None keeps nothing.
    """
    identity = _identity(engine)
    path = None if cache is None else cache / f"{_digest(identity)}.json"
    if path is not None and (known := _read(path, identity, engine)) is not None:
        return known
    limit = time.perf_counter() + seconds * (0.5 if engine.has_wide else 1.0)
    measured = Calibration(
        lane=_measure(engine, lambda batch: _on_all_lanes(engine, batch), limit),
        wide=_measure(engine, lambda batch: [_timed(engine, batch, wide=True)], limit + seconds / 2)
        if engine.has_wide
        else [],
    )
    if path is not None:
        with contextlib.suppress(OSError):  # nowhere to keep it: measured again next time
            _write(path, identity, measured)
    return measured


def _timed(engine: Engine, batch: Batch, *, wide: bool = False) -> float:
    begin = time.perf_counter()
    engine.answer(batch, wide=wide)
    return time.perf_counter() - begin


def _on_all_lanes(engine: Engine, batch: Batch) -> list[float]:
    if engine.lanes == 1:
        return [_timed(engine, batch)]
    start = threading.Barrier(engine.lanes)

    def lane() -> float:
        start.wait()
        return _timed(engine, batch)

    with ThreadPoolExecutor(engine.lanes) as threads:
        return [each.result() for each in [threads.submit(lane) for _ in range(engine.lanes)]]


def _measure(engine: Engine, timed: Timed, limit: float) -> list[Measurement]:
    """Passes over the grid until the clock reads `limit`; the first time of a shape warms it up."""
    manifest = engine.manifest
    grid = shapes.grid(manifest.max_tokens, min(MAX_TOKENS, engine.max_batch_tokens))
    batches = [(Shape.of(lengths), shapes.texts(lengths, manifest)) for lengths in grid]
    samples: dict[Shape, list[float]] = {}
    for turn in range(_PASSES):
        for shape, batch in batches:
            known = samples.get(shape)
            if samples and time.perf_counter() + _guess(shape, known, samples) > limit:
                if turn == 0:
                    break  # larger ones take longer
                continue
            if known is None:
                timed(batch)
            samples.setdefault(shape, []).extend(timed(batch))
    return [Measurement(shape, statistics.median(times)) for shape, times in samples.items()]


def _guess(shape: Shape, known: list[float] | None, samples: dict[Shape, list[float]]) -> float:
    """Seconds that the next measurement of a shape takes."""
    if known is not None:
        return known[-1]
    last, times = next(reversed(samples.items()))
    return 2 * times[-1] * shape.tokens / last.tokens  # once to warm up


def _identity(engine: Engine) -> list[str]:
    """What measurements hold for: host, CPU, bundle, ONNX Runtime and options."""
    options = engine.options
    return [
        f"calibration {_VERSION}",
        platform.node(),
        cpu_identity(),
        f"onnxruntime {ort.__version__}",
        f"{engine.lanes} lanes, {options.threads} threads, {options.provider}, {options.profile}",
        f"outputs {' '.join(engine.outputs)}",
        f"at most {engine.max_batch_tokens} tokens",
        *(f"{name} {record.sha256}" for name, record in sorted(engine.manifest.files.items())),
    ]


def _digest(identity: list[str]) -> str:
    return hashlib.sha256("\n".join(identity).encode()).hexdigest()[:32]


def _read(path: Path, identity: list[str], engine: Engine) -> Calibration | None:
    try:
        found = _File.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
    if found.made_for != identity or bool(found.wide) != engine.has_wide:
        return None
    return Calibration(_measurements(found.lane), _measurements(found.wide), from_cache=True)


def _measurements(rows: list[_Row]) -> list[Measurement]:
    return [Measurement(Shape(r.sequences, r.tokens, r.pairs), r.seconds) for r in rows]


def _write(path: Path, identity: list[str], measured: Calibration) -> None:
    """Write whole or not at all."""

    def rows(measurements: list[Measurement]) -> list[_Row]:
        return [
            _Row(
                sequences=m.shape.sequences,
                tokens=m.shape.tokens,
                pairs=m.shape.pairs,
                seconds=m.seconds,
            )
            for m in measurements
        ]

    content = _File(made_for=identity, lane=rows(measured.lane), wide=rows(measured.wide))
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, scratch = tempfile.mkstemp(prefix=path.name, dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(content.model_dump_json())
        Path(scratch).replace(path)
    except OSError:
        Path(scratch).unlink(missing_ok=True)
        raise
