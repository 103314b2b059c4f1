"""What can be exported, how near it is to PyTorch, and how much faster: one row per export.

Every row is a real export of a checkpoint, timed against the same checkpoint in PyTorch eager on
the same token ids, from ids to logits or vectors.
"""

from __future__ import annotations

import gc
import random
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from bertd.bundle import Manifest, Task, read_manifest
from bertd_export.bundle import export_model
from bertd_export.errors import ExportError
from bertd_export.int8 import Int8Options
from bertd_export.tasks import loader
from bertd_server import cpu
from bertd_server.engine import Engine, EngineOptions
from bertd_server.packing import TokenSequence
from pydantic import BaseModel

from bertd_bench import checkpoints, machine, texts, timing

TASKS: tuple[Task, ...] = tuple(
    task for task in get_args(Task) if task != "zero-shot-classification"
)  # which is text-classification, read otherwise
_EAGER = "eager"
_ENGINE = "engine"
_SINGLES = (8, 128)
_FIRST_WORD = 5  # ids below are special tokens


class Row(BaseModel, frozen=True):
    """One export.

    `parity` is the largest difference from PyTorch eager by output, `agreement` int8's mean cosine
    to fp32 (or its like for logits), `speed` eager's median time over the engine's by case.
    """

    model: str
    task: str
    precision: str
    layout: str = ""
    parity: dict[str, float] = {}
    agreement: float | None = None
    megabytes: float = 0.0
    seconds: float = 0.0
    speed: dict[str, float] = {}
    refused: str = ""


class Matrix(BaseModel, frozen=True):
    """One run of the benchmark."""

    size: str
    threads: int
    machine: machine.Machine
    rows: list[Row]


@dataclass(frozen=True, slots=True)
class Subject:
    """A checkpoint to export: a folder, or a family to fill with random weights."""

    name: str
    task: Task | None
    folder: Path | None = None


def random_subjects(families: Sequence[str], tasks: Sequence[Task]) -> list[Subject]:
    """Every family with every task."""
    return [Subject(family, task) for family in families for task in tasks]


def measure(  # noqa: PLR0913 - the choices of one run
    subjects: Iterable[Subject],
    precisions: Sequence[str],
    *,
    size: str,
    threads: int | None,
    rounds: int,
    progress: Callable[[str], None],
) -> Matrix:
    """Export every subject in every precision, and time it; a refusal is a row too."""
    usable = cpu.usable_threads()
    threads = threads or usable
    here = machine.describe(usable)
    torch.set_num_threads(threads)
    rows = []
    for subject in subjects:
        with tempfile.TemporaryDirectory(prefix="bertd-bench-") as scratch:
            folder = subject.folder
            if folder is None:
                folder = Path(scratch) / subject.name
                checkpoints.save_random(subject.name, subject.task or TASKS[0], size, folder)
            for precision in precisions:
                progress(f"{subject.name}, {subject.task or 'its own task'}, {precision}")
                output = Path(scratch) / f"bundle-{precision}"
                rows.append(_row(subject, folder, precision, output, threads, rounds))
        gc.collect()
    return Matrix(size=size, threads=threads, machine=here, rows=rows)


def _row(  # noqa: PLR0913, PLR0917 - internal
    subject: Subject, folder: Path, precision: str, output: Path, threads: int, rounds: int
) -> Row:
    row = Row(model=subject.name, task=subject.task or "", precision=precision)
    try:
        int8 = Int8Options() if precision == "int8" else None
        summary = export_model(str(folder), output, task=subject.task, int8=int8)
    except ExportError as error:
        return row.model_copy(update={"refused": error.message})
    manifest = read_manifest(output)
    return row.model_copy(
        update={
            "task": manifest.task,
            "layout": manifest.layout,
            "parity": {name: parity.max_abs_diff for name, parity in manifest.parity.items()},
            "agreement": manifest.quantization.mean_cosine if manifest.quantization else None,
            "megabytes": summary.bytes / 1e6,
            "seconds": summary.seconds,
            "speed": _speed(folder, output, manifest, threads, rounds),
        }
    )


def _speed(
    folder: Path, bundle: Path, manifest: Manifest, threads: int, rounds: int
) -> dict[str, float]:
    model = loader(manifest.task).from_pretrained(folder, dtype=torch.float32).eval()
    engine = Engine(bundle, manifest, EngineOptions(threads))
    outputs = list(manifest.outputs)[:1] if manifest.dimensions else list(manifest.outputs)
    rng = np.random.default_rng(0)
    longest = manifest.max_tokens
    cases = {f"{length} tokens": [length] for length in _SINGLES}
    cases[f"{len(texts.MIXED_LENGTHS)} mixed"] = list(texts.MIXED_LENGTHS)
    speed = {}
    for name, lengths in cases.items():
        ids = [_ids(min(length, longest), manifest, rng) for length in lengths]
        sequences = [TokenSequence(row, np.zeros_like(row)) for row in ids]
        padded = _padded(ids, model.config.pad_token_id or 0)
        samples = timing.measure(
            {
                _EAGER: partial(_run_eager, model, padded),
                _ENGINE: partial(_run_engine, engine, sequences, outputs),
            },
            timing.Schedule(rounds, repeats=5),
            random.Random(0),  # noqa: S311 - the order of turns is no secret
        )
        medians = {who: timing.summarize(values).median for who, values in samples.items()}
        speed[name] = medians[_EAGER] / medians[_ENGINE]
    return speed


def _ids(length: int, manifest: Manifest, rng: np.random.Generator) -> Any:
    ids = rng.integers(_FIRST_WORD, manifest.vocab_size, length)
    if manifest.mask_token_id is not None:
        ids[length // 2] = manifest.mask_token_id
    return ids


def _padded(ids: Sequence[Any], pad: int) -> dict[str, torch.Tensor]:
    longest = max(map(len, ids))
    rows = np.full((len(ids), longest), pad, np.int64)
    mask = np.zeros((len(ids), longest), np.int64)
    for row, text in enumerate(ids):
        rows[row, : len(text)] = text
        mask[row, : len(text)] = 1
    return {"input_ids": torch.from_numpy(rows), "attention_mask": torch.from_numpy(mask)}


def _run_eager(model: Any, inputs: dict[str, torch.Tensor]) -> None:
    with torch.inference_mode():
        model(**inputs)


def _run_engine(engine: Engine, sequences: list[TokenSequence], outputs: list[str]) -> None:
    engine.answer(sequences, outputs, wide=engine.has_wide)


def to_markdown(matrix: Matrix) -> str:
    """The rows as a table for the documentation, with the refusals below it."""
    cases = list(dict.fromkeys(case for row in matrix.rows for case in row.speed))
    head = ["model", "task", "precision", "largest difference", "agreement", "MB", *cases]
    lines = [
        f"| {' | '.join(head)} |",
        f"|{'---|' * 3}{'---:|' * (len(head) - 3)}",
    ]
    for row in matrix.rows:
        if row.refused:
            continue
        cells = [row.model, row.task, row.precision]
        cells.append(f"{max(row.parity.values()):.1e}")
        cells.append("" if row.agreement is None else f"{row.agreement:.4f}")
        cells.append(f"{row.megabytes:.0f}")
        cells += [f"{row.speed[case]:.2f}x" for case in cases]
        lines.append(f"| {' | '.join(cells)} |")
    refused = [row for row in matrix.rows if row.refused]
    lines += ["", "Refused:", ""] if refused else []
    lines += [f"- {row.model}, {row.task}, {row.precision}: {row.refused}" for row in refused]
    lines += [
        "",
        _caption(matrix),
    ]
    return "\n".join(lines) + "\n"


def _caption(matrix: Matrix) -> str:
    return (
        f"Random weights at {matrix.size} size unless the model is a name of its own; "
        f"{matrix.threads} threads; {matrix.machine.cpu}; "
        f"load {matrix.machine.load_average[0]:.2f} before the run. "
        "Speed is PyTorch eager's median time over the engine's, from token ids to the answer; "
        "eager pads the mixed batch."
    )
