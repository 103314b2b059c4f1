"""`bertd bench mlperf`: every scenario over a server, its accuracy run first.

::

    reference answers ──> what it does ──> accuracy run ──> performance run      SingleStream, …
                                           accuracy run ──> search ──> performance run at what it
                                                                       found            Server
"""

from __future__ import annotations

import asyncio
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from bertd import bundle
from bertd_server.engine.engine import Engine, EngineOptions
from bertd_server.system import cpu
from bertd_server.tokenization.reader import Reader
from numpy.typing import NDArray

from bertd_bench.contestants import eager as contestants
from bertd_bench.harness import machine
from bertd_bench.harness.noise import NoiseWatch
from bertd_bench.load import traffic
from bertd_bench.mlperf import loadgen, logs, results
from bertd_bench.mlperf.results import MlperfReport, ScenarioResult, TriedRate
from bertd_bench.mlperf.settings import (
    SCENARIOS,
    SERVER,
    STREAMS,
    Expected,
    LoadGenRun,
    Preset,
    Scenario,
)

_SLACK = 2.0  # times what was seen: LoadGen makes its queries before it knows
_OFFLINE_SLACK = 1.3  # of the rate of one large query, which must last as long as is asked
_FIRST = 0.6  # of the offline rate: where the search for Server's begins
_EAGER = 64  # texts that are compared with eager
_FACTOR = 1.15  # between rates while the highest is sought
_STEP_DOWN = 0.95  # where the long run at the rate that was found is not valid
_LONG_TRIES = 4
_LOOK_SECONDS = 1.5


@dataclass(frozen=True, slots=True)
class MlperfOptions:
    """Of one run.

    Attributes:
        model: a checkpoint; None for all-MiniLM-L6-v2.
        name: of the preset.
        limit: seconds for 99 % of Server's queries.
        keep: folder for LoadGen's logs; None keeps none.
    """

    model: str | None
    name: str
    preset: Preset
    limit: float
    threads: int | None
    scenarios: Sequence[Scenario] = SCENARIOS
    keep: Path | None = None
    command: str = ""


def measure(options: MlperfOptions, progress: Callable[[str], None]) -> MlperfReport:
    """Run everything that was chosen.

    Raises:
        BenchError: there is no default model here, or the server does not start.
        LogError: LoadGen did not end as it should.
    """
    threads = options.threads or cpu.usable_threads()
    version = metadata.version("mlcommons-loadgen")
    here = machine.describe(cpu.usable_threads(), {"loadgen": version})
    with ExitStack() as stack:
        subject = stack.enter_context(contestants.open_subject(options.model))
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        watch = stack.enter_context(NoiseWatch(here.affinity or [0], here.load_average[0]))
        texts = traffic.texts_for(subject.bundle, options.preset.library)
        watch.calibrate()
        progress("reference answers")
        reference = _engine_answers(subject.bundle, texts)
        eager = contestants.eager(subject.checkpoint, 1)(texts[:_EAGER])
        server = stack.enter_context(contestants.server_process(subject.bundle, threads))
        server.wait_until_listening()
        bench = _Bench(options, options.keep or scratch, progress)
        scenarios = asyncio.run(bench.run(server.address, texts, reference, eager))
        watch.calibrate()
        return MlperfReport(
            command=options.command,
            preset=options.name,
            seconds=options.preset.seconds,
            limit=options.limit,
            library=len(texts),
            mean_tokens=traffic.MEAN_TOKENS,
            model=bundle.read_manifest(subject.bundle).name,
            threads=threads,
            loadgen=version,
            machine=here,
            noise=watch.noise(),
            scenarios=scenarios,
        )


def _engine_answers(folder: Path, texts: Sequence[str]) -> list[bytes]:
    """Vectors of the engine alone, one text at a time, on one thread."""
    manifest = bundle.read_manifest(folder)
    reader, engine = Reader.of(folder, manifest), Engine(folder, manifest, EngineOptions(threads=1))
    return [engine.embed([sequence])[0].tobytes() for sequence in reader.sequences(texts)]


class _Bench:
    """A server under LoadGen, scenario by scenario, on one event loop."""

    def __init__(
        self, options: MlperfOptions, folder: Path, progress: Callable[[str], None]
    ) -> None:
        self._options, self._folder, self._progress = options, folder, progress
        self._runs = 0

    async def run(
        self, address: str, texts: Sequence[str], reference: Sequence[bytes], eager: NDArray[Any]
    ) -> list[ScenarioResult]:
        """Every scenario that was chosen."""
        self._system = loadgen.ServerUnderTest(address, texts)
        try:
            self._expected = await self._look()
            return [
                await self._scenario(each, reference, eager) for each in self._options.scenarios
            ]
        finally:
            await self._system.close()

    async def _scenario(
        self, name: Scenario, reference: Sequence[bytes], eager: NDArray[Any]
    ) -> ScenarioResult:
        """One scenario: accuracy, then performance; of Server, at the highest valid rate."""
        options, preset = self._options, self._options.preset
        run = LoadGenRun(
            scenario=name,
            accuracy=False,
            seconds=preset.seconds,
            queries=preset.queries[name],
            samples=min(preset.accuracy, len(reference)),
            limit=options.limit,
            rate=_FIRST * self._expected.offline,
            expected=self._expected,
        )
        folder, _ = await self._execute(replace(run, accuracy=True))
        right = results.check(logs.read_answers(folder), reference, run.samples, eager)
        tried: list[TriedRate] = []
        if name == SERVER:
            tried = await self._search(run)
            found = bounds(tried)[0]
            run = replace(run, rate=found or min(each.rate for each in tried))
        folder, retries = await self._execute(run)
        seen = logs.read_performance(folder)
        for _ in range(_LONG_TRIES if tried else 0):
            if seen.valid:
                break
            run = replace(run, rate=run.rate * _STEP_DOWN)
            folder, retries = await self._execute(run)
            seen = logs.read_performance(folder)
        return ScenarioResult(
            name=name,
            performance=seen,
            accuracy=right,
            target=run.rate if name == SERVER else None,
            search=tried,
            retries=retries,
        )

    async def _search(self, run: LoadGenRun) -> list[TriedRate]:
        preset = self._options.preset
        tried: list[TriedRate] = []
        while len(tried) < preset.search_runs:
            rate = next_rate(tried, run.rate, preset.precision)
            if rate is None:
                break
            short = replace(run, rate=rate, seconds=preset.search_seconds)
            folder, _ = await self._execute(short)
            tried.append(TriedRate(rate=rate, valid=logs.read_performance(folder).valid))
        return tried

    async def _execute(self, run: LoadGenRun) -> tuple[Path, int]:
        kind = "accuracy" if run.accuracy else "performance"
        rate = f" at {run.rate:.1f} queries/s" if run.scenario == SERVER else ""
        self._progress(f"{run.scenario}, {kind}{rate}")
        self._runs += 1
        folder = self._folder / f"{self._runs:02}-{run.scenario}-{kind}"
        library = self._options.preset.library
        return folder, await loadgen.execute(self._system, run, library, folder)

    async def _look(self) -> Expected:
        """About what it does: LoadGen wants to know how many queries to make."""
        size, library = self._system.texts_per_call, self._options.preset.library
        seconds = min(_LOOK_SECONDS, self._options.preset.seconds) / 2

        async def times(count: int) -> float:
            """Median seconds of so many texts at once."""
            calls = [range(start, min(start + size, count)) for start in range(0, count, size)]
            samples: list[float] = []
            end = time.perf_counter() + seconds
            while time.perf_counter() < end or len(samples) < 3:
                first, begin = len(samples) * count, time.perf_counter()
                asked = [[(first + n) % library for n in call] for call in calls]
                await asyncio.gather(*map(self._system.ask, asked))
                samples.append(time.perf_counter() - begin)
            return statistics.median(samples)

        many = 6 * max(size, STREAMS)
        single, multi, bulk = [await times(n) for n in (1, STREAMS, many)]
        return Expected(single / _SLACK, multi / _SLACK, _OFFLINE_SLACK * many / bulk)


def next_rate(tried: Sequence[TriedRate], start: float, precision: float) -> float | None:
    """The rate to try next: up while runs are valid, down while not, then between; None at the end.

    Args:
        tried: rates so far.
        start: the first one.
        precision: ends it, between the best that was valid and the next that was not.
    """
    if not tried:
        return start
    low, high = bounds(tried)
    if low == 0:
        return high / _FACTOR ** (1 + sum(not each.valid for each in tried) // 2)
    if math.isinf(high):
        return low * _FACTOR
    return None if high <= low * (1 + precision) else math.sqrt(low * high)


def bounds(tried: Sequence[TriedRate]) -> tuple[float, float]:
    """The highest valid rate, 0 without one; and the lowest above it that was not, or inf."""
    low = max((each.rate for each in tried if each.valid), default=0.0)
    high = min(
        (each.rate for each in tried if not each.valid and each.rate > low), default=math.inf
    )
    return low, high
