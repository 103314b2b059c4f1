"""`bertd bench mlperf`: every scenario over a server, its accuracy run first.

::

    reference answers ──> what it does ──> accuracy run ──> performance run      SingleStream, …
                                           accuracy run ──> search ──> performance run at what it
                                                                       found            Server
"""

from __future__ import annotations

import asyncio
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
from bertd_server.tokenization.reading import Reader
from numpy.typing import NDArray

from bertd_bench.contestants import eager as contestants
from bertd_bench.harness import machine
from bertd_bench.harness.noise import Watch
from bertd_bench.load import traffic
from bertd_bench.mlperf import accuracy, loadgen, logs, search, systems
from bertd_bench.mlperf.loadgen import Loop, System
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
        rate: of Server; None seeks the highest valid one.
        keep: folder for LoadGen's logs; None keeps none.
    """

    model: str | None
    name: str
    preset: Preset
    limit: float
    rate: float | None
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
        scratch = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        watch = stack.enter_context(Watch(here.affinity or [0], here.load_average[0]))
        texts = traffic.texts_for(subject.bundle, options.preset.library)
        watch.calibrate()
        progress("reference answers")
        reference = _engine_answers(subject.bundle, texts)
        eager = contestants.eager(subject.checkpoint, 1)(texts[:_EAGER])
        loop = stack.enter_context(Loop())
        system = _served(stack, loop, subject.bundle, threads, texts)
        bench = _Bench(options, loop, system, scratch, progress)
        scenarios = [bench.scenario(each, reference, eager) for each in options.scenarios]
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


def _served(
    stack: ExitStack, loop: Loop, folder: Path, threads: int, texts: Sequence[str]
) -> systems.ServerUnderTest:
    """A server of its own, with a client that is ready, until the stack ends."""
    server = stack.enter_context(contestants.server_process(folder, threads))
    server.wait_until_listening()

    async def connect() -> systems.ServerUnderTest:
        return systems.ServerUnderTest(server.address, texts)

    system = loop.run(connect())
    stack.callback(lambda: loop.run(system.close()))
    return system


def _engine_answers(folder: Path, texts: Sequence[str]) -> list[bytes]:
    """Vectors of the engine alone, one text at a time, on one thread."""
    manifest = bundle.read_manifest(folder)
    reader, engine = Reader.of(folder, manifest), Engine(folder, manifest, EngineOptions(threads=1))
    return [engine.embed([sequence])[0].tobytes() for sequence in reader.sequences(texts)]


class _Bench:
    """A system under LoadGen."""

    def __init__(
        self,
        options: MlperfOptions,
        loop: Loop,
        system: System,
        folder: Path,
        progress: Callable[[str], None],
    ) -> None:
        self._options, self._loop, self._system = options, loop, system
        self._folder, self._progress = folder, progress
        self._runs = 0
        self._expected = self._look()

    def scenario(
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
            rate=options.rate or _FIRST * self._expected.offline,
            expected=self._expected,
        )
        folder, _ = self._execute(replace(run, accuracy=True))
        right = accuracy.check(logs.read_answers(folder), reference, run.samples, eager)
        tried: list[TriedRate] = []
        if name == SERVER and options.rate is None:
            tried = self._search(run)
            found = search.bounds(tried)[0]
            run = replace(run, rate=found or min(each.rate for each in tried))
        folder, retries = self._execute(run)
        seen = logs.read_performance(folder)
        for _ in range(_LONG_TRIES if tried else 0):
            if seen.valid:
                break
            run = replace(run, rate=run.rate * _STEP_DOWN)
            folder, retries = self._execute(run)
            seen = logs.read_performance(folder)
        return ScenarioResult(
            name=name,
            performance=seen,
            accuracy=right,
            target=run.rate if name == SERVER else None,
            search=tried,
            retries=retries,
        )

    def _search(self, run: LoadGenRun) -> list[TriedRate]:
        preset = self._options.preset

        def valid(rate: float) -> bool:
            folder, _ = self._execute(replace(run, rate=rate, seconds=preset.search_seconds))
            return logs.read_performance(folder).valid

        return search.search(valid, run.rate, preset.precision, preset.search_runs)

    def _execute(self, run: LoadGenRun) -> tuple[Path, int]:
        kind = "accuracy" if run.accuracy else "performance"
        rate = f" at {run.rate:.1f} queries/s" if run.scenario == SERVER else ""
        self._progress(f"{run.scenario}, {kind}{rate}")
        self._runs += 1
        folder = self._folder / f"{self._runs:02}-{run.scenario}-{kind}"
        library = self._options.preset.library
        return folder, loadgen.execute(self._loop, self._system, run, library, folder)

    def _look(self) -> Expected:
        """About what it does: LoadGen wants to know how many queries to make."""
        size, library = self._system.texts_per_call, self._options.preset.library
        seconds = min(_LOOK_SECONDS, self._options.preset.seconds)

        async def times(count: int) -> float:
            """Median seconds of so many texts at once."""
            samples: list[float] = []
            end = time.perf_counter() + seconds / 2
            while time.perf_counter() < end or len(samples) < 3:
                numbers = [(len(samples) * count + n) % library for n in range(count)]
                begin = time.perf_counter()
                await asyncio.gather(
                    *(
                        self._system.ask(numbers[start : start + size])
                        for start in range(0, count, size)
                    )
                )
                samples.append(time.perf_counter() - begin)
            return statistics.median(samples)

        many = 6 * max(size, STREAMS)
        single, multi, bulk = (self._loop.run(times(n)) for n in (1, STREAMS, many))
        return Expected(single / _SLACK, multi / _SLACK, _OFFLINE_SLACK * many / bulk)
