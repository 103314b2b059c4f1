"""Has a text the same bits alone, in any batch, on lanes at once and on the wide session?"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from bertd import bundle
from bertd_server.engine.engine import Engine, EngineOptions
from bertd_server.system import cpu

from bertd_bench.engine import batches
from bertd_bench.engine.results import BitIdentity

_LONGEST = 512


def compare(folder: Path, count: int, progress: Callable[[str], None]) -> BitIdentity:
    """Compare each text's answer alone with that in random batches.

    Every batch runs on all lanes at once and on the wide session; its texts are drawn from a pool
    whose answers were computed one by one on a lane.
    """
    manifest = bundle.read_manifest(folder)
    engine = Engine(folder, manifest, EngineOptions(cpu.usable_threads()))
    rng = np.random.default_rng(0)
    longest = min(manifest.max_tokens, _LONGEST)
    sizes = [*range(1, 34), *rng.integers(34, longest + 1, 60).tolist(), 255, 256, 257, longest]
    texts = batches.random_texts(rng, [min(size, longest) for size in sizes], manifest)
    alone = [engine.answer([text])[0] for text in texts]
    compared = different = 0
    with ThreadPoolExecutor(engine.lanes) as lanes:
        for turn in range(count):
            if turn % 200 == 0:
                progress(f"{turn} batches, {different} answers differ")
            room = int(2 ** rng.uniform(2, 10))
            longest_here = rng.choice([12, 33, longest])  # batches of short texts among them
            fitting = [index for index, text in enumerate(texts) if len(text) <= longest_here]
            chosen: list[int] = []
            while room > 0 and len(chosen) < 48:
                chosen.append(int(rng.choice(fitting)))
                room -= len(texts[chosen[-1]])
            batch = [texts[index] for index in chosen]
            runs = [lanes.submit(engine.answer, batch) for _ in range(engine.lanes)]
            for answer in [*(run.result() for run in runs), engine.answer(batch, wide=True)]:
                compared += len(batch)
                different += sum(
                    not np.array_equal(rows[name], alone[index][name])
                    for index, rows in zip(chosen, answer, strict=True)
                    for name in engine.outputs
                )
    return BitIdentity(batches=count, texts=compared, different=different)
