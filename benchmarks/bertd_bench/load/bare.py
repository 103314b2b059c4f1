"""The engine without a server: how much it can do, and how long one text takes alone."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bertd import bundle
from bertd_server.engine.engine import Engine, EngineOptions
from bertd_server.engine.packing import TokenSequence
from bertd_server.system import cache_folder
from bertd_server.tokenization.reader import Reader

from bertd_bench.load.generator import Open

Run = Callable[[Sequence[TokenSequence]], object]
_BATCHES = (4, 8, 16, 32, 64, 128)  # texts of a batch that are tried
_LEAST_RUNS = 3  # of each lane, however slow
_TRIALS = 5  # runs that decide between one thread and all


@dataclass(frozen=True, slots=True)
class Best:
    """How the engine does most a second.

    Attributes:
        lanes: batches at once.
        texts: in a batch.
        wide: all threads work on one batch.
    """

    lanes: int
    texts: int
    wide: bool


class BareEngine:
    """A bundle's tokenizer and engine in this process."""

    def __init__(self, folder: Path, threads: int) -> None:
        manifest = bundle.read_manifest(folder)
        self._reader = Reader.of(folder, manifest)
        self._engine = Engine(
            folder, manifest, EngineOptions(threads=threads, cache=cache_folder.user_cache_folder())
        )
        self._wide_wins: dict[int, bool] = {}

    def sequences(self, texts: Sequence[str]) -> list[TokenSequence]:
        """Tokenise texts."""
        return self._reader.sequences(texts)

    def best(self, sequences: Sequence[TokenSequence], seconds: float) -> Best:
        """Find the lanes and the batch that do most, in so many seconds for each choice."""
        ways = [Best(self._engine.lanes, texts, wide=False) for texts in _BATCHES]
        if self._engine.has_wide:
            ways += [Best(1, texts, wide=True) for texts in _BATCHES]
        return max(ways, key=lambda way: self.rate(way, sequences, seconds))

    def rate(self, way: Best, sequences: Sequence[TokenSequence], seconds: float) -> float:
        """Texts a second."""
        batches = [
            sequences[start : start + way.texts]
            for start in range(0, len(sequences) - way.texts + 1, way.texts)
        ]
        run = self._run(wide=way.wide)
        run(batches[0])
        begin = time.perf_counter()

        def work(lane: int) -> int:
            done = 0
            while done < _LEAST_RUNS or time.perf_counter() - begin < seconds:
                run(batches[(lane + done * way.lanes) % len(batches)])
                done += 1
            return done

        with ThreadPoolExecutor(way.lanes) as threads:
            done = sum(threads.map(work, range(way.lanes)))
        return done * way.texts / (time.perf_counter() - begin)

    def alone(self, sequences: Sequence[TokenSequence], plan: Open) -> list[float]:
        """Seconds of each text run alone, at the moments of a plan: as cold as a server's runs.

        Each runs where texts of its length are done first: on one thread, or on all.
        """
        seconds = []
        wide = [self._prefers_wide(sequences[n % len(sequences)]) for n in range(len(plan.due))]
        start = time.perf_counter()
        for number, due in enumerate(plan.due):
            time.sleep(max(0.0, due - (time.perf_counter() - start)))
            begin = time.perf_counter()
            self._engine.answer([sequences[number % len(sequences)]], wide=wide[number])
            seconds.append(time.perf_counter() - begin)
        return seconds

    def _prefers_wide(self, sequence: TokenSequence) -> bool:
        if not self._engine.has_wide:
            return False
        length = len(sequence)
        if length not in self._wide_wins:
            times: dict[bool, list[float]] = {False: [], True: []}
            for turn in range(2 * _TRIALS):
                begin = time.perf_counter()
                self._engine.answer([sequence], wide=turn % 2 == 1)
                times[turn % 2 == 1].append(time.perf_counter() - begin)
            self._wide_wins[length] = statistics.median(times[True]) < statistics.median(
                times[False]
            )
        return self._wide_wins[length]

    def _run(self, *, wide: bool) -> Run:
        return lambda batch: self._engine.answer(batch, wide=wide)


def seeded(seed: int) -> random.Random:
    """Randomness for traffic that is the same in every run."""
    return random.Random(seed)  # noqa: S311 - traffic is no secret
