"""Charts of servers and the machine."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from bertd_bench.hardware.card import Card
from bertd_bench.load.ramp import SHARE
from bertd_bench.load.results import GoodputReport
from bertd_bench.report.chart import LINES, Chart, Missing, Palette, below, lines, log


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
        lines(axes, colours, series, marked=True)
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


def roofline(found: tuple[str, Card] | None) -> Chart | Missing:
    """What memory and arithmetic allow, and what the engine reaches."""
    title = "Roofline: what the machine allows, and what is reached"
    if found is None or found[1].roof("fp32") is None:
        remedy = "bertd bench hardware --json benchmarks/results/hardware.json"
        return Missing("roofline", title, remedy)
    card = found[1]
    roofs = {
        model.kind: roof for model in card.models if (roof := card.roof(model.kind)) is not None
    }
    reach = [point.intensity for model in card.models for point in model.points]

    def draw(axes: Any, colours: Palette) -> None:
        span = np.geomspace(0.7 * min(reach), 1.5 * max(reach), 200)
        for style, (kind, roof) in zip(LINES, roofs.items(), strict=False):
            look = {"linestyle": style, "color": colours.muted, "label": f"roof, {kind}"}
            axes.plot(span, [roof.attainable(each) for each in span], linewidth=1.4, **look)
        reached = {
            f"{model.name}, {model.precision}": (
                [point.intensity for point in model.points],
                [point.rate for point in model.points],
            )
            for model in card.models
        }
        lines(axes, colours, reached, marked=True, linestyle="-")
        log(axes.xaxis)
        log(axes.yaxis)
        axes.set_xlabel("operations a byte of the linear layers")
        axes.set_ylabel("1e9 operations a second")
        below(axes)

    rows = []
    for model in card.models:
        roof = card.roof(model.kind)
        for point in model.points:
            allowed = roof.attainable(point.intensity) if roof else float("nan")
            rows.append(
                [
                    f"{model.name}, {model.precision}",
                    str(point.tokens),
                    f"{point.intensity:.0f}",
                    f"{allowed:,.0f}",
                    f"{point.rate:,.0f}",
                    f"{point.rate / allowed:.0%}",
                ]
            )
    return Chart(
        key="roofline",
        title=title,
        says=(
            "Rate of the linear layers over the time of a whole run against their operations a "
            "byte, for batches of more and more tokens, under the roof that the machine's own "
            f"products and memory set: {card.machine.cpu}, {card.machine.usable_threads} threads."
        ),
        heads=["model", "tokens", "operations a byte", "attainable", "reached", "share"],
        rows=rows,
        draw=draw,
        inches=3.9,
    )
