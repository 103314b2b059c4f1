"""The tables of docs/lab/scheduling.md, from a result of `bertd bench simulate`."""

from __future__ import annotations

from pathlib import Path

from bertd_bench.docs import Section
from bertd_bench.harness.results import read
from bertd_bench.scheduling.simulate import OURS, POLICIES, WINDOW, ModelSimulation, Simulation


def render(result: Simulation) -> str:
    """Goodput of each model."""
    runs = f"{result.requests} texts for each of {len(result.seeds)} seeds"
    parts = [f"{runs}; costs measured on {result.machine}, {result.lanes} lanes."]
    for model in result.models:
        parts += [f"**{model.name}**, goodput:", _goodput(model)]
    return "\n\n".join(parts)


def _goodput(model: ModelSimulation) -> str:
    head = ["traffic", "load", *POLICIES, "of the window"]
    lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    by = {(row.traffic, row.load, row.policy): row.goodput for row in model.rows}
    for traffic, load in dict.fromkeys((row.traffic, row.load) for row in model.rows):
        goodputs = {policy: by[traffic, load, policy] for policy in POLICIES}
        cells = [traffic, f"{load:g}", *(f"{goodput:.2f}" for goodput in goodputs.values())]
        # Beyond 10 a ratio says no more than that the other has collapsed.
        collapsed = goodputs[OURS] >= 10 * goodputs[WINDOW]
        cells.append("> 10x" if collapsed else f"{goodputs[OURS] / goodputs[WINDOW]:.2f}x")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _section(folder: Path) -> str:
    return render(read(folder / "simulation.json", Simulation, "simulate"))


SECTIONS = (Section("docs/lab/scheduling.md", "simulate", _section),)
