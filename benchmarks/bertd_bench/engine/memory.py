"""Does memory stay, over many batches of random shapes on all lanes?

::

    every shape and token ──> random batches ──> resident bytes after warm-up, and after the last
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from bertd import bundle
from bertd_server.engine.engine import Engine, EngineOptions
from bertd_server.engine.packing import TokenSequence
from bertd_server.models import memory, shapes
from bertd_server.system import cpu

from bertd_bench.engine import batches
from bertd_bench.engine.results import MemoryGrowth

_MAX_TOKENS = 2_048
_SAMPLES = 20  # of memory, evenly over the run
_WARM_BATCHES = 500  # random ones, after every shape of the grid and every token


def growth(folder: Path, count: int, limit: int, progress: Callable[[str], None]) -> MemoryGrowth:
    """Run batches of random shapes on all lanes and watch the memory of this process.

    Args:
        folder: a bundle.
        count: batches in all.
        limit: bytes for :func:`bertd_server.models.memory.limit_batches`; 0 for none.
        progress: told how far it is.
    """
    manifest = bundle.read_manifest(folder)
    engine = Engine(folder, manifest, EngineOptions(cpu.usable_threads()))
    memory.limit_batches(engine, limit)
    most = min(_MAX_TOKENS, engine.max_batch_tokens)
    _warm(engine, most)
    first, warm = memory.resident_bytes(), 0
    samples: list[int] = []
    guard, done = threading.Lock(), -_WARM_BATCHES

    def lane(seed: int) -> None:
        nonlocal done, warm
        rng = np.random.default_rng(seed)
        while True:
            with guard:
                if done >= count:
                    return
                done += 1
                if done == 0:
                    warm = memory.resident_bytes()
                elif done > 0 and done % max(1, count // _SAMPLES) == 0:
                    samples.append(memory.resident_bytes())
                    progress(f"{done} batches, {samples[-1] / 2**20:.0f} MiB")
            lengths = batches.random_lengths(rng, manifest.max_tokens, most)
            engine.answer(batches.random_texts(rng, lengths, manifest))

    with ThreadPoolExecutor(engine.lanes) as pool:
        for each in [pool.submit(lane, seed) for seed in range(engine.lanes)]:
            each.result()
    return MemoryGrowth(
        batches=count,
        limit=limit,
        max_batch_tokens=most,
        first_bytes=first,
        warm_bytes=warm,
        samples_bytes=[*samples, memory.resident_bytes()],
    )


def _warm(engine: Engine, most: int) -> None:
    """Every shape of the grid and the largest batches on all lanes at once, and every token."""
    manifest = engine.manifest
    longest = {min(256, manifest.max_tokens), manifest.max_tokens, 16}
    largest = [(length,) * max(1, most // length) for length in sorted(longest)]
    with ThreadPoolExecutor(engine.lanes) as pool:
        for lengths in [*shapes.grid(manifest.max_tokens, most), *largest]:
            batch = shapes.texts(lengths, manifest)
            for run in [pool.submit(engine.answer, batch) for _ in range(engine.lanes)]:
                run.result()
    for begin in range(0, manifest.vocab_size, most):  # every row of the embeddings
        ids = np.arange(begin, min(begin + most, manifest.vocab_size))
        parts = np.array_split(ids, max(1, len(ids) // 64))
        engine.answer([TokenSequence(part, np.zeros_like(part)) for part in parts])
