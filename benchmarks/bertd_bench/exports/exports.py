"""What can be exported, how near it is to PyTorch, and how much faster: one row per export.

::

    ExportPlan ─> subject x precision ─> export ─> compare, time (speed.py) ─> row ─> saved at once
"""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import psutil
import torch
from bertd.bundle import Precision, Task
from bertd_export.bundle import export_model
from bertd_export.errors import ExportError
from bertd_export.quantization.fp16 import Fp16Options
from bertd_export.quantization.int8 import Int8Options
from bertd_server.system import cpu
from pydantic import BaseModel

from bertd_bench.contestants import checkpoints
from bertd_bench.contestants.eager import BenchError
from bertd_bench.exports.speed import Speed, measure_speed
from bertd_bench.harness import machine

TASKS: tuple[Task, ...] = tuple(
    task for task in get_args(Task) if task != "zero-shot-classification"
)  # which is text-classification, read otherwise
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


class ExportRow(BaseModel, frozen=True):
    """One export.

    `size` is that of random weights, empty for a checkpoint of its own; `parity` the largest
    difference from PyTorch eager by output, `agreement` a lower precision's mean cosine to fp32
    (or its like for logits); `load` the load of the machine before the row.
    """

    model: str
    size: str
    task: str
    precision: Precision
    parity: dict[str, float] = {}
    agreement: float | None = None
    bundle_bytes: int = 0
    export_seconds: float = 0.0
    load: float = 0.0
    speed: dict[str, Speed] = {}
    refused: str = ""


class ExportTable(BaseModel, frozen=True):
    """One table: everything that was measured on one machine in one manner."""

    benchmark: Literal["exports"] = "exports"
    threads: int
    rounds: int
    machine: machine.Machine
    rows: list[ExportRow]


@dataclass(frozen=True, slots=True)
class ExportSubject:
    """A checkpoint to export: a folder, or a family to fill with random weights of a size."""

    name: str
    task: Task | None
    folder: Path | None = None
    size: str = ""


@dataclass(frozen=True, slots=True)
class ExportPlan:
    """The choices of one run."""

    subjects: Sequence[ExportSubject]
    precisions: Sequence[Precision]
    cases: Sequence[str]
    rounds: int
    threads: int | None = None
    allow_pickle: bool = False


def random_subjects(
    families: Sequence[str], tasks: Sequence[Task], size: str
) -> list[ExportSubject]:
    """Every family with every task."""
    return [ExportSubject(family, task, size=size) for family in families for task in tasks]


def measure(
    plan: ExportPlan,
    *,
    progress: Callable[[str], None] = lambda _: None,
    keep: Callable[[ExportTable], object] = lambda _: None,
) -> ExportTable:
    """Export every subject in every precision, and time it; a refusal is a row too.

    Args:
        plan: what to do.
        progress: told what happens next.
        keep: given the table after each row.
    """
    usable = cpu.usable_threads()
    threads, here = plan.threads or usable, machine.describe(usable)
    table = ExportTable(threads=threads, rounds=plan.rounds, machine=here, rows=[])
    torch.set_num_threads(threads)
    for subject in plan.subjects:
        with tempfile.TemporaryDirectory(prefix="bertd-bench-") as scratch:
            folder = subject.folder
            if folder is None:
                folder, task = Path(scratch) / subject.name, subject.task or TASKS[0]
                checkpoints.save_random(subject.name, task, subject.size, folder)
            for precision in plan.precisions:
                progress(f"{subject.name}, {subject.task or 'its own task'}, {precision}")
                row = _row(subject, folder, precision, Path(scratch) / precision, plan, threads)
                table = table.model_copy(update={"rows": [*table.rows, row]})
                keep(table)
        gc.collect()
    return table


def _row(  # noqa: PLR0913, PLR0917 - internal
    subject: ExportSubject,
    folder: Path,
    precision: Precision,
    output: Path,
    plan: ExportPlan,
    threads: int,
) -> ExportRow:
    row = ExportRow(
        model=subject.name,
        size=subject.size,
        task=subject.task or "",
        precision=precision,
        load=psutil.getloadavg()[0],
    )
    try:
        summary = export_model(
            str(folder),
            output,
            task=subject.task,
            int8=Int8Options() if precision == "int8" else None,
            fp16=Fp16Options() if precision == "fp16" else None,
            allow_pickle=plan.allow_pickle,
        )
        manifest = summary.manifest
        lowered = manifest.quantization or manifest.half
        row = row.model_copy(
            update={
                "task": manifest.task,
                "parity": {name: parity.max_abs_diff for name, parity in manifest.parity.items()},
                "agreement": lowered and lowered.mean_cosine,
                "bundle_bytes": summary.bytes,
                "export_seconds": summary.seconds,
            }
        )
        found = measure_speed(folder, output, threads=threads, turns=plan.rounds, cases=plan.cases)
    except (ExportError, BenchError) as error:
        # A committed result names models, not the folders of whoever measured.
        said = str(error).replace(str(folder), subject.name)
        return row.model_copy(update={"refused": said})
    return row.model_copy(update={"speed": found})
