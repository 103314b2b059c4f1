"""The chart of servers under load."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from bertd_bench.load.ramp import SHARE
from bertd_bench.load.results import GoodputReport
from bertd_bench.report.chart import Chart, Missing, Palette, below, lines, log

_TITLE = "Throughput against latency"


def of(reports: Sequence[GoodputReport]) -> list[Chart | Missing]:
    """Throughput against latency, of each result that has steps."""
    kept = [each for each in reports if any(entry.steps() for entry in each.entries)]
    if not kept:
        remedy = "bertd bench load --json benchmarks/results/load.json"
        return [Missing("load", _TITLE, remedy)]
    return [
        _chart(each, f"load-{number}" if number else "load") for number, each in enumerate(kept)
    ]


def _chart(report: GoodputReport, key: str) -> Chart:
    objective = report.objective

    def draw(axes: Any, colours: Palette) -> None:
        series = {}
        best_first = sorted(report.entries, key=lambda entry: -entry.rate(objective))
        for entry in best_first[:6]:
            kept = [step for step in entry.steps() if math.isfinite(step.percentile(SHARE))]
            slow = [1e3 * step.percentile(SHARE) for step in kept]
            series[entry.name] = ([step.rate for step in kept], slow)
        lines(axes, colours, series)
        axes.axhline(1e3 * objective, color=colours.ink, linewidth=1)
        log(axes.yaxis)
        axes.set_xlabel("texts a second (line: objective)")
        axes.set_ylabel("p99, milliseconds")
        axes.set_xlim(left=0)
        below(axes)

    answered = f"within {1e3 * objective:.0f} ms, texts/s"
    held = [f"{entry.name} {entry.rate(objective):,.0f}" for entry in report.entries if entry.ramps]
    return Chart(
        key=key,
        title=f"{_TITLE}: {report.model}, {report.threads} threads",
        says=(
            f"p99 of latency, from when a text was due, under more and more load. Texts a second "
            f"of which 99 % were answered within {1e3 * objective:.0f} ms: {'; '.join(held)}."
        ),
        heads=["server", "due, texts/s", answered, "p50, ms", "p99, ms"],
        rows=[
            [
                entry.name,
                f"{step.rate:.0f}",
                f"{step.goodput(objective):.0f}",
                _milliseconds(step.percentile(0.5)),
                _milliseconds(step.percentile(SHARE)),
            ]
            for entry in report.entries
            for step in entry.steps()
        ],
        draw=draw,
        inches=3.6,
    )


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.1f}" if math.isfinite(seconds) else "not answered"
