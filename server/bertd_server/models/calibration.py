"""How long batches take on this machine: measured at start and behind traffic, kept for the next.

::

    start:    a few shapes ──> Calibration ──> the server listens
    later:    the others, while nothing else runs (background) ──> the whole grid in its place
    at last:  whole, clean, of one piece (sampling) ──> cache file ──> the next start

A batch on a lane is timed while all other lanes run one like it, as they do when the choice of
batches matters: lanes share caches and memory bandwidth, and a lone lane's time would promise too
much.

What is incomplete, was disturbed, or contradicts itself is used for want of something better, and
never kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import platform
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import onnxruntime as ort
from pydantic import BaseModel, Field, PositiveFloat, ValidationError

from bertd_server.engine.engine import Engine
from bertd_server.engine.packing import TokenSequence
from bertd_server.engine.sessions import Interrupt
from bertd_server.models import sampling, shapes
from bertd_server.models.sampling import Sample, Samples
from bertd_server.scheduling.cost import Measurement, Shape
from bertd_server.system import cache_folder, cpu

FOLDER = "calibration"
"""Where in the cache folder the measurements are."""

MAX_TOKENS = 2_048
"""The largest batch of the grid; larger ones cost no less a token."""

BEHIND = 4.0
"""Times as long as a start may take in all, the background may."""

_VERSION = 3


@dataclass(frozen=True, slots=True)
class Calibration:
    """What batches took, on a lane while all lanes are busy, and on the wide session alone.

    Attributes:
        lane: of the first.
        wide: of the second; empty where there is no such session.
        from_cache: an earlier start measured it.
        grid: what is still to be run, behind traffic; None if nothing is.
    """

    lane: list[Measurement]
    wide: list[Measurement] = field(default_factory=list)
    from_cache: bool = False
    grid: Grid | None = None


@dataclass(frozen=True, slots=True)
class Trial:
    """A batch of the grid that is to be run, on every lane at once or on the wide session.

    Attributes:
        shape: of it.
        wide: whether it runs on the wide session.
        warm: whether it has run before; only then it counts.
        seconds: that it takes, at most; 0 where nothing is known.
    """

    shape: Shape
    wide: bool
    warm: bool
    seconds: float = 0.0


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


class Grid:
    """The shapes of a model, what they took so far, and where that is kept once it is good."""

    def __init__(self, engine: Engine, *, seconds: float, cache: Path | None = None) -> None:
        """Have run nothing yet.

        Args:
            engine: loaded.
            seconds: that it may be run for, in all.
            cache: folder of earlier measurements; None keeps nothing.
        """
        self.engine = engine
        self.left = seconds
        lengths = shapes.grid(engine.manifest.max_tokens, min(MAX_TOKENS, engine.max_batch_tokens))
        self._lengths = {Shape.of(batch): batch for batch in lengths}
        self._sessions = {False: Samples(self._lengths)}
        if engine.has_wide:
            self._sessions[True] = Samples(self._lengths)
        self._identity = _identity(engine, lengths)
        self._path = None if cache is None else cache / f"{_digest(self._identity)}.json"
        self._warm: set[tuple[bool, Shape]] = set()
        self._texts: dict[Shape, list[TokenSequence]] = {}

    def kept(self) -> Calibration | None:
        """What an earlier start measured; None if it is damaged, foreign or contradicts itself."""
        if self._path is None:
            return None
        found = _read(self._path, self._identity)
        if found is None:
            return None
        lane, wide = _measurements(found.lane), _measurements(found.wide)
        if not all(self._is_good(rows) for rows in ([lane, wide] if wide else [lane])):
            return None
        if bool(wide) != self.engine.has_wide:
            return None
        cache_folder.touch(self._path)
        return Calibration(lane, wide, from_cache=True)

    def smallest(self) -> Iterator[Trial]:
        """The least that is to be run: the smallest batch on each session, warmed up."""
        shape = next(iter(self._lengths))
        for wide in self._sessions:
            yield Trial(shape, wide, warm=False)
            yield Trial(shape, wide, warm=True)

    def following(self, within: float = float("inf")) -> Trial | None:
        """What to run next: on the session of which less is known. None if nothing is left to.

        Args:
            within: seconds that it may take.
        """
        within = min(within, self.left)
        for wide in sorted(self._sessions, key=lambda wide: self._sessions[wide].runs):
            samples = self._sessions[wide]
            shape = samples.following(within)
            if shape is not None:
                warm = (wide, shape) in self._warm
                return Trial(shape, wide, warm, samples.expected(shape))
        return None

    def run(self, trial: Trial, interrupt: Interrupt | None = None) -> Sample:
        """Run a trial on this thread; a lane calls this beside the others."""
        engine, batch = self.engine, self._texts.get(trial.shape)
        if batch is None:
            batch = shapes.texts(self._lengths[trial.shape], engine.manifest)
            self._texts[trial.shape] = batch
        threads = engine.options.threads if trial.wide else 1
        beside = engine.options.threads if trial.wide else engine.lanes
        possible = min(1.0, cpu.usable_cores() / beside)
        if engine.options.provider != "cpu":
            possible = 0.0  # a thread that waits for an accelerator needs no core
        return sampling.timed(
            lambda: engine.rehearse(batch, wide=trial.wide, interrupt=interrupt),
            threads=threads,
            possible=possible,
        )

    def add(self, trial: Trial, samples: Sequence[Sample], spent: float) -> None:
        """Take in a trial: a sample of each lane, none if it was ended; it took `spent` seconds."""
        self.left -= spent
        if not samples:
            return
        if trial.warm:
            self._sessions[trial.wide].add(trial.shape, sampling.together(samples))
        self._warm.add((trial.wide, trial.shape))

    @property
    def covered(self) -> bool:
        """Whether every shape has run on each session."""
        return not any(each.missing for each in self._sessions.values())

    def flaw(self) -> str | None:
        """Why it must not be kept; None if it may be."""
        return next(filter(None, (each.flaw() for each in self._sessions.values())), None)

    def measured(self, *, unfinished: bool = False) -> Calibration:
        """What is known so far; at least one shape was run on each session."""
        wide = self._sessions[True].measurements() if True in self._sessions else []
        lane = self._sessions[False].measurements()
        return Calibration(lane, wide, grid=self if unfinished else None)

    def keep(self) -> None:
        """Write it to the cache, if it may be kept."""
        if self._path is not None and self.flaw() is None:
            with contextlib.suppress(OSError):  # nowhere to keep it: measured again next time
                _write(self._path, self._identity, self.measured())

    def retry(self) -> None:
        """Forget what contradicts itself, so that it is run again while there is time."""
        for each in self._sessions.values():
            each.drop()

    def _is_good(self, rows: Sequence[Measurement]) -> bool:
        """Whether a kept grid is whole and of one piece."""
        whole = Samples(self._lengths)
        for row in rows:
            whole.add(row.shape, Sample(row.seconds, disturbed=False))
        return not whole.missing and sampling.contradiction(rows) is None


def calibrate(
    engine: Engine, *, seconds: float, first: float | None = None, cache: Path | None = None
) -> Calibration:
    """Measure a grid of batches, or read what an earlier start measured.

    Args:
        engine: loaded; nothing else runs on it meanwhile.
        seconds: to measure for; the smallest batch is measured in any case, and one batch may
            go over the limit.
        first: of these, at once; the rest is left to :mod:`.background`, which has `BEHIND` times
            as long. None for all.
        cache: folder of earlier measurements; a file that is damaged, made for something else or
            contradicts itself is measured again and replaced. None keeps nothing.

    Returns:
        what is known; its `grid` says what is left to run, if something is.
    """
    grid = Grid(engine, seconds=seconds, cache=cache)
    found = grid.kept()
    if found is not None:
        return found
    now = seconds if first is None else min(first, seconds)
    _run(grid, now)
    if first is None or seconds <= first or grid.flaw() is None:
        grid.keep()
        return grid.measured()
    grid.left = BEHIND * (seconds - now)
    return grid.measured(unfinished=True)


def _run(grid: Grid, seconds: float) -> None:
    """Run trials for so many seconds; the smallest batch on each session in any case."""
    end = time.perf_counter() + seconds
    grid.left = float("inf")  # the clock counts here
    with ThreadPoolExecutor(grid.engine.lanes) as threads:
        for trial in grid.smallest():
            _run_one(grid, trial, threads)
        while (trial_ := grid.following(end - time.perf_counter())) is not None:
            _run_one(grid, trial_, threads)
            if grid.following() is None:
                grid.retry()


def _run_one(grid: Grid, trial: Trial, threads: ThreadPoolExecutor) -> None:
    """A trial on the wide session, or on each lane while all run it."""
    begin = time.perf_counter()
    lanes = 1 if trial.wide else grid.engine.lanes
    barrier = threading.Barrier(lanes)

    def run() -> Sample:
        barrier.wait()
        return grid.run(trial)

    samples = [each.result() for each in [threads.submit(run) for _ in range(lanes)]]
    grid.add(trial, samples, time.perf_counter() - begin)


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
        f"kernels {engine.kernels or 'stock'}",
        f"{engine.lanes} lanes, {options.threads} threads, {options.provider}, {options.profile}",
        f"outputs {' '.join(engine.outputs)}",
        f"batches {' '.join(f'{len(lengths)}x{lengths[0]}' for lengths in grid)}",
        *(f"{name} {record.sha256}" for name, record in sorted(engine.manifest.files.items())),
    ]


def _digest(identity: list[str]) -> str:
    return hashlib.sha256("\n".join(identity).encode()).hexdigest()[:32]


def _read(path: Path, identity: list[str]) -> _File | None:
    """What is kept for this very identity, if it is valid."""
    try:
        found = _File.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
    return found if found.made_for == identity else None


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

    content = _File(
        made_for=identity,
        lane=rows(measured.lane),
        wide=rows(measured.wide),
    )
    cache_folder.write(path, content.model_dump_json())
