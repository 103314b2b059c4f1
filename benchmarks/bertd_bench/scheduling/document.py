"""The tables of docs/lab/scheduling.md, from a result of `bertd bench simulate`."""

from __future__ import annotations

from pathlib import Path

from bertd_bench.docs import Section
from bertd_bench.harness.results import read
from bertd_bench.scheduling.simulate import (
    OURS,
    POLICIES,
    WINDOW,
    ModelSimulation,
    PolicyResult,
    Simulation,
)

_SUSTAINED = "highest load at which 99 % of the texts are answered within their objectives"
_LATENCIES = "latencies in times of a lone text of the mean length"
_DETAILED = (0.8, 1.3)  # loads of the table of latencies


def render(result: Simulation) -> str:
    """Goodput of each model, the load that each policy sustains, and latencies of the first."""
    runs = f"{result.requests} texts for each of {len(result.seeds)} seeds"
    parts = [f"{runs}; costs measured on {result.machine}, {result.lanes} lanes."]
    for model in result.models:
        parts += [f"**{model.name}**, goodput:", _goodput(model)]
    for model in result.models:
        parts += [f"**{model.name}**, {_SUSTAINED}:", _sustained(model)]
    first = result.models[0]
    parts += [f"**{first.name}**, {_LATENCIES}:", _latencies(first)]
    return "\n\n".join(parts)


def _goodput(model: ModelSimulation) -> str:
    lines = _header(["traffic", "load", *POLICIES, "of the window"], 1)
    by = {(row.traffic, row.load, row.policy): row for row in model.rows}
    for traffic, load in dict.fromkeys((row.traffic, row.load) for row in model.rows):
        ours, window = by[traffic, load, OURS], by[traffic, load, WINDOW]
        goodputs = [by[traffic, load, policy].goodput for policy in POLICIES]
        cells = [
            traffic,
            f"{load:g}",
            *(f"{goodput:.2f}" for goodput in goodputs),
            _times(ours.goodput, window.goodput),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _times(ours: float, theirs: float) -> str:
    """A ratio; beyond 10 it says no more than that the other has collapsed."""
    return f"{ours / theirs:.2f}x" if ours < 10 * theirs else "> 10x"


def _sustained(model: ModelSimulation) -> str:
    lines = _header(["traffic", *POLICIES, "of the window"], 1)
    by = {(found.traffic, found.policy): found.load for found in model.sustained}
    for traffic in dict.fromkeys(found.traffic for found in model.sustained):
        ours = by[traffic, OURS]
        cells = [traffic, *(f"{by[traffic, policy]:.2f}" for policy in POLICIES)]
        cells.append(_times(ours, by[traffic, WINDOW]))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _latencies(model: ModelSimulation) -> str:
    head = ["p50", "p95", "p99", "in time", "no answer", "tokens a batch"]
    lines = _header(["traffic", "load", "policy", *head], 3)
    for row in model.rows:
        if row.load in _DETAILED:
            lines.append(f"| {' | '.join(_detail(row))} |")
    return "\n".join(lines)


def _detail(row: PolicyResult) -> list[str]:
    return [
        row.traffic,
        f"{row.load:g}",
        row.policy,
        f"{row.p50:.1f}",
        f"{row.p95:.1f}",
        f"{row.p99:.1f}",
        f"{row.in_time:.1%}",
        f"{row.refused:.1%}",
        f"{row.batch_tokens:.0f}",
    ]


def _header(head: list[str], left: int) -> list[str]:
    aligned = "---|" * left + "---:|" * (len(head) - left)
    return [f"| {' | '.join(head)} |", f"|{aligned}"]


def _section(folder: Path) -> str:
    return render(read(folder / "simulation.json", Simulation, "simulate"))


SECTIONS = (Section("docs/lab/scheduling.md", "simulate", _section),)
