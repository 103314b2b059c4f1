"""A comparison from start to end: models, contestants, proof that they agree, rounds."""

from __future__ import annotations

import itertools
import random
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from bertd.bundle import Task
from bertd_export.quantization.calibration import read_sample
from bertd_server.system import cpu
from numpy.typing import NDArray

from bertd_bench.compare import agreement, interpreters, subjects
from bertd_bench.compare.interpreters import Homes
from bertd_bench.compare.process import PeerError, PeerProcess
from bertd_bench.compare.results import Case, Comparison, ContestantTimes, Subject
from bertd_bench.compare.subjects import CallTexts, PreparedModel
from bertd_bench.contestants.catalogue import PEERS
from bertd_bench.contestants.handling import AS_GIVEN
from bertd_bench.contestants.peer import Peer, Setting
from bertd_bench.contestants.torch_eager import REFERENCE
from bertd_bench.harness import machine, rounds
from bertd_bench.harness.noise import Distance, Noise, NoiseWatch
from bertd_bench.harness.rounds import Schedule, SystemTimes

_TRIES = 3  # timed calls of each way to handle a batch
_PROCESS_BYTES = 450_000_000  # of a contestant besides its weights
_WEIGHT_COPIES = 1.8  # of a checkpoint in a contestant
_CALIBRATION_TEXTS = 100  # for peers that calibrate: of those for bertd's own int8
_MEMORY_SHARE = 0.75  # of what is free


@dataclass(frozen=True, slots=True)
class ComparisonPlan:
    """What is compared; `tries` is of a round that others disturb."""

    models: Sequence[str]
    tasks: Sequence[Task]
    peers: Sequence[Peer]
    lengths: Sequence[int]
    batches: Sequence[int]
    threads: Sequence[int]
    schedule: Schedule
    further: Sequence[str]
    tries: int
    command: str


def compare(plan: ComparisonPlan, progress: Callable[[str], None]) -> Comparison:
    """Compare bertd with its peers.

    Raises:
        PeerError: a model or an interpreter cannot be had, or eager itself fails.
        ExportError: a model cannot be exported.
    """
    here = machine.describe(cpu.usable_threads())  # before our own load shows in it
    found: list[Subject] = []
    with (
        tempfile.TemporaryDirectory(prefix="bertd-bench-") as name,
        Distance(here.affinity or []) as distance,
    ):
        scratch = Path(name)
        wanted = {peer.name: peer for peer in [*plan.peers, PEERS[REFERENCE]]}
        homes = interpreters.find(list(wanted.values()), plan.further, scratch)
        int8 = any(peer.own and peer.precision == "int8" for peer in plan.peers)
        for number, (model, task) in enumerate(itertools.product(plan.models, plan.tasks)):
            folder = scratch / f"model-{number}"
            folder.mkdir()
            ready = subjects.prepare(model, task, folder, progress, int8=int8)
            for threads in plan.threads:
                contest = _Contest(
                    plan, homes, ready, threads, folder, here.load_average[0], distance, progress
                )
                found.append(contest.run())
    return Comparison(
        command=plan.command,
        rounds=plan.schedule.rounds,
        machine=here,
        environments=[home.versions for home in homes.all],
        subjects=found,
    )


def groups(peers: Sequence[Peer], places: int) -> list[list[Peer]]:
    """Peers that fit into memory together; bertd's contestants and eager are in every group."""
    own = [peer for peer in peers if peer.own]
    others = [peer for peer in peers if not peer.own]
    size = max(1, places - len(own) - 1)
    cut = [others[start : start + size] for start in range(0, len(others), size)]
    return [[*own, *each] for each in cut] or [own]


@dataclass(frozen=True, slots=True)
class _Contest:
    """One model, task and number of threads: contestants come, agree, are timed, and go.

    Attributes:
        load: of the machine before the run.
        distance: of the cores, in the whole run.
    """

    plan: ComparisonPlan
    homes: Homes
    model: PreparedModel
    threads: int
    scratch: Path
    load: float
    distance: Distance
    progress: Callable[[str], None]

    def run(self) -> Subject:
        """Put all who can be had through every sample."""
        task = self.model.task
        skipped = dict(self.homes.skipped)
        for peer in self.plan.peers:
            if task not in peer.tasks:
                skipped[peer.name] = f"not for {task}"
            elif peer.own and peer.precision in self.model.lacks:
                skipped[peer.name] = self.model.lacks[peer.precision]
        able = [peer for peer in self.plan.peers if peer.name not in skipped]
        samples = subjects.build_samples(self.model, self.plan.lengths, self.plan.batches)
        cases: list[Case] = []
        each = _PROCESS_BYTES + int(_WEIGHT_COPIES * self.model.weight_bytes)
        places = int(_MEMORY_SHARE * psutil.virtual_memory().available) // each
        for group in groups(able, places):
            cases += self._group(group, samples, skipped)
        return Subject(
            model=self.model.name, task=task, threads=self.threads, skipped=skipped, cases=cases
        )

    def _group(
        self, peers: Sequence[Peer], samples: Sequence[CallTexts], skipped: dict[str, str]
    ) -> list[Case]:
        """Start contestants, put them through every sample, and end them."""
        setting = Setting(
            checkpoint=str(self.model.checkpoint),
            task=self.model.task,
            threads=self.threads,
            scratch=str(self.scratch),
            bundles=self.model.bundles,
            calibration=tuple(read_sample(None).calibrate[:_CALIBRATION_TEXTS]),
        )
        with ExitStack() as stack:
            reference = stack.enter_context(self._start(PEERS[REFERENCE], setting))
            systems: list[PeerProcess] = []
            for peer in peers:
                if peer.name == REFERENCE:
                    systems.append(reference)
                    continue
                self.progress(f"preparing {peer.name}")
                try:
                    systems.append(stack.enter_context(self._start(peer, setting)))
                except PeerError as error:
                    skipped[peer.name] = str(error)
            for system in {id(each): each for each in [reference, *systems]}.values():
                with system.awake():
                    for index, sample in enumerate(samples):
                        system.ask("load", index=index, texts=sample.texts, lengths=sample.lengths)
            return [
                self._case(reference, systems, index, sample)
                for index, sample in enumerate(samples)
            ]

    def _start(self, peer: Peer, setting: Setting) -> PeerProcess:
        home = self.homes.of_peer.get(peer.name)
        if home is None:
            raise PeerError(self.homes.skipped[peer.name])
        process = PeerProcess(peer, home.interpreter, setting.threads, self.scratch)
        try:
            process.ask("build", peer=peer.name, setting=setting.as_json())
        except PeerError:
            process.close()
            raise
        process.rest()
        return process

    def _case(
        self, reference: PeerProcess, systems: Sequence[PeerProcess], index: int, sample: CallTexts
    ) -> Case:
        """Prove agreement, choose each one's way with the batch, then time all in turns."""
        self.progress(f"timing {sample.name}")
        with reference.awake():
            expected = reference.answers(index)
        refused: dict[str, str] = {}
        judged: dict[str, tuple[agreement.Closeness, dict[str, float]]] = {}
        for system in systems:
            try:
                with system.awake():
                    judged[system.name] = _judge(system, index, expected)
            except PeerError as error:
                refused[system.name] = str(error)
        ready = [system for system in systems if system.name in judged]
        ready, measured, noise = self._timed(ready, index, refused)
        rows = []
        for system, seen in zip(ready, measured, strict=True):
            closeness, tried = judged[system.name]
            rows.append(
                ContestantTimes(
                    precision=system.peer.precision,
                    own=system.peer.own,
                    environment=self.homes.of_peer[system.name].number,
                    handling=system.handling[index],
                    tried=tried,
                    difference=closeness.difference,
                    cosine=closeness.cosine,
                    measured=seen,
                )
            )
        lengths = list(sample.lengths)
        return Case(name=sample.name, lengths=lengths, rows=rows, refused=refused, noise=noise)

    def _timed(
        self, systems: Sequence[PeerProcess], index: int, refused: dict[str, str]
    ) -> tuple[list[PeerProcess], list[SystemTimes], Noise]:
        """Rounds of all; if the process of one ends in them, all of the others anew."""
        cores = machine.describe(1).affinity or [0]
        alone = all(system.threads == 1 for system in systems)  # no thread waits for another
        ready = list(systems)
        while True:
            distance = None if alone else self.distance
            with NoiseWatch(cores, self.load, distance, self.plan.tries) as watch:
                rng = random.Random(0)  # noqa: S311 - the order of turns is no secret
                try:
                    times = rounds.run(ready, index, self.plan.schedule, rng, watch=watch)
                except PeerError as error:
                    ended = [system for system in ready if not system.alive]
                    if not ended:
                        raise
                    refused |= {system.name: str(error) for system in ended}
                    ready = [system for system in ready if system not in ended]
                else:
                    return ready, times, watch.noise()


def _judge(
    system: PeerProcess, index: int, expected: Sequence[NDArray[np.float32]]
) -> tuple[agreement.Closeness, dict[str, float]]:
    """Closeness with eager as given and in the way that is fastest, and times of all ways.

    Raises:
        PeerError: it computes something else, or fails.
    """
    agreement.check(agreement.agreement(system.answers(index), expected), system.peer.precision)
    tried = system.choose(index, _TRIES)
    handling = system.handling.get(index, AS_GIVEN)
    seen = agreement.agreement(system.answers(index, handling), expected)
    agreement.check(seen, system.peer.precision)
    return seen, tried
