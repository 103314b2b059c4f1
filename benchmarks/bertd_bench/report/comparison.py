"""Charts of the comparison: how many times as fast, and how latencies are distributed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bertd_bench.compare import document
from bertd_bench.compare.results import Case, Comparison, ContestantTimes, Subject, ratio
from bertd_bench.contestants.ours import ENGINE, ENGINE_INT8
from bertd_bench.report.chart import MARKS, Chart, Missing, Palette, below, lines, log

_MOST = 6  # lines of one chart
REMEDY = "bertd bench compare --json benchmarks/results/compare.json"


def of(comparisons: Sequence[Comparison]) -> list[Chart | Missing]:
    """All charts of comparisons, the standard one first."""
    if not comparisons:
        return [Missing("speedup", "Times as fast as each peer", REMEDY)]
    subjects = [subject for each in comparisons for subject in each.subjects]
    charts: list[Chart | Missing] = [
        _speedup(subject, number) for number, subject in enumerate(subjects)
    ]
    first = subjects[0]
    shortest = min(first.cases, key=lambda case: sum(case.lengths))
    names = dict.fromkeys((shortest.name, _widest(first).name))
    return charts + [
        _latencies(first, next(case for case in first.cases if case.name == name)) for name in names
    ]


def _widest(subject: Subject) -> Case:
    """The mixed batch, or else the largest case."""
    return max(subject.cases, key=lambda case: (len(set(case.lengths)), sum(case.lengths)))


def _peers(subject: Subject) -> list[tuple[Case, ContestantTimes, ContestantTimes]]:
    """Every peer's row with that of ours that it is compared with."""
    return [
        (case, row, ours)
        for case in subject.cases
        for row in case.rows
        if not row.own
        if (ours := case.row(ENGINE if row.precision == "fp32" else ENGINE_INT8)) is not None
    ]


def _named(subject: Subject) -> str:
    threads = "1 thread" if subject.threads == 1 else f"{subject.threads} threads"
    return f"{subject.model}, {subject.task}, {threads}"


def _speedup(subject: Subject, number: int) -> Chart:
    every = _peers(subject)
    name = _widest(subject).name
    drawn = sorted(
        ((row, ratio(row, ours)) for case, row, ours in every if case.name == name),
        key=lambda pair: pair[1].value,
    )
    names = list(dict.fromkeys(row.name for _, row, _ in every))
    cases = list(document.by_name(subject))
    cells = {(row.name, case.name): document.shown(ratio(row, ours)) for case, row, ours in every}
    kinds = {row.name: row.precision for _, row, _ in every}

    def draw(axes: Any, colours: Palette) -> None:
        for place, (row, value) in enumerate(drawn):
            at = 0 if row.precision == "fp32" else 1
            colour = colours.series[at]
            if value.interval is not None:
                ends = [value.interval.low, value.interval.high]
                axes.plot(ends, [place] * 2, color=colour, linewidth=2.2, solid_capstyle="butt")
            axes.plot(value.value, place, MARKS[at], color=colour, markersize=6)
        axes.axvline(1, color=colours.ink, linewidth=1)
        axes.set_yticks(range(len(drawn)), [row.name for row, _ in drawn])
        axes.set_ylim(-0.6, max(len(drawn), 1) - 0.4)
        axes.set_xlim(left=min([0.8, *(value.value * 0.9 for _, value in drawn)]))
        axes.set_xlabel(f"times as fast, {name}")

    closest = f"{drawn[0][0].name}, {drawn[0][1].value:.2f} times" if drawn else "none"
    return Chart(
        key=f"speedup-{number + 1}",
        title=f"Times as fast as each peer: {_named(subject)}",
        says=(
            f"How many times as fast bertd was as each peer, {len(names)} in all, on {name}, by "
            f"medians, with 95 % intervals. Round marks are float32, square ones lower "
            f"precision, compared with bertd in int8. The nearest peer: {closest}."
        ),
        heads=["peer", "precision", *cases],
        rows=[
            [each, kinds[each], *(cells.get((each, case), "") for case in cases)] for each in names
        ],
        draw=draw,
        inches=1.3 + 0.28 * max(len(drawn), 2),
        open=True,
    )


def _latencies(subject: Subject, case: Case) -> Chart:
    rows = sorted(case.rows, key=lambda row: (not row.own, row.measured.median_ms))[:_MOST]
    every = sorted(case.rows, key=lambda row: row.measured.median_ms)

    def draw(axes: Any, colours: Palette) -> None:
        times = {row.name: np.sort(np.array(row.measured.samples_ns)) / 1e6 for row in rows}
        shares = {name: np.arange(1, len(each) + 1) / len(each) for name, each in times.items()}
        pairs = {name: (times[name], shares[name]) for name in times}
        lines(axes, colours, pairs, drawstyle="steps-post")
        log(axes.xaxis)
        axes.set_xlabel("milliseconds")
        axes.set_ylabel("share of calls answered")
        axes.set_ylim(0, 1.02)
        below(axes)

    return Chart(
        key="latency-" + "".join(each if each.isalnum() else "-" for each in case.name),
        title=f"Latency of {case.name}: {subject.model}",
        says=(
            f"The share of calls that each contestant answered within a time, for "
            f"{len(rows)} of {len(every)}: bertd's and the fastest. {every[0].name} has the "
            f"lowest median, {every[0].measured.median_ms:.2f} ms."
        ),
        heads=["contestant", "p50, ms", "p90, ms", "p99, ms", "calls"],
        rows=[[row.name, *_percentiles(row.measured.samples_ns)] for row in every],
        draw=draw,
        inches=3.2 + 0.1 * len(rows),
    )


def _percentiles(samples_ns: Sequence[int]) -> list[str]:
    """Cells of a table: three percentiles in milliseconds, and how many samples."""
    found = np.percentile(np.array(samples_ns) / 1e6, [50, 90, 99])
    return [*(f"{value:.2f}" for value in found), str(len(samples_ns))]
