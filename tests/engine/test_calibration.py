"""Calibration: what is measured at a start and behind traffic, what is kept, what ends it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest
from bertd.bundle import read_manifest
from bertd_server.engine.engine import NO_LIMIT, Engine, EngineOptions
from bertd_server.engine.packing import TokenSequence
from bertd_server.engine.sessions import Interrupt
from bertd_server.models import calibration, memory, shapes, startup
from bertd_server.models.background import Background
from bertd_server.models.model import Model
from bertd_server.models.sampling import Sample
from bertd_server.models.startup import ModelOptions, StartOptions
from bertd_server.scheduling.pool import Pool
from helpers.engines import WIDE, engine, entries
from helpers.patience import PATIENCE
from onnxruntime.capi.onnxruntime_pybind11_state import Fail


def whole(one: Engine, cache: Path) -> calibration.Calibration:
    """A grid that was measured on a machine where nothing disturbs, and kept."""
    grid = calibration.Grid(one, seconds=60, cache=cache)
    while (trial := grid.following()) is not None:
        seconds = 1e-4 + 1e-6 * trial.shape.tokens + 1e-9 * trial.shape.pairs
        grid.add(trial, [Sample(seconds, disturbed=False)] * one.lanes, 0.0)
    assert grid.flaw() is None
    grid.keep()
    return grid.measured()


def test_calibration_is_kept_for_this_bundle_and_these_options_alone(
    small: Path, tmp_path: Path
) -> None:
    """What is damaged, foreign, incomplete or contradicts itself is measured again."""
    one = engine(small)
    measured = whole(one, tmp_path)
    kept = calibration.calibrate(one, seconds=60, cache=tmp_path)
    assert kept.from_cache
    assert (kept.lane, kept.wide) == (measured.lane, measured.wide)
    other = calibration.calibrate(engine(small, EngineOptions()), seconds=0, cache=tmp_path)
    assert not other.from_cache
    assert len(other.lane) == 1  # no time: the smallest batch
    assert not other.wide

    (file,) = tmp_path.glob("*.json")
    good = json.loads(file.read_text())
    first, *others, last = good["lane"]
    for bad in (
        "{",
        json.dumps({**good, "made_for": ["another host"]}),
        json.dumps({**good, "lane": [{**first, "seconds": -1}, *others, last]}),
        json.dumps({**good, "lane": [first, *others]}),
        json.dumps({**good, "wide": []}),
        # The most work in the least time.
        json.dumps({**good, "lane": [first, *others, {**last, "seconds": first["seconds"] / 2}]}),
    ):
        file.write_text(bad)
        assert not calibration.calibrate(one, seconds=0, cache=tmp_path).from_cache
    file.write_text(json.dumps(good))
    assert calibration.calibrate(one, seconds=0, cache=tmp_path).from_cache
    assert entries(tmp_path) == [file.name]  # nothing half-written stays


def test_a_calibration_that_is_incomplete_or_was_disturbed_is_not_kept(
    small: Path, tmp_path: Path
) -> None:
    """However little time there is, the next start measures again."""
    one = engine(small, EngineOptions())
    assert len(calibration.calibrate(one, seconds=0, cache=tmp_path).lane) == 1
    grid = calibration.Grid(one, seconds=60, cache=tmp_path)
    while (trial := grid.following()) is not None:
        grid.add(trial, [Sample(1e-3 * trial.shape.tokens, disturbed=True)], 0.0)
    assert grid.covered
    assert "others had the cores" in str(grid.flaw())
    grid.keep()
    assert entries(tmp_path) == []
    assert not calibration.calibrate(one, seconds=0, cache=tmp_path).from_cache


def test_what_is_left_of_the_seconds_bounds_what_is_run(small: Path) -> None:
    """Trials that a request ended count too, and say nothing."""
    one = engine(small, EngineOptions())
    grid = calibration.Grid(one, seconds=1.0)
    trials = 0
    while (trial := grid.following()) is not None:
        assert not trial.warm
        grid.add(trial, [], 0.1)
        trials += 1
    assert trials <= 11
    assert not grid.covered


def test_an_interrupted_run_ends_with_an_error_and_the_next_one_is_whole(small: Path) -> None:
    one = engine(small)
    batch = [TokenSequence(np.arange(5, 5 + n), np.zeros(n, np.int64)) for n in (9, 40)]
    for wide in (False, True):
        interrupt = Interrupt()
        one.rehearse(batch, wide=wide, interrupt=interrupt)
        interrupt.set()
        with pytest.raises(Fail, match="terminate"):
            one.rehearse(batch, wide=wide, interrupt=interrupt)
        assert one.embed(batch, wide=wide).shape == (2, one.manifest.dimensions)


async def test_the_rest_of_a_grid_is_run_while_the_lanes_rest(small: Path, tmp_path: Path) -> None:
    """Whether it is clean enough to be kept is the machine's affair."""
    one = engine(small)
    start = calibration.calibrate(one, seconds=2, first=0, cache=tmp_path)
    assert len(start.lane) == len(start.wide) == 1
    assert start.grid is not None
    assert start.grid.left == 2 * calibration.BEHIND
    every = len(shapes.grid(one.manifest.max_tokens, calibration.MAX_TOKENS))
    pool = Pool(one.lanes)
    known: list[calibration.Calibration] = []
    covered = asyncio.Event()

    def changed(measured: calibration.Calibration) -> None:
        known.append(measured)
        covered.set()

    background = Background(start.grid, pool, changed, "small", longest_pause=0.001)
    await asyncio.wait_for(covered.wait(), PATIENCE)
    assert len(known[0].lane) == len(known[0].wide) == every
    background.stop()
    await asyncio.to_thread(pool.close)


async def test_a_model_that_is_drained_calibrates_no_more(small: Path, tmp_path: Path) -> None:
    starting = StartOptions(warmup_seconds=0, first_calibration_seconds=0, cache=tmp_path)
    options = ModelOptions(engine=WIDE, starting=starting)
    model = Model(startup.load(small, options), options)
    (task,) = [one for one in asyncio.all_tasks() if "Background" in repr(one.get_coro())]
    assert await model.drain()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()


def test_a_second_start_with_the_same_memory_limit_measures_nothing(
    small: Path, tmp_path: Path
) -> None:
    """Tokens that a limit allows follow from measured memory, and are others at each start."""
    starting = StartOptions(
        memory_limit=memory.resident_bytes() + 2**27,
        warmup_seconds=0,
        calibration_seconds=0,
        cache=tmp_path,
    )
    manifest, options = read_manifest(small), EngineOptions(cache=tmp_path)
    first, measured = startup.start(small, manifest, options, starting)
    assert first.max_batch_tokens < NO_LIMIT
    assert not measured.from_cache
    whole(first, tmp_path / "calibration")
    second, found = startup.start(small, manifest, options, starting)
    assert found.from_cache
    second.max_batch_tokens = first.max_batch_tokens - 1
    assert calibration.calibrate(second, seconds=5, cache=tmp_path / "calibration").from_cache
