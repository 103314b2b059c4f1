"""The chart of servers under load."""

from __future__ import annotations

import math
from typing import Any

from bertd_bench.load.ramp import SHARE
from bertd_bench.load.results import GoodputReport
from bertd_bench.report.chart import Chart, Missing, Palette, below, lines, log


def load(found: tuple[str, GoodputReport] | None) -> Chart | Missing:
    """Throughput against latency."""
    title = "Throughput against latency"
    if found is None or not any(entry.steps() for entry in found[1].entries):
        return Missing("load", title, "bertd bench load --json benchmarks/results/load.json")
    report = found[1]
    objective = report.objective

    def draw(axes: Any, colours: Palette) -> None:
        series = {}
        for entry in report.entries[:6]:
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
        key="load",
        title=f"{title}: {report.model}, {report.threads} threads",
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
