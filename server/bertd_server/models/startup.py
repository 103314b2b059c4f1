"""An engine that is ready: loaded, kept below its memory limit, warm, and measured."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from bertd import bundle

from bertd_server.engine import prepacking
from bertd_server.engine.engine import Engine, EngineOptions
from bertd_server.models import calibration, memory, shapes
from bertd_server.models.calibration import Calibration
from bertd_server.system import cache_folder
from bertd_server.system.logs import get_logger
from bertd_server.system.setting_types import format_bytes

log = get_logger("bertd")


@dataclass(frozen=True, slots=True)
class StartOptions:
    """What a start does besides loading.

    Attributes:
        memory_limit: bytes of the process; 0 for none.
        cache_bytes: of these, for results that are kept.
        warmup_seconds: to run batches of all shapes for.
        calibration_seconds: to time them for, where no earlier start did.
        cache: folder of what earlier starts left; None keeps nothing.
    """

    memory_limit: int = 0
    cache_bytes: int = 0
    warmup_seconds: float = 0.5
    calibration_seconds: float = 5.0
    cache: Path | None = None


def start(
    folder: Path, manifest: bundle.Manifest, options: EngineOptions, starting: StartOptions
) -> tuple[Engine, Calibration]:
    """Load a bundle and make it ready to serve; the server listens only after that.

    Args:
        folder: a verified bundle.
        manifest: its manifest.
        options: of the engine.
        starting: of the start.

    Raises:
        CannotServeError: the provider or the memory is not there.
    """
    begin = time.perf_counter()
    engine = Engine(folder, manifest, options)
    loaded = time.perf_counter()
    memory.limit_batches(engine, starting.memory_limit, starting.cache_bytes)
    warm_up(engine, starting.warmup_seconds)
    warm = time.perf_counter()
    measured = calibration.calibrate(
        engine,
        seconds=starting.calibration_seconds,
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
        load_seconds=round(loaded - begin, 3),
        warmup_seconds=round(warm - loaded, 3),
        calibration_seconds=round(time.perf_counter() - warm, 3),
        calibration_from_cache=measured.from_cache,
        memory=format_bytes(memory.resident_bytes()),
    )
    return engine, measured


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
