"""What the last layer for [CLS] rows alone saves: one classifier, exported both ways.

::

    checkpoint ─┬─> export                      ─> first rows ─┐
                └─> trace(first_rows_early=False) ─> all rows  ─┴─> same logits? ─> timed in turns
"""

from __future__ import annotations

import random
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from bertd.bundle import GRAPH_NAME, LOGITS, WEIGHTS_NAME
from bertd_export.bundle import export_model
from bertd_export.checkpoint import loading as checkpoint
from bertd_export.graph.trace import quiet, trace
from bertd_server.engine.engine import Engine, EngineOptions
from bertd_server.system import cpu
from pydantic import BaseModel, ValidationError

from bertd_bench.contestants import checkpoints
from bertd_bench.contestants.eager import BenchError
from bertd_bench.exports import speed
from bertd_bench.harness import machine, timing

_FAMILY = "bert"
_ALL = "all rows"
_FIRST = "first rows"
_TOLERANCE = 1e-5  # a product over one row may be summed in another order than over many
_TURN_SECONDS = 0.5


class CaseResult(BaseModel, frozen=True):
    """Times of both graphs, and the largest absolute difference of their logits."""

    all_rows: timing.Quartiles
    first_rows: timing.Quartiles
    difference: float


class FirstRows(BaseModel, frozen=True):
    """One run of the benchmark."""

    model: str
    size: str
    threads: int
    machine: machine.Machine
    largest_logit: float
    cases: dict[str, CaseResult]


def measure(size: str, threads: int | None, rounds: int) -> FirstRows:
    """Export a random BERT classifier both ways; compare and time the two.

    Raises:
        BenchError: the logits differ by more than rounding.
    """
    usable = cpu.usable_threads()
    threads = threads or usable
    here = machine.describe(usable)
    with tempfile.TemporaryDirectory(prefix="bertd-bench-") as scratch:
        source, first, full = (Path(scratch) / name for name in ("source", "first", "full"))
        checkpoints.save_random(_FAMILY, "text-classification", size, source)
        manifest = export_model(str(source), first).manifest
        _trace_all_rows(source, full)
        words = speed.Words.of(first)
        engines = {
            _FIRST: Engine(first, manifest, EngineOptions(threads)),
            _ALL: Engine(full, manifest, EngineOptions(threads)),
        }
    largest = 0.0
    cases = {}
    for name, case in speed.CASES.items():
        if case.one_by_one or max(case.lengths) > manifest.max_tokens:
            continue
        logits, cases[name] = _case(
            engines, speed.IdBatch.draw(case.lengths, manifest, words), rounds
        )
        largest = max(largest, logits)
    return FirstRows(
        model=_FAMILY,
        size=size,
        threads=threads,
        machine=here,
        largest_logit=largest,
        cases=cases,
    )


def _trace_all_rows(source: Path, folder: Path) -> None:
    folder.mkdir()
    with quiet():
        loaded = checkpoint.load(str(source))
    graph = trace(loaded, first_rows_early=False)
    onnx.save_model(
        graph, str(folder / GRAPH_NAME), save_as_external_data=True, location=WEIGHTS_NAME
    )


def _case(
    engines: dict[str, Engine], batch: speed.IdBatch, rounds: int
) -> tuple[float, CaseResult]:
    calls = {
        name: partial(speed.run_engine, engine, batch, [LOGITS]) for name, engine in engines.items()
    }
    first, full = (
        np.concatenate([answer[LOGITS] for answer in calls[name]()]) for name in (_FIRST, _ALL)
    )
    difference = float(np.abs(first - full).max())
    largest = float(np.abs(full).max())
    if not difference <= _TOLERANCE * max(1.0, largest):
        raise BenchError(f"first rows alone give other logits: they differ by {difference:.1e}")
    schedule = timing.Schedule(rounds, repeats=timing.repeats_within(_TURN_SECONDS, calls))
    samples = timing.measure(calls, schedule, random.Random(0))  # noqa: S311 - no secret
    return largest, CaseResult(
        all_rows=timing.quartiles(samples[_ALL]),
        first_rows=timing.quartiles(samples[_FIRST]),
        difference=difference,
    )


def read(path: Path) -> FirstRows:
    """Read a result.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no result of `bertd bench first-rows`.
    """
    try:
        return FirstRows.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ValueError(f"{path} is not a result of `bertd bench first-rows`") from error


def render(result: FirstRows, link: str | None = None) -> str:
    """The result as a Markdown table with its caption."""
    cases = result.cases.values()
    lines = [
        f"| | {' | '.join(result.cases)} |",
        f"|---|{'---:|' * len(result.cases)}",
        _line("all rows", [f"{case.all_rows.median:.2f} ms" for case in cases]),
        _line("first rows", [f"{case.first_rows.median:.2f} ms" for case in cases]),
        _line("gain", [f"{case.all_rows.median / case.first_rows.median:.2f}x" for case in cases]),
        _line("difference", [f"{case.difference:.1e}" for case in cases]),
    ]
    caption = (
        f"Medians; {result.model} with three labels and random weights at {result.size} size, "
        f"fp32; {result.threads} threads, {result.machine.cpu}. Difference: the largest between "
        f"the logits of the two graphs; the largest logit is {result.largest_logit:.1f}."
    )
    if link is not None:
        caption += f" Raw: [`{link}`]({link})."
    return "\n".join([*lines, "", caption])


def _line(title: str, cells: list[str]) -> str:
    return f"| {' | '.join([title, *cells])} |"
