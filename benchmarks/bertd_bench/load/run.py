"""`bertd bench load`: every contestant in turn climbs its ramp, in rounds.

::

    start all, prove that they agree ──> round 1: A climbs, C climbs, B climbs ──> round 2 …
                                         others are stopped meanwhile
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bertd import bundle
from bertd_server.system import cpu

from bertd_bench.compare.interpreters import USUAL
from bertd_bench.compare.process import PeerError
from bertd_bench.contestants import eager as contestants
from bertd_bench.harness import machine
from bertd_bench.harness.noise import Noise, Watch
from bertd_bench.load import client, processes, ramp, traffic
from bertd_bench.load.asker import Asker, distance
from bertd_bench.load.processes import EAGER, Contestant, ContestantServer, ServerInputs
from bertd_bench.load.ramp import RampSchedule
from bertd_bench.load.results import ContestantRamps, GoodputReport, Ramp

_TEXTS = 4_096  # more than are ever in flight
_AGREE = 16  # texts on which all must agree: each length of the mix once
_TOLERANCE = 1e-4
_WARM_SECONDS = 0.5
_PROBE_SECONDS = 2.0
_AGAIN = (0.8, 1.12)  # later rounds: first rate, of the one that held; and the factor
_BEHIND = 0.9  # ways of eager below this share of its best leave after the first round


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """Of one run.

    Attributes:
        model: a checkpoint; None for all-MiniLM-L6-v2.
        contestants: who takes part.
        threads: of each; None for all.
        objective: seconds.
        seconds: length of a step.
        rounds: ramps of each contestant.
        steps: of a ramp, at most.
        settings: of bertd's front end, for all that are behind it.
        pythons: interpreters that may have Infinity.
        command: what makes it again.
    """

    model: str | None
    contestants: Sequence[Contestant]
    threads: int | None
    objective: float
    seconds: float
    rounds: int
    steps: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    pythons: Sequence[str] = ()
    command: str = ""


def measure(options: LoadOptions, progress: Callable[[str], None]) -> GoodputReport:
    """Measure all contestants.

    Raises:
        BenchError: there is no default model here.
        PeerError: a contestant that had started answers nothing more.
    """
    threads = options.threads or cpu.usable_threads()
    here = machine.describe(cpu.usable_threads())
    with ExitStack() as stack:
        subject = stack.enter_context(contestants.open_subject(options.model))
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bertd-bench-")))
        watch = stack.enter_context(Watch(here.affinity or [0], here.load_average[0]))
        manifest = bundle.read_manifest(subject.bundle)
        texts = traffic.texts_for(subject.bundle, _TEXTS)
        contest = _Contest(options, texts, stack.enter_context(client.process_pool()))
        given = ServerInputs(
            subject.checkpoint, str(subject.bundle), threads, scratch, options.settings
        )
        expected = contestants.eager(subject.checkpoint, threads)(texts[:_AGREE])
        for contestant in options.contestants:
            progress(f"starting {contestant.name}")
            try:
                interpreter = _interpreter(contestant, options, scratch)
                running = processes.start(contestant, given, interpreter)
                stack.callback(running.close)
                contest.join(running, expected)
            except PeerError as error:
                contest.skipped[contestant.name] = str(error)
        noise = contest.rounds(watch, progress)
    return GoodputReport(
        command=options.command,
        model=manifest.name,
        threads=threads,
        mean_tokens=traffic.MEAN_TOKENS,
        objective=options.objective,
        seconds=options.seconds,
        machine=here,
        noise=noise,
        entries=contest.entries(),
        skipped=contest.skipped,
    )


class _Contest:
    """All that run, and what they have shown so far."""

    def __init__(self, options: LoadOptions, texts: Sequence[str], pool: Executor) -> None:
        self._options, self._texts, self._pool = options, texts, pool
        self._askers: list[Asker] = []
        self._differences: dict[str, float] = {}
        self._ramps: dict[str, list[Ramp]] = {}
        self.skipped: dict[str, str] = {}

    def join(self, running: ContestantServer, expected: Any) -> None:
        """Take one in, if it computes the same.

        Raises:
            PeerError: it does not.
        """
        options = self._options
        asker = Asker(running, self._pool, self._texts, options.objective, options.seconds)
        with running.awake():
            apart = distance(asker.vectors(len(expected)), expected)
        if not apart <= _TOLERANCE:
            raise PeerError(f"its vectors differ from eager's by {apart:.1e}")
        self._differences[running.contestant.name] = apart
        self._askers.append(asker)

    def rounds(self, watch: Watch, progress: Callable[[str], None]) -> Noise:
        """All rounds; gives what was seen of others meanwhile."""
        shuffle = random.Random(0)  # noqa: S311 - the order of turns
        for number in range(self._options.rounds):
            watch.calibrate()
            for asker in shuffle.sample(self._askers, len(self._askers)):
                name = asker.server.contestant.name
                with asker.server.awake():
                    found = self._climb(asker, number)
                self._ramps.setdefault(name, []).append(found)
                rate = ramp.held(found.steps, self._options.objective)
                progress(f"round {number + 1}: {name} takes {rate:.0f} requests a second")
            if number == 0:
                self._leave()
        watch.calibrate()
        return watch.noise()

    def _climb(self, asker: Asker, number: int) -> Ramp:
        options = self._options
        plan = RampSchedule(options.objective, most=options.steps)
        asker.capacity(min(_WARM_SECONDS, options.seconds))
        before = self._ramps.get(asker.server.contestant.name)
        capacity = before and ramp.held(before[-1].steps, options.objective)
        if capacity:
            plan = RampSchedule(options.objective, *_AGAIN, most=options.steps)
        else:
            capacity = asker.capacity(min(_PROBE_SECONDS, options.seconds))
        seeds = iter(range(1000 * number, 1000 * (number + 1)))
        steps = ramp.climb(lambda rate: asker.hold(rate, next(seeds)), capacity, plan)
        return Ramp(round=number, capacity=capacity, steps=steps)

    def _leave(self) -> None:
        """Ways of eager that are clearly behind its best spend no more time."""
        objective = self._options.objective
        rates = {
            name: ramp.held(ramps[0].steps, objective)
            for name, ramps in self._ramps.items()
            if name.startswith(EAGER)
        }
        least = _BEHIND * max(rates.values(), default=0.0)
        self._askers = [
            asker
            for asker in self._askers
            if rates.get(asker.server.contestant.name, least) >= least
        ]

    def entries(self) -> list[ContestantRamps]:
        """What each has shown, in the order of the contestants."""
        return [
            ContestantRamps(
                name=each.name,
                what=each.what,
                difference=self._differences[each.name],
                ramps=self._ramps[each.name],
            )
            for each in self._options.contestants
            if each.name in self._ramps
        ]


def _interpreter(contestant: Contestant, options: LoadOptions, scratch: Path) -> str:
    usual = [str(path) for path in sorted(Path.cwd().glob(USUAL))]
    if contestant.kind != "http":
        return sys.executable
    return processes.infinity_interpreter(options.pythons or usual, scratch)
