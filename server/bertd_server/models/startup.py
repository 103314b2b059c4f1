"""A bundle made ready to answer: the only place where one is loaded. Any thread; it takes seconds.

::

    folder ──load──> manifest, files as it says, a graph of ours
                       ├──> Reader: tokenizer.json ──> bertd.bundle.fit: parts that fit
                       └──> start: Engine ─> memory.limit_batches ─> warm_up ─> calibrate a little
                              └──> proof.probe ──> the folder is still the same ──> Loaded
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from bertd import bundle
from bertd.bundle import fit, graphs

from bertd_server.engine import prepacking
from bertd_server.engine.engine import Engine, EngineOptions
from bertd_server.models import calibration, memory, proof, shapes
from bertd_server.models.calibration import Calibration
from bertd_server.scheduling.lanes import BatchEngine
from bertd_server.scheduling.scheduler import SchedulerOptions
from bertd_server.system import cache_folder
from bertd_server.system.logs import get_logger
from bertd_server.system.setting_types import format_bytes
from bertd_server.tokenization.reader import Reader
from bertd_server.tokenization.text_queue import TextOptions

log = get_logger("bertd")

_CPU = "CPUExecutionProvider"


@dataclass(frozen=True, slots=True)
class StartOptions:
    """What a start does besides loading.

    Attributes:
        memory_limit: bytes of the process; 0 for none.
        cache_bytes: of these, for results that are kept.
        batch_tokens: that a batch has at most, whatever the memory.
        warmup_seconds: to run batches of all shapes for.
        calibration_seconds: to time them for, where no earlier start did.
        first_calibration_seconds: of these, before it answers; the rest while lanes rest.
        cache: folder of what earlier starts left; None keeps nothing.
    """

    memory_limit: int = 0
    cache_bytes: int = 0
    batch_tokens: int = 2_048
    warmup_seconds: float = 0.5
    calibration_seconds: float = 5.0
    first_calibration_seconds: float = 0.4
    cache: Path | None = None


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """How a model is run.

    Attributes:
        engine: sessions and what computes; its lanes are those of the scheduler too.
        scheduling: limits of batches and of what waits.
        texts: limits of texts before they are sequences.
        starting: what is done before the first request.
    """

    engine: EngineOptions = field(default_factory=EngineOptions)
    scheduling: SchedulerOptions = field(default_factory=SchedulerOptions)
    texts: TextOptions = field(default_factory=TextOptions)
    starting: StartOptions = field(default_factory=StartOptions)


class ReadyEngine(BatchEngine, Protocol):
    """What a model needs of a :class:`bertd_server.engine.engine.Engine`."""

    @property
    def lanes(self) -> int:
        """Narrow runs that may go on at once."""

    @property
    def max_batch_tokens(self) -> int:
        """The largest batch that the memory limit allows."""

    @property
    def provider(self) -> str:
        """What runs the graph."""


Start = Callable[
    [Path, bundle.Manifest, EngineOptions, StartOptions], tuple[ReadyEngine, Calibration]
]
"""Makes an engine ready and measures it: :func:`start`, or a benchmark's own with another one."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A bundle in memory, verified and measured, that answers nothing yet.

    `request_bytes` is what the memory limit leaves to requests in flight; 0 without one.
    """

    manifest: bundle.Manifest
    reader: Reader
    engine: ReadyEngine
    measured: Calibration
    request_bytes: int = 0


def start(
    folder: Path, manifest: bundle.Manifest, options: EngineOptions, starting: StartOptions
) -> tuple[Engine, Calibration]:
    """Load a verified bundle's graph, keep it below its memory limit, warm it up and measure it.

    Args:
        folder: the bundle.
        manifest: its manifest.
        options: of the engine.
        starting: of the start.

    Raises:
        bundle.BundleError: the graph fails as it runs.
        CannotServeError: the provider or the memory is not there.
    """
    begin = time.perf_counter()
    engine = Engine(folder, manifest, options)
    loaded = time.perf_counter()
    with proof.running(folder):
        memory.limit_batches(
            engine, starting.memory_limit, starting.cache_bytes, starting.batch_tokens
        )
        warm_up(engine, starting.warmup_seconds)
        warm = time.perf_counter()
        measured = calibration.calibrate(
            engine,
            seconds=starting.calibration_seconds,
            first=starting.first_calibration_seconds,
            cache=None if starting.cache is None else starting.cache / calibration.FOLDER,
        )
    if starting.cache is not None:  # by now all that this start uses is held or touched
        for kind in (prepacking.FOLDER, calibration.FOLDER):
            if removed := cache_folder.sweep(starting.cache / kind):
                log.info("unused cache removed", folder=str(starting.cache / kind), names=removed)
    log.info(
        "engine ready",
        model=manifest.name,
        lanes=engine.lanes,
        threads=options.threads,
        kernels=str(engine.kernels or "stock"),
        load_seconds=round(loaded - begin, 3),
        warmup_seconds=round(warm - loaded, 3),
        calibration_seconds=round(time.perf_counter() - warm, 3),
        calibration_from_cache=measured.from_cache,
        memory=format_bytes(memory.resident_bytes()),
    )
    return engine, measured


def load(folder: Path, options: ModelOptions, start: Start = start) -> Loaded:
    """Verify a bundle, load it, and measure how fast it is here.

    Args:
        folder: the bundle.
        options: how to run it.
        start: makes the engine ready, and measures it.

    Raises:
        bundle.BundleError: the folder is not a bundle, or not an intact one, or its parts do not
            fit each other.
        CannotServeError: the provider or the memory is not there.
    """
    manifest = bundle.read_manifest(folder)
    bundle.verify_files(folder, manifest)
    graphs.check_graph(folder, manifest)
    reader = Reader.of(folder, manifest, options.texts.max_text_characters)
    fit.check_fit(folder, manifest, reader.largest_id)
    engine, measured = start(folder, manifest, options.engine, options.starting)
    request_bytes = 0
    if isinstance(engine, Engine):  # a benchmark's own has the outputs that it measures alone
        proof.probe(engine, reader, folder, manifest)
        request_bytes = engine.request_bytes
    prepacking.check_same(folder, manifest)
    if manifest.precision == "fp16" and engine.provider == _CPU:
        log.warning(
            "fp16 on a CPU",
            model=manifest.name,
            remedy="a CPU converts fp16 to fp32 and gains nothing: serve this bundle on an "
            "accelerator, or export fp32 or int8 for this machine",
        )
    return Loaded(manifest, reader, engine, measured, request_bytes)


def warm_up(engine: Engine, seconds: float) -> int:
    """Run the grid of shapes on both sessions, smallest first, while there is time.

    The first runs fault the weights in and make the arena grow; a request should not pay that.

    Args:
        engine: loaded.
        seconds: that it takes, about; the smallest batch runs in any case.

    Returns:
        How many batches ran.
    """
    begin = time.perf_counter()
    manifest = engine.manifest
    most = min(calibration.MAX_TOKENS, engine.max_batch_tokens)
    done, a_token = 0, 0.0
    for lengths in shapes.grid(manifest.max_tokens, most):
        now = time.perf_counter()
        if done and now + a_token * sum(lengths) > begin + seconds:
            break
        batch = shapes.texts(lengths, manifest)
        engine.answer(batch)
        if engine.has_wide:
            engine.answer(batch, wide=True)
        a_token = (time.perf_counter() - now) / sum(lengths)
        done += 1
    return done
