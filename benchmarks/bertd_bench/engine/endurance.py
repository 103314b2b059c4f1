"""Many batches of random shapes: does memory stay, and are the bits the same everywhere?

::

    lanes ──random batches──> engine ──> resident memory after warm-up, and after the last batch
    each text alone, in batches, on lanes and wide ──> bits
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
from pydantic import BaseModel

from bertd_bench.engine import batches
from bertd_bench.harness import machine

MAX_TOKENS = 2_048
_SAMPLES = 20  # of memory, evenly over the run
_WARM_BATCHES = 500  # random ones, after every shape of the grid and every token


class MemoryReport(BaseModel, frozen=True):
    """Resident bytes over a run; `growth` is from the end of warm-up to the end.

    `first_bytes` is after the first batches alone, as the server's own warm-up runs them.
    """

    model: str
    precision: str
    lanes: int
    batches: int
    memory_limit: int
    max_batch_tokens: int
    machine: machine.Machine
    loaded_bytes: int
    first_bytes: int
    warm_bytes: int
    samples_bytes: list[int]
    growth: float


class IdentityReport(BaseModel, frozen=True):
    """How many batches and texts were compared, and how many answers had other bits."""

    model: str
    precision: str
    lanes: int
    threads: int
    machine: machine.Machine
    batches: int
    texts: int
    different: int


def memory_growth(
    folder: Path, lanes: int, count: int, limit: int, progress: Callable[[str], None]
) -> MemoryReport:
    """Run batches of random shapes on all lanes and watch the memory of this process.

    Args:
        folder: a bundle.
        lanes: threads that run batches.
        count: batches in all.
        limit: bytes for :func:`bertd_server.models.memory.limit_batches`; 0 for none.
        progress: told how far it is.
    """
    here = machine.describe(cpu.usable_threads())
    manifest = bundle.read_manifest(folder)
    engine = Engine(folder, manifest, EngineOptions(cpu.usable_threads(), lanes))
    loaded = memory.resident_bytes()
    memory.limit_batches(engine, limit)
    most = min(MAX_TOKENS, engine.max_batch_tokens)
    for lengths in [*shapes.grid(manifest.max_tokens, most), *_largest(manifest, most)]:
        batch = shapes.texts(lengths, manifest)
        with ThreadPoolExecutor(lanes) as pool:
            for run in [pool.submit(engine.answer, batch) for _ in range(lanes)]:
                run.result()
    for begin in range(0, manifest.vocab_size, most):  # every row of the embeddings
        ids = np.arange(begin, min(begin + most, manifest.vocab_size))
        parts = np.array_split(ids, max(1, len(ids) // 64))
        engine.answer([TokenSequence(part, np.zeros_like(part)) for part in parts])
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

    with ThreadPoolExecutor(lanes) as pool:
        for each in [pool.submit(lane, seed) for seed in range(lanes)]:
            each.result()
    samples.append(memory.resident_bytes())
    return MemoryReport(
        model=manifest.name,
        precision=manifest.precision,
        lanes=lanes,
        batches=count,
        memory_limit=limit,
        max_batch_tokens=most,
        machine=here,
        loaded_bytes=loaded,
        first_bytes=first,
        warm_bytes=warm,
        samples_bytes=samples,
        growth=samples[-1] / warm - 1,
    )


def _largest(manifest: bundle.Manifest, most: int) -> list[tuple[int, ...]]:
    """Full batches of long and of short texts, which make the arena as large as it gets."""
    lengths = {min(256, manifest.max_tokens), manifest.max_tokens, 16}
    return [(length,) * max(1, most // length) for length in sorted(lengths)]


def identity(folder: Path, count: int, progress: Callable[[str], None]) -> IdentityReport:
    """Compare each text's answer alone with that in random batches, on lanes and wide.

    Every batch runs on all lanes at once and on the wide session; its texts are drawn from a pool
    whose answers were computed one by one on a lane.
    """
    here = machine.describe(cpu.usable_threads())
    threads = cpu.usable_threads()
    manifest = bundle.read_manifest(folder)
    engine = Engine(folder, manifest, EngineOptions(threads))
    rng = np.random.default_rng(0)
    longest = min(manifest.max_tokens, 512)
    sizes = [*range(1, 34), *rng.integers(34, longest + 1, 60).tolist(), 255, 256, 257, longest]
    pool = batches.random_texts(rng, [min(size, longest) for size in sizes], manifest)
    alone = [engine.answer([text])[0] for text in pool]
    texts = different = 0
    with ThreadPoolExecutor(engine.lanes) as threads_:
        for turn in range(count):
            if turn % 200 == 0:
                progress(f"{turn} batches, {different} answers differ")
            room = int(2 ** rng.uniform(2, 10))
            longest_here = rng.choice([12, 33, longest])  # batches of short texts among them
            fitting = [index for index, text in enumerate(pool) if len(text) <= longest_here]
            chosen: list[int] = []
            while room > 0 and len(chosen) < 48:
                chosen.append(int(rng.choice(fitting)))
                room -= len(pool[chosen[-1]])
            batch = [pool[index] for index in chosen]
            runs = [threads_.submit(engine.answer, batch) for _ in range(engine.lanes)]
            answers = [run.result() for run in runs] + [engine.answer(batch, wide=True)]
            for answer in answers:
                texts += len(batch)
                different += sum(
                    not np.array_equal(rows[name], alone[index][name])
                    for index, rows in zip(chosen, answer, strict=True)
                    for name in engine.outputs
                )
    return IdentityReport(
        model=manifest.name,
        precision=manifest.precision,
        lanes=engine.lanes,
        threads=threads,
        machine=here,
        batches=count,
        texts=texts,
        different=different,
    )
