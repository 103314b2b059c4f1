"""The tables of `docs/lab/scheduling.md`, from a result of `bertd bench simulate`."""

from __future__ import annotations

from bertd_bench.scheduling.simulate import (
    BOUND,
    OURS,
    POLICIES,
    WINDOW,
    Row,
    Simulated,
    Simulation,
)

_NAMES = {"mini": "6 layers of 384 (MiniLM-L6)", "base": "12 layers of 768 (BERT-base)"}
_SUSTAINED = "highest load at which 99 % of the texts are answered within their objectives"
_LATENCIES = "latencies in times of a lone text of the mean length"
_DETAILED = (0.8, 1.3)  # loads of the table of latencies


def to_markdown(result: Simulation) -> str:
    """Goodput of each model, the load that each policy sustains, and latencies of the first."""
    runs = f"{result.requests} texts for each of {len(result.seeds)} seeds"
    parts = [f"{runs}; costs measured on {result.machine.cpu}, {result.models[0].lanes} lanes."]
    for model in result.models:
        parts += [f"{_name(model)}, goodput:", _goodput(model)]
    for model in result.models:
        parts += [f"{_name(model)}, {_SUSTAINED}:", _sustained(model)]
    first = result.models[0]
    parts += [f"{_name(first)}, {_LATENCIES}:", _latencies(first)]
    return "\n\n".join(parts)


def _name(model: Simulated) -> str:
    return f"**{_NAMES.get(model.size, model.size)}**"


def _goodput(model: Simulated) -> str:
    ratios = ["of the bound", "in requests", "of the window"]
    lines = _header(["traffic", "load", BOUND, *POLICIES, *ratios], 1)
    by = {(row.traffic, row.load, row.policy): row for row in model.rows}
    for traffic, load in dict.fromkeys((row.traffic, row.load) for row in model.rows):
        most, ours, window = (by[traffic, load, policy] for policy in (BOUND, OURS, WINDOW))
        goodputs = [by[traffic, load, policy].goodput for policy in (BOUND, *POLICIES)]
        cells = [
            traffic,
            f"{load:g}",
            *(f"{goodput:.2f}" for goodput in goodputs),
            f"{ours.goodput / most.goodput:.2f}",
            f"{ours.in_time / most.in_time:.2f}",
            _times(ours.goodput, window.goodput),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _times(ours: float, theirs: float) -> str:
    """A ratio; beyond 10 it says no more than that the other has collapsed."""
    return f"{ours / theirs:.2f}x" if ours < 10 * theirs else "> 10x"


def _sustained(model: Simulated) -> str:
    head = [BOUND, *POLICIES]
    lines = _header(["traffic", *head, "of the bound", "of the window"], 1)
    by = {(found.traffic, found.policy): found.load for found in model.sustained}
    for traffic in dict.fromkeys(found.traffic for found in model.sustained):
        ours = by[traffic, OURS]
        cells = [traffic, *(f"{by[traffic, policy]:.2f}" for policy in head)]
        cells += [f"{ours / by[traffic, BOUND]:.2f}", _times(ours, by[traffic, WINDOW])]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _latencies(model: Simulated) -> str:
    head = ["p50", "p95", "p99", "in time", "no answer", "tokens a batch"]
    lines = _header(["traffic", "load", "policy", *head], 3)
    for row in model.rows:
        if row.policy != BOUND and row.load in _DETAILED:
            lines.append(f"| {' | '.join(_detail(row))} |")
    return "\n".join(lines)


def _detail(row: Row) -> list[str]:
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
