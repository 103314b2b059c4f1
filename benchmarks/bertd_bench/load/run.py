"""`bertd bench load`: every contestant in turn climbs its ramp, in rounds.

::

    start all, prove that they agree ──> round 1: A climbs, C climbs, B climbs ──> round 2 …
                                         others are stopped meanwhile
"""

from __future__ import annotations

import contextlib
import random
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bertd import bundle
from bertd_server.system import cpu
from tokenizers import Tokenizer

from bertd_bench.compare.interpreters import USUAL
from bertd_bench.compare.process import PeerError
from bertd_bench.contestants import eager as contestants
from bertd_bench.harness import machine
from bertd_bench.harness.noise import Noise, Watch
from bertd_bench.load import asking, client, mix, processes, ramp
from bertd_bench.load.asking import Asker
from bertd_bench.load.bare import seeded
from bertd_bench.load.processes import EAGER, Contestant, Given, Running
from bertd_bench.load.results import Entry, GoodputReport, Ramp

_TEXTS = 4_096  # more than are ever in flight
_AGREE = 16  # texts on which all must agree: each length of the mix once
_TOLERANCE = 1e-4
_WARM_SECONDS = 0.5
_PROBE_SECONDS = 2.0
_AGAIN = (0.8, 1.12)  # later rounds: first rate, of the one that held; and the factor
_BEHIND = 0.9  # ways of eager below this share of its best leave after the first round

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Choices:
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


def measure(choices: Choices, progress: Say) -> GoodputReport:
    """Measure all contestants.

    Raises:
        BenchError: there is no default model here.
        PeerError: bertd does not start, or nobody agrees with eager.
    """
    threads = choices.threads or cpu.usable_threads()
    here = machine.describe(cpu.usable_threads())
    with ExitStack() as stack:
        subject = stack.enter_context(contestants.open_subject(choices.model))
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bertd-bench-")))
        watch = stack.enter_context(Watch(here.affinity or [0], here.load_average[0]))
        manifest = bundle.read_manifest(subject.bundle)
        texts = _texts(subject.bundle)
        field_ = _Field(choices, texts, stack.enter_context(client.process_pool()))
        given = Given(subject.checkpoint, str(subject.bundle), threads, scratch, choices.settings)
        expected = contestants.eager(subject.checkpoint, threads)(texts[:_AGREE])
        for contestant in choices.contestants:
            progress(f"starting {contestant.name}")
            with field_.joining(contestant):
                running = processes.start(
                    contestant, given, _interpreter(contestant, choices, scratch)
                )
                stack.callback(running.close)
                field_.join(running, expected)
        noise = field_.rounds(watch, progress)
    return GoodputReport(
        command=choices.command,
        model=manifest.name,
        threads=threads,
        mean_tokens=mix.MEAN_TOKENS,
        objective=choices.objective,
        seconds=choices.seconds,
        machine=here,
        noise=noise,
        entries=field_.entries(),
        skipped=field_.skipped,
    )


class _Field:
    """All that run, and what they have shown so far."""

    def __init__(self, choices: Choices, texts: Sequence[str], pool: Executor) -> None:
        self._choices, self._texts, self._pool = choices, texts, pool
        self._askers: list[Asker] = []
        self._differences: dict[str, float] = {}
        self._ramps: dict[str, list[Ramp]] = {}
        self.skipped: dict[str, str] = {}

    @contextlib.contextmanager
    def joining(self, contestant: Contestant) -> Iterator[None]:
        """Whoever cannot take part is skipped, with the reason."""
        try:
            yield
        except PeerError as error:
            self.skipped[contestant.name] = str(error)

    def join(self, running: Running, expected: Any) -> None:
        """Take one in, if it computes the same.

        Raises:
            PeerError: it does not.
        """
        choices = self._choices
        asker = Asker(running, self._pool, self._texts, choices.objective, choices.seconds)
        with running.awake():
            distance = asking.distance(asker.vectors(len(expected)), expected)
        if not distance <= _TOLERANCE:
            raise PeerError(f"its vectors differ from eager's by {distance:.1e}")
        self._differences[running.contestant.name] = distance
        self._askers.append(asker)

    def rounds(self, watch: Watch, progress: Say) -> Noise:
        """All rounds; gives what was seen of others meanwhile."""
        shuffle = random.Random(0)  # noqa: S311 - the order of turns
        for number in range(self._choices.rounds):
            watch.calibrate()
            for asker in shuffle.sample(self._askers, len(self._askers)):
                name = asker.server.contestant.name
                with asker.server.awake():
                    found = self._climb(asker, number)
                self._ramps.setdefault(name, []).append(found)
                rate = ramp.held(found.steps, self._choices.objective)
                progress(f"round {number + 1}: {name} takes {rate:.0f} requests a second")
            if number == 0:
                self._leave()
        watch.calibrate()
        return watch.noise()

    def _climb(self, asker: Asker, number: int) -> Ramp:
        choices = self._choices
        plan = ramp.Plan(choices.objective, most=choices.steps)
        asker.capacity(min(_WARM_SECONDS, choices.seconds))
        before = self._ramps.get(asker.server.contestant.name)
        capacity = before and ramp.held(before[-1].steps, choices.objective)
        if capacity:
            plan = ramp.Plan(choices.objective, *_AGAIN, most=choices.steps)
        else:
            capacity = asker.capacity(min(_PROBE_SECONDS, choices.seconds))
        seeds = iter(range(1000 * number, 1000 * (number + 1)))
        steps = ramp.climb(lambda rate: asker.hold(rate, next(seeds)), capacity, plan)
        return Ramp(round=number, capacity=capacity, steps=steps)

    def _leave(self) -> None:
        """Ways of eager that are clearly behind its best spend no more time."""
        objective = self._choices.objective
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

    def entries(self) -> list[Entry]:
        """What each has shown, in the order of the contestants."""
        return [
            Entry(
                name=each.name,
                what=each.what,
                difference=self._differences[each.name],
                ramps=self._ramps[each.name],
            )
            for each in self._choices.contestants
            if each.name in self._ramps
        ]


def _interpreter(contestant: Contestant, choices: Choices, scratch: Path) -> str:
    usual = [str(path) for path in sorted(Path.cwd().glob(USUAL))]
    if contestant.kind != "http":
        return sys.executable
    return processes.infinity_interpreter(choices.pythons or usual, scratch)


def _texts(folder: Path) -> list[str]:
    tokenizer = Tokenizer.from_file(str(folder / bundle.TOKENIZER_NAME))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return mix.build_texts(tokenizer, _TEXTS, seeded(0))
