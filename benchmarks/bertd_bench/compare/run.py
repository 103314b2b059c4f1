"""A comparison from start to end: models, contestants, proof that they agree, rounds."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from bertd.bundle import Task
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
from bertd_bench.harness.noise import Distance, Noise, Watch
from bertd_bench.harness.rounds import Schedule, SystemTimes

_TRIES = 3  # timed calls of each way to handle a batch
_PROCESS_BYTES = 450_000_000  # of a contestant besides its weights
_WEIGHT_COPIES = 1.8  # of a checkpoint in a contestant
_MEMORY_SHARE = 0.75  # of what is free


@dataclass(frozen=True, slots=True)
class ComparisonPlan:
    """What is compared."""

    models: Sequence[str]
    tasks: Sequence[Task]
    peers: Sequence[Peer]
    lengths: Sequence[int]
    batches: Sequence[int]
    mixed: bool
    threads: Sequence[int]
    schedule: Schedule
    further: Sequence[str]
    command: str


@dataclass(frozen=True, slots=True)
class _Run:
    """What all parts of a run share."""

    plan: ComparisonPlan
    homes: Homes
    scratch: Path
    load: float
    distance: Distance
    progress: Callable[[str], None]


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
        for number, (model, task) in enumerate(
            (model, task) for model in plan.models for task in plan.tasks
        ):
            folder = scratch / f"model-{number}"
            folder.mkdir()
            int8 = any(peer.own and peer.precision == "int8" for peer in plan.peers)
            ready = subjects.prepare(model, task, folder, progress, int8=int8)
            run = _Run(plan, homes, folder, here.load_average[0], distance, progress)
            found += [_subject(run, ready, threads) for threads in plan.threads]
    return Comparison(
        command=plan.command,
        rounds=plan.schedule.rounds,
        machine=here,
        environments=[home.versions for home in homes.all],
        subjects=found,
    )


def _subject(run: _Run, model: PreparedModel, threads: int) -> Subject:
    skipped = dict(run.homes.skipped)
    for peer in run.plan.peers:
        if model.task not in peer.tasks:
            skipped[peer.name] = f"not for {model.task}"
        elif peer.own and peer.precision in model.lacks:
            skipped[peer.name] = model.lacks[peer.precision]
    able = [peer for peer in run.plan.peers if peer.name not in skipped]
    samples = subjects.build_samples(
        model, run.plan.lengths, run.plan.batches, mixed=run.plan.mixed
    )
    cases: list[Case] = []
    for group in groups(able, _places(model)):
        cases += _group(run, model, threads, group, samples, skipped)
    return Subject(model=model.name, task=model.task, threads=threads, skipped=skipped, cases=cases)


def _places(model: PreparedModel) -> int:
    """How many contestants fit into memory at once."""
    each = _PROCESS_BYTES + int(_WEIGHT_COPIES * model.weight_bytes)
    return int(_MEMORY_SHARE * psutil.virtual_memory().available) // each


def groups(peers: Sequence[Peer], places: int) -> list[list[Peer]]:
    """Peers that fit into memory together; bertd's contestants and eager are in every group."""
    own = [peer for peer in peers if peer.own]
    others = [peer for peer in peers if not peer.own]
    size = max(1, places - len(own) - 1)
    cut = [others[start : start + size] for start in range(0, len(others), size)]
    return [[*own, *each] for each in cut] or [own]


def _group(  # noqa: PLR0913, PLR0917 - internal
    run: _Run,
    model: PreparedModel,
    threads: int,
    peers: Sequence[Peer],
    samples: Sequence[CallTexts],
    skipped: dict[str, str],
) -> list[Case]:
    """Start contestants, put them through every sample, and end them."""
    setting = Setting(
        checkpoint=str(model.checkpoint),
        task=model.task,
        threads=threads,
        scratch=str(run.scratch),
        bundles=model.bundles,
        calibration=subjects.calibration(),
    )
    with ExitStack() as stack:
        reference = stack.enter_context(_start(run, PEERS[REFERENCE], setting))
        systems: list[PeerProcess] = []
        for peer in peers:
            if peer.name == REFERENCE:
                systems.append(reference)
                continue
            run.progress(f"preparing {peer.name}")
            try:
                systems.append(stack.enter_context(_start(run, peer, setting)))
            except PeerError as error:
                skipped[peer.name] = str(error)

        for system in {id(each): each for each in [reference, *systems]}.values():
            with system.awake():
                for index, sample in enumerate(samples):
                    system.load(index, sample.texts, sample.lengths)
        return [
            _case(run, reference, systems, index, sample) for index, sample in enumerate(samples)
        ]


def _start(run: _Run, peer: Peer, setting: Setting) -> PeerProcess:
    home = run.homes.of_peer.get(peer.name)
    if home is None:
        raise PeerError(run.homes.skipped[peer.name])
    process = PeerProcess(peer, home.interpreter, setting.threads, run.scratch)
    try:
        process.build(setting)
    except PeerError:
        process.close()
        raise
    process.rest()
    return process


def _case(
    run: _Run, reference: PeerProcess, systems: Sequence[PeerProcess], index: int, sample: CallTexts
) -> Case:
    """Prove agreement, choose each one's way with the batch, then time all in turns."""
    run.progress(f"timing {sample.name}")
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
    ready, measured, noise = _timed(run, ready, index, refused)
    return Case(
        name=sample.name,
        lengths=list(sample.lengths),
        rows=[
            ContestantTimes(
                precision=system.peer.precision,
                own=system.peer.own,
                environment=run.homes.of_peer[system.name].number,
                handling=system.handling[index],
                tried=judged[system.name][1],
                difference=judged[system.name][0].difference,
                cosine=judged[system.name][0].cosine,
                measured=seen,
            )
            for system, seen in zip(ready, measured, strict=True)
        ],
        refused=refused,
        noise=noise,
    )


def _timed(
    run: _Run, systems: Sequence[PeerProcess], index: int, refused: dict[str, str]
) -> tuple[list[PeerProcess], list[SystemTimes], Noise]:
    """Rounds of all; if the process of one ends in them, rounds of the others from the start."""
    cores = machine.describe(1).affinity or [0]
    alone = all(system.threads == 1 for system in systems)  # no thread waits for another
    distance = None if alone else run.distance
    ready = list(systems)
    while True:
        with Watch(cores, run.load, distance) as watch:
            try:
                measured = rounds.run(
                    ready,
                    index,
                    run.plan.schedule,
                    random.Random(0),  # noqa: S311 - the order of turns is no secret
                    watch=watch,
                )
            except PeerError as error:
                ended = [system for system in ready if not system.alive]
                if not ended:
                    raise
                refused |= {system.name: str(error) for system in ended}
                ready = [system for system in ready if system not in ended]
            else:
                return ready, measured, watch.noise()


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
