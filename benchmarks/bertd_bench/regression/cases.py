"""What `bertd bench regress` times: the stages of a request, each by itself, on one bundle.

::

    tokenise ─> pack ─> one narrow run | one wide run | all lanes at once
"""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from bertd import bundle
from bertd_server.engine.engine import Engine, EngineOptions
from bertd_server.engine.packing import pack
from bertd_server.tokenization.reader import Reader

from bertd_bench.harness import machine, rounds
from bertd_bench.harness.noise import Distance, NoiseWatch
from bertd_bench.harness.rounds import Schedule
from bertd_bench.harness.system import Calls
from bertd_bench.harness.texts import MIXED_LENGTHS, WORDS, random_texts
from bertd_bench.regression.baseline import Baseline

_TEXTS = 64  # to tokenise, of as many words as a mix has tokens


def of(
    folder: Path, engine: Engine, threads: int, lanes: ThreadPoolExecutor
) -> dict[str, Callable[[], object]]:
    """The calls by name.

    Args:
        folder: of the bundle.
        engine: of it.
        threads: of the machine.
        lanes: that call the engine at once.
    """
    manifest = engine.manifest
    reader = Reader.of(folder, manifest)
    draw = random.Random(0)  # noqa: S311 - words, not secrets
    texts = [
        " ".join(draw.choices(WORDS, k=min(MIXED_LENGTHS[n % 16], manifest.max_tokens) - 2))
        for n in range(_TEXTS)
    ]
    rng = np.random.default_rng(0)
    short, long, mixed = (
        random_texts(rng, [min(length, manifest.max_tokens) for length in lengths], manifest)
        for lengths in ((8,), (128,), MIXED_LENGTHS)
    )

    def all_lanes() -> None:
        for done in [lanes.submit(engine.answer, mixed) for _ in range(engine.lanes)]:
            done.result()

    calls: dict[str, Callable[[], object]] = {
        f"tokenise {_TEXTS} texts": lambda: reader.sequences(texts),
        "pack 16 mixed, 8 times": lambda: [
            pack(mixed, manifest.position_offset, manifest.unnumbered_token_id) for _ in range(8)
        ],
        "8 tokens, a lane": lambda: engine.answer(short),
        "16 mixed, a lane": lambda: engine.answer(mixed),
        "16 mixed, every lane": all_lanes,
    }
    if threads > 1:
        calls["8 tokens, wide"] = lambda: engine.answer(short, wide=True)
        calls["128 tokens, wide"] = lambda: engine.answer(long, wide=True)
        calls["16 mixed, wide"] = lambda: engine.answer(mixed, wide=True)
    return calls


def measure(
    folder: Path,
    threads: int,
    schedule: Schedule,
    *,
    settle: bool = True,
    wrap: Callable[[Callable[[], object]], Callable[[], object]] = lambda call: call,
) -> Baseline:
    """Time all of them in turns, with the kernel before each round.

    Args:
        folder: of the bundle.
        threads: of wide runs; as many lanes.
        schedule: how often.
        settle: whether turns wait while the cores are far apart.
        wrap: makes of each call the one that is timed.
    """
    manifest = bundle.read_manifest(folder)
    here = machine.describe(threads)
    engine = Engine(folder, manifest, EngineOptions(threads=threads))
    with (
        ThreadPoolExecutor(engine.lanes) as lanes,
        Distance(here.affinity or []) as distance,
        NoiseWatch(
            here.affinity or list(range(threads)), distance=distance if settle else None
        ) as watch,
    ):
        calls = {name: wrap(call) for name, call in of(folder, engine, threads, lanes).items()}
        seen = rounds.run(
            Calls.each(calls, threads),
            0,
            schedule,
            random.Random(0),  # noqa: S311 - the order of turns is no secret
            watch=watch,
        )
        noise = watch.noise()
    return Baseline(
        command="bertd bench regress",
        model=f"{manifest.name}, {manifest.precision}",
        threads=threads,
        machine=here,
        noise=noise,
        cases=seen,
    )
