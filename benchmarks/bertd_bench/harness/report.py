"""Results as tables on a terminal and as JSON, raw samples included."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ValidationError
from rich.console import Console
from rich.table import Table

from bertd_bench.harness.machine import Machine
from bertd_bench.harness.timing import Summary, summarize


class Result(BaseModel, frozen=True):
    """One contestant in one case."""

    contestant: str
    summary: Summary
    ratio: float  # the baseline's median over this one's: more is faster
    difference: float | None  # largest absolute difference from the baseline's vectors
    samples_ns: list[int]


class CaseResult(BaseModel, frozen=True):
    """All contestants in one case."""

    case: str
    tokens: int
    results: list[Result]


class Report(BaseModel, frozen=True):
    """One run of a benchmark."""

    benchmark: str
    model: str
    threads: int
    baseline: str
    machine: Machine
    cases: list[CaseResult]


def case_result(
    case: str,
    tokens: int,
    samples: dict[str, list[int]],
    *,
    baseline: str,
    differences: dict[str, float] | None = None,
) -> CaseResult:
    """Summarise the samples of one case against those of the baseline."""
    summaries = {name: summarize(values) for name, values in samples.items()}
    return CaseResult(
        case=case,
        tokens=tokens,
        results=[
            Result(
                contestant=name,
                summary=summary,
                ratio=summaries[baseline].median / summary.median,
                difference=None if differences is None else differences[name],
                samples_ns=samples[name],
            )
            for name, summary in summaries.items()
        ],
    )


def print_report(report: Report, console: Console) -> None:
    """Print a table and what it was measured on."""
    table = Table(
        title=f"{report.benchmark}: {report.model}, {report.threads} threads, milliseconds",
        caption=f"ratio: median of {report.baseline} / median",
    )
    for heading in ("case", "contestant"):
        table.add_column(heading, no_wrap=True)
    for heading in ("median", "p90", "p99", "ratio", "diff"):
        table.add_column(heading, justify="right", no_wrap=True)
    for case in report.cases:
        for index, result in enumerate(case.results):
            table.add_row(
                "" if index else case.case,
                result.contestant,
                f"{result.summary.median:.2f}",
                f"{result.summary.p90:.2f}",
                f"{result.summary.p99:.2f}",
                f"{result.ratio:.2f}",
                "" if result.difference is None else f"{result.difference:.0e}",
            )
        table.add_section()
    console.print(table)
    machine = report.machine
    if machine.busy:
        console.print(
            "The machine was busy before this began: PyTorch suffers most, so trust no ratio here."
        )
    load = " ".join(f"{value:.2f}" for value in machine.load_average)
    console.print(f"{machine.cpu}, {machine.usable_threads} usable threads, load {load}")
    console.print(
        ", ".join(f"{name} {version}" for name, version in machine.versions.items()), soft_wrap=True
    )


def write_json(report: Report, path: Path) -> None:
    """Write the report with its raw samples."""
    path.write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_json(path: Path) -> Report:
    """Read what :func:`write_json` wrote.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no report.
    """
    try:
        return Report.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ValueError(f"{path} is not a report of `bertd bench`") from error
