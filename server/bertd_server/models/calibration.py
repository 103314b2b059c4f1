"""How long batches take on this machine: measured at start, and kept for the next one.

::

    grid of shapes ──all lanes at once──> lane measurements ─┐
                   └──wide, alone───────> wide measurements ─┴──> Calibration <──> cache file

A batch on a lane is timed while all other lanes run one like it, as they do when the choice of
batches matters: lanes share caches and memory bandwidth, and a lone lane's time would promise too
much.

What was measured serves a later start if it is of the whole grid, or was given as much time as
that start would give it. A large model on a small machine never gets through the grid in the time
it has; to measure it again would say no more.
"""

from __future__ import annotations

import contextlib
import hashlib
import platform
import statistics
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import onnxruntime as ort
from pydantic import BaseModel, Field, PositiveFloat, ValidationError

from bertd_server.engine.engine import Engine
from bertd_server.engine.packing import TokenSequence
from bertd_server.models import shapes
from bertd_server.scheduling.cost import Measurement, Shape
from bertd_server.system import cache_folder, cpu

FOLDER = "calibration"
"""Where in the cache folder the measurements are."""

MAX_TOKENS = 2_048
"""The largest batch of the grid; larger ones cost no less a token."""

_PASSES = 7  # over the grid; the median of each shape counts
_VERSION = 2


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
    seconds: float = Field(ge=0)  # that there were to measure in
    lane: list[_Row] = Field(min_length=1)
    wide: list[_Row]


def calibrate(engine: Engine, *, seconds: float, cache: Path | None = None) -> Calibration:
    """Measure a grid of batches, or read what an earlier start measured.

    Args:
        engine: loaded; nothing else runs on it meanwhile.
        seconds: to measure for; the smallest batch is measured in any case, and one batch may
            go over the limit.
        cache: folder of earlier measurements; a file that is damaged, made for something else or
            cut short by less time than this is measured again and replaced. None keeps nothing.
    """
    grid = shapes.grid(engine.manifest.max_tokens, min(MAX_TOKENS, engine.max_batch_tokens))
    identity = _identity(engine, grid)
    path = None if cache is None else cache / f"{_digest(identity)}.json"
    if path is not None:
        known = _read(path, identity, engine)
        if known and (known.seconds >= seconds or _is_whole(known, grid)):
            cache_folder.touch(path)
            lane, wide = _measurements(known.lane), _measurements(known.wide)
            return Calibration(lane, wide, from_cache=True)
    limit = time.perf_counter() + seconds * (0.5 if engine.has_wide else 1.0)
    measured = Calibration(
        lane=_measure(engine, grid, limit),
        wide=_measure(engine, grid, limit + seconds / 2, wide=True) if engine.has_wide else [],
    )
    if path is not None:
        with contextlib.suppress(OSError):  # nowhere to keep it: measured again next time
            _write(path, identity, seconds, measured)
    return measured


def _timed(engine: Engine, batch: Sequence[TokenSequence], *, wide: bool) -> list[float]:
    """Seconds of a batch on the wide session, or on each lane while all run it."""
    lanes = 1 if wide else engine.lanes
    together = threading.Barrier(lanes)

    def run() -> float:
        together.wait()
        begin = time.perf_counter()
        engine.answer(batch, wide=wide)
        return time.perf_counter() - begin

    if lanes == 1:
        return [run()]
    with ThreadPoolExecutor(lanes) as threads:
        return [each.result() for each in [threads.submit(run) for _ in range(lanes)]]


def _measure(
    engine: Engine, grid: Sequence[tuple[int, ...]], limit: float, *, wide: bool = False
) -> list[Measurement]:
    """Passes over the grid until the clock reads `limit`; the first time of a shape warms it up.

    What would take too long is passed over: of the longest texts, those are measured for which
    there is time.
    """
    batches = [(Shape.of(lengths), shapes.texts(lengths, engine.manifest)) for lengths in grid]
    samples: dict[Shape, list[float]] = {}
    for _ in range(_PASSES):
        for shape, batch in batches:
            if samples and time.perf_counter() + _guess(shape, samples) > limit:
                continue
            if shape not in samples:
                _timed(engine, batch, wide=wide)
            samples.setdefault(shape, []).extend(_timed(engine, batch, wide=wide))
    return [Measurement(shape, statistics.median(times)) for shape, times in samples.items()]


def _guess(shape: Shape, samples: dict[Shape, list[float]]) -> float:
    """Seconds that the next measurement of a shape takes, at most.

    So many times the tokens of another batch, or its pairs where those grow faster, take at most
    so many times as long.
    """
    if shape in samples:
        return samples[shape][-1]
    return 2 * min(  # once to warm up
        times[-1] * max(shape.tokens / other.tokens, shape.pairs / other.pairs)
        for other, times in samples.items()
    )


def _is_whole(found: _File, grid: Sequence[tuple[int, ...]]) -> bool:
    """Whether no shape of the grid is missing."""
    wanted = {Shape.of(lengths) for lengths in grid}
    sessions = [rows for rows in (found.lane, found.wide) if rows]
    return all(wanted <= {m.shape for m in _measurements(rows)} for rows in sessions)


def _identity(engine: Engine, grid: Sequence[tuple[int, ...]]) -> list[str]:
    """What measurements hold for: all that decides the speed of a batch, and what was measured.

    Not the host's name, which is another one for each container. What hosts of one kind differ in
    (clock, neighbours) differs from hour to hour as well, and the pace of live batches corrects
    it. Not the tokens that the memory limit allows either: they come from a measurement of
    memory, and are others at each start. The grid that follows from them mostly is the same.
    """
    options = engine.options
    # Nothing here knows the model of an accelerator; the host stands for it.
    device = cpu.identity() if options.provider == "cpu" else f"{cpu.identity()} {platform.node()}"
    return [
        f"calibration {_VERSION}",
        device,
        f"{cpu.usable_threads()} usable threads, quota {cpu.quota_cores():g}",
        f"onnxruntime {ort.__version__}",
        f"{engine.lanes} lanes, {options.threads} threads, {options.provider}, {options.profile}",
        f"outputs {' '.join(engine.outputs)}",
        f"batches {' '.join(f'{len(lengths)}x{lengths[0]}' for lengths in grid)}",
        *(f"{name} {record.sha256}" for name, record in sorted(engine.manifest.files.items())),
    ]


def _digest(identity: list[str]) -> str:
    return hashlib.sha256("\n".join(identity).encode()).hexdigest()[:32]


def _read(path: Path, identity: list[str], engine: Engine) -> _File | None:
    """What is kept for this very identity, if it is valid."""
    try:
        found = _File.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
    if found.made_for != identity or bool(found.wide) != engine.has_wide:
        return None
    return found


def _measurements(rows: list[_Row]) -> list[Measurement]:
    return [Measurement(Shape(r.sequences, r.tokens, r.pairs), r.seconds) for r in rows]


def _write(path: Path, identity: list[str], seconds: float, measured: Calibration) -> None:
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

    content = _File(
        made_for=identity,
        seconds=seconds,
        lane=rows(measured.lane),
        wide=rows(measured.wide),
    )
    cache_folder.write(path, content.model_dump_json())
