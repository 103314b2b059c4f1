"""One engine, random batches on all lanes: memory stays, and a text has its bits in any batch.

::

    every shape and token ──> random batches ──> resident bytes: must not grow once warm
    texts alone on a lane ──> the same in random batches, on lanes at once and wide: equal bits
"""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from bertd import bundle
from bertd_bench.harness.texts import random_texts
from bertd_server.engine.engine import Engine, EngineOptions
from bertd_server.engine.packing import TokenSequence
from bertd_server.models import memory, shapes
from bertd_server.system import cpu
from robustness.scale import SCALE, check_memory, patient, served_model

BATCHES = 40 * SCALE  # while memory is watched
COMPARED = 20 * min(SCALE, 100)  # of whose answers every bit is
MAX_TOKENS = 2_048
LONGEST = (16, 64, 256, 512)  # of the texts of one batch, chosen anew for each
SAMPLES = 20  # of memory


@pytest.fixture(scope="module")
def engine(request: pytest.FixtureRequest) -> Engine:
    folder = served_model(request)
    return Engine(folder, bundle.read_manifest(folder), EngineOptions(max(2, cpu.usable_threads())))


@patient
def test_memory_stays_over_batches_of_random_shapes(engine: Engine) -> None:
    most = min(MAX_TOKENS, engine.max_batch_tokens)
    warm_up(engine, most)
    numbers = itertools.count()  # its next() is atomic
    samples: list[int] = []

    def lane(seed: int) -> None:
        rng = np.random.default_rng(seed)
        while (number := next(numbers)) < BATCHES:
            lengths = random_lengths(rng, engine.manifest.max_tokens, most)
            answers = engine.answer(random_texts(rng, lengths, engine.manifest))
            assert len(answers) == len(lengths)
            if number % (BATCHES // SAMPLES) == 0:
                samples.append(memory.resident_bytes())

    with ThreadPoolExecutor(engine.lanes) as pool:
        list(pool.map(lane, range(engine.lanes)))
    assert len(samples) == SAMPLES
    check_memory(samples)


@patient
def test_a_text_has_the_same_bits_in_any_batch(engine: Engine) -> None:
    """On all lanes at once and on the wide session, as alone on a lane."""
    rng = np.random.default_rng(0)
    longest = min(engine.manifest.max_tokens, LONGEST[-1])
    sizes = [*range(1, 34), *rng.integers(34, longest + 1, 60).tolist(), 255, 256, 257, longest]
    texts = random_texts(rng, [min(size, longest) for size in sizes], engine.manifest)
    alone = [engine.answer([text])[0] for text in texts]
    with ThreadPoolExecutor(engine.lanes) as lanes:
        for _ in range(COMPARED):
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
                for index, rows in zip(chosen, answer, strict=True):
                    for name in engine.outputs:
                        np.testing.assert_array_equal(rows[name], alone[index][name])


def test_random_batches_keep_to_their_limits() -> None:
    rng = np.random.default_rng(0)
    drawn = [random_lengths(rng, 100, 300) for _ in range(300)]
    assert all(0 < len(lengths) <= 64 and sum(lengths) <= 300 for lengths in drawn)
    assert {max(lengths) > 64 for lengths in drawn} == {True, False}
    assert max(map(max, drawn)) <= 100


def random_lengths(rng: np.random.Generator, longest: int, max_tokens: int) -> list[int]:
    """Lengths of a batch: few or many, short, mixed or long; at most `max_tokens` together."""
    room = int(2 ** rng.uniform(2, np.log2(max_tokens)))
    most = min(longest, LONGEST[rng.integers(len(LONGEST))])
    lengths: list[int] = []
    while room > 1 and len(lengths) < 64:
        lengths.append(min(int(rng.integers(2, most + 1)), room))
        room -= lengths[-1]
    return lengths


def warm_up(engine: Engine, most: int) -> None:
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
