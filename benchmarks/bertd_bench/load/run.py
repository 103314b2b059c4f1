"""`bertd bench load`: every server in turn climbs its ramp, in rounds.

::

    sweep: each setting a short ramp ──> start all with their best, prove that they agree
      ──> round 1: A climbs, C climbs, B climbs ──> round 2 …      others are stopped meanwhile
          a turn in which others were at work is dropped, and taken again
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from bertd.bundle.arrays import Float32Array
from bertd_server.system import cpu

from bertd_bench.compare import agreement, interpreters, subjects
from bertd_bench.compare.process import PeerError, PeerProcess
from bertd_bench.compare.subjects import PreparedModel
from bertd_bench.contestants import eager as contestants
from bertd_bench.contestants import onnx_runtime
from bertd_bench.contestants.catalogue import PEERS
from bertd_bench.contestants.hosted import free_port
from bertd_bench.contestants.peer import EMBED, Setting
from bertd_bench.harness import machine
from bertd_bench.harness.noise import NoiseWatch
from bertd_bench.load import client, outside, ramp, served, traffic
from bertd_bench.load.client import Asker
from bertd_bench.load.generator import Open
from bertd_bench.load.outside import OutsideCheck
from bertd_bench.load.ramp import RampSchedule
from bertd_bench.load.results import ContestantRamps, GoodputReport, Ramp
from bertd_bench.load.servers import OURS, ServerChoice, ServerInputs, ServerKind

_TEXTS = 4_096  # more than are ever in flight
_AGREE = 16  # texts on which all must agree: each length of the mix once
_WARM_SECONDS = 0.5
_PROBE_SECONDS = 2.0
_AGAIN = (0.8, 1.12)  # later rounds: first rate, of the one that held; and the factor
_SWEEP_STEPS = 6
_LIGHT = 0.1  # of the rate that held
_OUTSIDE = 0.5  # likewise
_GRAPHS = {"fp32": "ONNX Runtime, fused", "int8": "ONNX Runtime int8"}  # whose graphs servers run


@dataclass(frozen=True, slots=True)
class RampOptions:
    """Of one run.

    Attributes:
        model: see :mod:`bertd_bench.compare.subjects`.
        servers: who takes part.
        peers: folder of their environments.
        threads: of each; None for all.
        objective: seconds.
        seconds: length of a step.
        rounds: ramps of each server.
        steps: of a ramp, at most.
        sweep: whether settings are tried first.
        outside: whether another load generator repeats a rate.
        tries: of a turn that others disturb.
        settings: of `bertd serve`.
        command: what makes it again.
    """

    model: str
    servers: Sequence[ServerKind]
    peers: Path
    threads: int | None
    objective: float
    seconds: float
    rounds: int
    steps: int
    sweep: bool = False
    outside: bool = False
    tries: int = 1
    settings: Mapping[str, str] = field(default_factory=dict)
    command: str = ""


def measure(options: RampOptions, progress: Callable[[str], None]) -> GoodputReport:
    """Measure all servers; who does not start, or computes something else, is skipped.

    Raises:
        PeerError: the model cannot be had, or a server that had started answers nothing more.
        ExportError: the model cannot be exported.
    """
    threads = options.threads or cpu.usable_threads()
    here = machine.describe(cpu.usable_threads())
    int8 = any(each.precision == "int8" for each in options.servers)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bertd-bench-")))
        watch = stack.enter_context(
            NoiseWatch(here.affinity or [0], here.load_average[0], tries=options.tries)
        )
        (scratch / "model").mkdir()
        model = subjects.prepare(
            options.model, "feature-extraction", scratch / "model", progress, int8=int8
        )
        field_ = _Field(options, model, scratch, threads, watch, progress, stack)
        field_.start_all()
        return GoodputReport(
            command=options.command,
            model=model.name,
            threads=threads,
            mean_tokens=traffic.MEAN_TOKENS,
            objective=options.objective,
            seconds=options.seconds,
            machine=here,
            entries=field_.climbed(),
            skipped=field_.skipped,
            outside=field_.repeated() if options.outside else None,
            noise=watch.noise(),
        )


class _Field:
    """The servers of one run."""

    def __init__(  # noqa: PLR0913, PLR0917 - what a run is made of
        self,
        options: RampOptions,
        model: PreparedModel,
        scratch: Path,
        threads: int,
        watch: NoiseWatch,
        progress: Callable[[str], None],
        stack: ExitStack,
    ) -> None:
        self._options, self._model, self._scratch = options, model, scratch
        self._threads, self._watch, self._progress, self._stack = threads, watch, progress, stack
        self._pool = stack.enter_context(client.process_pool())
        self._texts = traffic.texts_for(Path(model.bundles["fp32"]), _TEXTS)
        self._expected = contestants.eager(str(model.checkpoint), threads)(self._texts[:_AGREE])
        self._graphs: dict[str, Path] = {}
        self._askers: dict[str, Asker] = {}
        self._entries: dict[str, ContestantRamps] = {}
        self.skipped: dict[str, str] = {}

    def start_all(self) -> None:
        """Sweep, start and prove each; who cannot is skipped."""
        for kind in self._options.servers:
            versions = kind.versions(self._options.peers)
            if not versions:
                self.skipped[kind.name] = kind.missing
                continue
            try:
                best, swept = self._best(kind)
                self._progress(f"starting {kind.name}{(best and f', {best}') or ''}")
                asker, entry = self._started(kind, best, self._stack)
            except PeerError as error:
                self.skipped[kind.name] = str(error)
                continue
            self._askers[kind.name] = asker
            self._entries[kind.name] = entry.model_copy(
                update={"versions": versions, "setting": str(best or ""), "swept": swept}
            )

    def climbed(self) -> list[ContestantRamps]:
        """All rounds of all; gives what each has shown."""
        shuffle = random.Random(0)  # noqa: S311 - the order of turns
        for number in range(self._options.rounds):
            self._watch.calibrate()
            for name in shuffle.sample(list(self._askers), len(self._askers)):
                asker, entry = self._askers[name], self._entries[name]
                with asker.server.awake():
                    climbed = self._watch.undisturbed(
                        lambda asker=asker, entry=entry: self._climb(asker, entry.ramps)  # type: ignore[misc]
                    )
                    memory = asker.server.memory_bytes()
                entry.ramps.append(climbed)
                entry.memory_bytes.append(memory)
                rate = ramp.held(climbed.steps, self._options.objective)
                self._progress(f"round {number + 1}: {name} takes {rate:.0f} requests a second")
        self._watch.calibrate()
        return list(self._entries.values())

    def repeated(self) -> OutsideCheck | None:
        """Half of bertd's rate by h2load and by ourselves; None if it is not installed."""
        tool, asker = outside.version(), self._askers.get(OURS)
        if not tool or asker is None:
            self._progress("h2load is not installed (package nghttp2-client): nobody checks ours")
            return None
        rate = _OUTSIDE * self._entries[OURS].rate(self._options.objective)
        if not rate:
            self._progress("bertd held no rate that h2load could repeat")
            return None
        seconds, protocol = 2 * self._options.seconds, asker.server.kind.protocol
        bodies = [protocol.request(text) for text in self._texts[:_AGREE]]
        url = f"http://{asker.server.address}{protocol.target}"
        with asker.server.awake():
            [answer] = asker.raw(Open((0.0,), (60.0,)))
            theirs = outside.put(url, bodies, rate, seconds, len(answer))
            ours = replace(asker, seconds=seconds).hold(rate, seed=0)
        return OutsideCheck(tool=tool, server=OURS, theirs=theirs, ours=ours)

    def _best(self, kind: ServerKind) -> tuple[ServerChoice | None, dict[str, float]]:
        """The setting that takes the highest rate, and what each took."""
        if not kind.choices or not self._options.sweep:
            return (kind.choices[0] if kind.choices else None), {}
        tried: dict[ServerChoice, float] = {}
        errors = []
        for choice in kind.choices:
            self._progress(f"{kind.name}: {choice}")
            with ExitStack() as stack:
                try:
                    asker, _ = self._started(kind, choice, stack)
                    brief = replace(asker, seconds=self._options.seconds / 2)
                    capacity = brief.capacity(min(_PROBE_SECONDS, self._options.seconds))
                    plan = RampSchedule(self._options.objective, precision=0.1, most=_SWEEP_STEPS)
                    steps = ramp.climb(lambda rate, b=brief: b.hold(rate, 0), capacity, plan)  # type: ignore[misc]
                    tried[choice] = ramp.held(steps, self._options.objective)
                except PeerError as error:
                    errors.append(str(error))
        if not tried:
            raise PeerError(errors[0])
        best = max(tried, key=tried.__getitem__)
        return best, {str(choice): rate for choice, rate in tried.items()}

    def _started(
        self, kind: ServerKind, choice: ServerChoice | None, stack: ExitStack
    ) -> tuple[Asker, ContestantRamps]:
        """A server that runs and agrees, at rest; PeerError if it does not."""
        if kind.precision in self._model.lacks:
            raise PeerError(self._model.lacks[kind.precision])
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=self._scratch)))
        given = ServerInputs(
            checkpoint=self._model.checkpoint,
            bundle=Path(self._model.bundles[kind.precision]),
            graph=self._graph(kind.precision) if kind.exports else None,
            threads=self._threads,
            port=free_port(),
            scratch=home,
            python=kind.python(self._options.peers),
            choice=choice,
            settings=self._options.settings,
        )
        server = served.start(kind, given)
        stack.callback(server.close)
        asker = Asker(
            server, self._pool, self._texts, self._options.objective, self._options.seconds
        )
        cold = server.wait_for(asker.failure)
        with server.awake():
            seen = _checked(asker, self._expected, kind.precision)
        entry = ContestantRamps(
            name=kind.name,
            what=kind.what,
            precision=kind.precision,
            difference=seen.difference,
            cosine=seen.cosine,
            cold_start_seconds=cold,
            memory_bytes=[],
            ramps=[],
        )
        return asker, entry

    def _graph(self, precision: str) -> Path:
        """As optimum exports it, fused by ONNX Runtime, or its dynamic int8."""
        if precision not in self._graphs:
            peer = PEERS[_GRAPHS[precision]]
            setting = Setting(str(self._model.checkpoint), EMBED, 1, str(self._scratch))
            pythons = [str(each) for each in self._options.peers.glob("*/bin/python")]
            home = interpreters.find([peer], pythons, self._scratch).of_peer.get(peer.name)
            if home is None:
                raise PeerError("optimum, which exports its graph: `make peers PEERS=optimum`")
            with PeerProcess(peer, home.interpreter, 1, self._scratch) as process:
                process.ask("build", peer=peer.name, setting=setting.as_json())
            fused = precision == "fp32"
            self._graphs[precision] = (onnx_runtime.fused if fused else onnx_runtime.quantized)(
                setting
            )
        return self._graphs[precision]

    def _climb(self, asker: Asker, before: Sequence[Ramp]) -> Ramp:
        """The next ramp: a later one sets out near the rate that held before."""
        options = self._options
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
        held = ramp.held(steps, options.objective)
        light = asker.hold(_LIGHT * held, next(seeds)) if held else None
        return Ramp(round=number, capacity=capacity, steps=steps, light=light)


def _checked(asker: Asker, expected: Float32Array, precision: str) -> agreement.Closeness:
    """How near its vectors are to eager's, `[texts, dimensions]`; PeerError if too far."""
    seen = agreement.of_directions(asker.vectors(len(expected)), expected)
    agreement.check(seen, precision)
    return seen
