"""Small parts of serving: lanes that cannot be replaced at once, the cache, the histogram."""

from __future__ import annotations

import asyncio
import math
import threading
import time
import weakref

import numpy as np
import pytest
from bertd_server.scheduling.cache import ResultCache
from bertd_server.scheduling.lanes import BatchJob, BatchResult, Lanes, unheard
from bertd_server.scheduling.statistics import Histogram
from helpers.held import HeldEngine, sequences
from hypothesis import given
from hypothesis import strategies as st


async def test_a_lane_is_tried_again_while_the_system_has_no_thread_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """None is alive meanwhile; jobs wait and are done afterwards."""
    engine, alive = HeldEngine(), list[int]()
    engine.let_go()
    results: asyncio.Queue[BatchResult] = asyncio.Queue()
    lanes = Lanes(1, clock=time.monotonic, changed=alive.append, retry_seconds=0.0)
    attempts = iter([True, True, False])

    def start(thread: threading.Thread) -> None:
        if next(attempts):
            raise RuntimeError("can't start new thread")
        real_start(thread)

    real_start = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", start)
    lanes.run(BatchJob(engine, sequences(17), None, wide=False, done=results.put_nowait))
    assert (await results.get()).died
    assert lanes.alive == 0
    lanes.run(BatchJob(engine, sequences(3), None, wide=False, done=results.put_nowait))
    assert (await results.get()).error is None
    assert alive == [1, 0, 1]
    lanes.close()


async def test_a_lane_that_waits_keeps_no_engine() -> None:
    """A model that is not served any more leaves memory, though its lanes have nothing new."""
    engine, results = HeldEngine(), asyncio.Queue[BatchResult]()
    engine.let_go()
    lanes = Lanes(1, clock=time.monotonic, changed=unheard)
    lanes.run(BatchJob(engine, sequences(3), None, wide=False, done=results.put_nowait))
    await results.get()
    freed = threading.Event()
    weakref.finalize(engine, freed.set)
    del engine
    assert await asyncio.to_thread(freed.wait, 60)
    lanes.close()


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 400)), max_size=60))
def test_the_cache_keeps_its_budget_and_what_was_used_last(puts: list[tuple[int, int]]) -> None:
    """Its bytes are the sum of its entries; what it gives is what was put in, and frozen."""
    cache = ResultCache(4000)
    last: dict[bytes, bytes] = {}
    for key, size in puts:
        array = np.random.default_rng(size).random(size, np.float32)
        cache.put(bytes([key]), {"value": array})
        found = cache.get(bytes([key]))
        assert found is not None
        assert found["value"].tobytes() == array.tobytes()
        assert not found["value"].flags.writeable
        assert not np.shares_memory(found["value"], array)
        last[bytes([key])] = array.tobytes()
        assert cache.bytes <= 4000
    kept = {key: found for key in last if (found := cache.get(key)) is not None}
    assert all(found["value"].tobytes() == last[key] for key, found in kept.items())
    assert cache.bytes == sum(513 + found["value"].nbytes for found in kept.values())


def test_what_is_larger_than_the_budget_is_not_kept() -> None:
    cache, off = ResultCache(1000), ResultCache(0)
    for it in (cache, off):
        it.put(b"a", {"value": np.zeros(1000, np.float32)})
        assert it.get(b"a") is None
        assert it.bytes == 0
    assert (off.misses, cache.misses) == (0, 1)


@given(st.lists(st.floats(0, 1e5), min_size=1), st.sampled_from([1, 50, 99, 100]))
def test_percentiles_are_right_to_a_bucket(values: list[float], percent: int) -> None:
    """The bound lies above the true percentile, by less than a fifth."""
    it = Histogram()
    for value in values:
        it.observe(value)
    true = sorted(values)[math.ceil(len(values) * percent / 100) - 1]
    assert max(true, 2**-20) / 1.0001 <= it.percentile(percent) <= max(1.2 * true, 2**-20)
    assert it.count == len(values)
    bounds = list(it.buckets())
    assert bounds[-1] == (math.inf, it.count)
    assert bounds == sorted(bounds)
