"""`bertd bench load`: every contestant in turn climbs its ramp, in rounds.

::

    start all, prove that they agree ──> round 1: A climbs, C climbs, B climbs ──> round 2 …
                                         others are stopped meanwhile
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bertd import bundle
from bertd_server.system import cpu
from numpy.typing import NDArray

from bertd_bench.compare.process import PeerError
from bertd_bench.contestants import eager as contestants
from bertd_bench.harness import machine
from bertd_bench.harness.noise import NoiseWatch
from bertd_bench.load import client, ramp, traffic
from bertd_bench.load.client import Asker
from bertd_bench.load.contestants import Contestant, ServerInputs
from bertd_bench.load.ramp import RampSchedule
from bertd_bench.load.results import ContestantRamps, GoodputReport, Ramp
from bertd_bench.load.spawned import spawn

_TEXTS = 4_096  # more than are ever in flight
_AGREE = 16  # texts on which all must agree: each length of the mix once
_WARM_SECONDS = 0.5
_PROBE_SECONDS = 2.0
_AGAIN = (0.8, 1.12)  # later rounds: first rate, of the one that held; and the factor


@dataclass(frozen=True, slots=True)
class RampOptions:
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
    command: str = ""


def measure(options: RampOptions, progress: Callable[[str], None]) -> GoodputReport:
    """Measure all contestants; who does not start, or computes something else, is skipped.

    Raises:
        BenchError: there is no default model here.
        PeerError: a contestant that had started answers nothing more.
    """
    threads = options.threads or cpu.usable_threads()
    here = machine.describe(cpu.usable_threads())
    found: dict[str, ContestantRamps] = {}
    askers: dict[str, Asker] = {}
    skipped: dict[str, str] = {}
    with ExitStack() as stack:
        subject = stack.enter_context(contestants.open_subject(options.model))
        watch = stack.enter_context(NoiseWatch(here.affinity or [0], here.load_average[0]))
        texts = traffic.texts_for(subject.bundle, _TEXTS)
        pool = stack.enter_context(client.process_pool())
        checkpoint = Path(subject.checkpoint)
        given = ServerInputs(checkpoint, subject.bundle, threads, dict(options.settings))
        expected = contestants.eager(subject.checkpoint, threads)(texts[:_AGREE])
        for each in options.contestants:
            progress(f"starting {each.name}")
            try:
                server = spawn(each.target, given, threads=threads)
                stack.callback(server.close)
                asker = Asker(server, pool, texts, options.objective, options.seconds)
                with server.awake():
                    apart = _checked(asker, expected)
            except PeerError as error:
                skipped[each.name] = str(error)
                continue
            askers[each.name] = asker
            found[each.name] = ContestantRamps(
                name=each.name, what=each.what, difference=apart, ramps=[]
            )
        shuffle = random.Random(0)  # noqa: S311 - the order of turns
        for number in range(options.rounds):
            watch.calibrate()
            for name in shuffle.sample(list(askers), len(askers)):
                with askers[name].server.awake():
                    climbed = _climb(askers[name], options, found[name].ramps)
                found[name].ramps.append(climbed)
                rate = ramp.held(climbed.steps, options.objective)
                progress(f"round {number + 1}: {name} takes {rate:.0f} requests a second")
        watch.calibrate()
        return GoodputReport(
            command=options.command,
            model=bundle.read_manifest(subject.bundle).name,
            threads=threads,
            mean_tokens=traffic.MEAN_TOKENS,
            objective=options.objective,
            seconds=options.seconds,
            machine=here,
            noise=watch.noise(),
            entries=list(found.values()),
            skipped=skipped,
        )


def _checked(asker: Asker, expected: NDArray[Any]) -> float:
    """How far its vectors are from eager's: float32 `[texts, dimensions]`.

    Raises:
        PeerError: too far.
    """
    apart = contestants.distance(asker.vectors(len(expected)), expected)
    if not apart <= contestants.TOLERANCE:
        raise PeerError(f"its vectors differ from eager's by {apart:.1e}")
    return apart


def _climb(asker: Asker, options: RampOptions, before: Sequence[Ramp]) -> Ramp:
    """The next ramp: a later one sets out near the rate that held before."""
    asker.capacity(min(_WARM_SECONDS, options.seconds))
    schedule = RampSchedule(options.objective, most=options.steps)
    capacity = ramp.held(before[-1].steps, options.objective) if before else 0.0
    if capacity:
        schedule = RampSchedule(options.objective, *_AGAIN, most=options.steps)
    else:
        capacity = asker.capacity(min(_PROBE_SECONDS, options.seconds))
    number = len(before)
    seeds = iter(range(1000 * number, 1000 * (number + 1)))
    steps = ramp.climb(lambda rate: asker.hold(rate, next(seeds)), capacity, schedule)
    return Ramp(round=number, capacity=capacity, steps=steps)
