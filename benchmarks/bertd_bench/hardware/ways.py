"""Which lanes x threads x texts of a batch do most a second, on a mix of lengths.

::

    threads 1   one narrow session, called by as many lanes at once         as the server's lanes
    threads n   an engine for each lane, each with a session of n threads   n = all: its wide runs
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from bertd import bundle
from bertd_server.engine.engine import Engine, EngineOptions
from bertd_server.engine.packing import TokenSequence
from bertd_server.system.setting_types import Provider
from pydantic import BaseModel

from bertd_bench.hardware.kernels import Meter
from bertd_bench.harness.intervals import Interval, median_interval, median_of
from bertd_bench.harness.texts import random_texts

TEXTS = (8, 16, 32, 64)  # of a batch
_ENGINES = 4  # at once at most, since each holds the weights


class LaneLayout(NamedTuple):
    """So many batches at once, each on so many threads."""

    lanes: int
    threads: int


class Way(BaseModel, frozen=True):
    """One layout and size of batch.

    Attributes:
        lanes: batches at once.
        threads: of each.
        texts: of a batch.
        rounds: texts a second, in each round.
        mean_tokens: of a text.
    """

    lanes: int
    threads: int
    texts: int
    rounds: list[float]
    mean_tokens: float

    @property
    def rate(self) -> float:
        """Texts a second."""
        return median_of([[each] for each in self.rounds])

    @property
    def interval(self) -> Interval | None:
        """95 % interval of that."""
        return median_interval([[each] for each in self.rounds])

    @property
    def tokens_rate(self) -> float:
        """Tokens a second."""
        return self.rate * self.mean_tokens


def layouts(threads: int, provider: Provider = "cpu") -> list[LaneLayout]:
    """Lanes and threads that fill this machine, and one thread alone.

    A device has no threads: there it is one lane or two.
    """
    if provider != "cpu":
        return [LaneLayout(1, 1), LaneLayout(2, 1)]
    found = [LaneLayout(1, 1), LaneLayout(threads, 1), LaneLayout(1, threads)]
    found += [
        LaneLayout(lanes, threads // lanes)
        for lanes in (2, 4)
        if threads % lanes == 0 and threads // lanes > 1
    ]
    return list(dict.fromkeys(found))


class Runner:
    """Engines of a bundle in one layout."""

    def __init__(self, folder: Path, layout: LaneLayout, provider: Provider) -> None:
        self.layout = layout
        lanes, threads = layout
        self._wide = threads > 1
        count = lanes if self._wide else 1
        if count > _ENGINES:
            raise ValueError(f"{count} engines at once would hold the weights as often")
        options = EngineOptions(threads=threads, lanes=lanes, provider=provider)
        manifest = bundle.read_manifest(folder)
        self._engines = [Engine(folder, manifest, options) for _ in range(count)]

    def answered(self, batches: Sequence[Sequence[TokenSequence]], seconds: float) -> float:
        """Texts a second of all lanes, over at least so many seconds and one batch each."""
        begin = time.perf_counter()

        def work(lane: int) -> int:
            engine = self._engines[lane % len(self._engines)]
            texts = done = 0
            while not done or time.perf_counter() - begin < seconds:
                batch = batches[(lane + done) % len(batches)]
                engine.answer(batch, wide=self._wide)
                texts += len(batch)
                done += 1
            return texts

        with ThreadPoolExecutor(self.layout.lanes) as pool:
            texts = sum(pool.map(work, range(self.layout.lanes)))
        return texts / (time.perf_counter() - begin)


def batches(
    manifest: bundle.Manifest, mix: Sequence[int], texts: int, count: int = 4
) -> list[list[TokenSequence]]:
    """Batches of so many texts; lengths follow the mix, shuffled anew after each pass."""
    rng = np.random.default_rng(0)
    lengths: list[int] = []
    while len(lengths) < texts * count:
        lengths += [int(each) for each in rng.permutation(np.array(mix))]
    return [
        random_texts(rng, lengths[start : start + texts], manifest)
        for start in range(0, texts * count, texts)
    ]


def measure(folder: Path, mix: Sequence[int], seconds: float, meter: Meter) -> list[Way]:
    """Rate every layout with every size of batch, in turns.

    Args:
        folder: of the bundle.
        mix: lengths of texts, in tokens.
        seconds: of a turn.
        meter: how many rounds, and what computes.
    """
    manifest = bundle.read_manifest(folder)
    mix = [min(length, manifest.max_tokens) for length in mix]
    layouts_here = layouts(meter.threads, meter.provider)
    runners = [Runner(folder, each, meter.provider) for each in layouts_here]
    work = {texts: batches(manifest, mix, texts) for texts in TEXTS}
    turns = [(runner, texts) for runner in runners for texts in TEXTS]
    seen: dict[tuple[Runner, int], list[float]] = {turn: [] for turn in turns}
    rng = random.Random(0)  # noqa: S311 - the order of turns is no secret
    for runner, texts in turns:
        runner.answered(work[texts], 0)
    for _ in range(meter.schedule.rounds):
        if meter.watch is not None:
            meter.watch.calibrate()
        for runner, texts in rng.sample(turns, len(turns)):
            seen[runner, texts].append(runner.answered(work[texts], seconds))
    return [
        Way(
            lanes=runner.layout.lanes,
            threads=runner.layout.threads,
            texts=texts,
            rounds=rates,
            mean_tokens=sum(mix) / len(mix),
        )
        for (runner, texts), rates in seen.items()
    ]
