"""The tables of `docs/scheduling.md`, from a result of `bertd bench simulate`."""

from __future__ import annotations

from bertd_bench.simulate import (
    BOUND,
    BUDGET,
    OURS,
    PADDED,
    POLICIES,
    UNSURE,
    WINDOW,
    Row,
    Simulated,
    Simulation,
)

_NAMES = {"mini": "6 layers of 384 (MiniLM-L6)", "base": "12 layers of 768 (BERT-base)"}
_DETAILED = (0.8, 1.3)  # loads of the table of latencies


def to_markdown(result: Simulation) -> str:
    """Goodput of each model, the load that each policy sustains, and latencies of the first."""
    parts = [
        f"{result.requests} texts for each of {len(result.seeds)} seeds; costs measured on "
        f"{result.machine.cpu}, {result.models[0].lanes} lanes."
    ]
    for model in result.models:
        parts += [f"**{_NAMES.get(model.size, model.size)}**, goodput:", _goodput(model)]
    for model in result.models:
        parts += [
            f"**{_NAMES.get(model.size, model.size)}**, highest load at which 99 % of the texts "
            "are answered within their objectives:",
            _sustained(model),
        ]
    first = result.models[0]
    parts += [
        f"**{_NAMES.get(first.size, first.size)}**, latencies in times of a lone text of the mean "
        "length:",
        _latencies(first),
    ]
    return "\n\n".join(parts)


def _goodput(model: Simulated) -> str:
    head = [BOUND, OURS, UNSURE, WINDOW, PADDED, BUDGET, "of the bound", "of the window"]
    lines = _header(["traffic", "load", *head], 1)
    by = {(row.traffic, row.load, row.policy): row.goodput for row in model.rows}
    for traffic, load in dict.fromkeys((row.traffic, row.load) for row in model.rows):
        shares = [by[traffic, load, policy] for policy in head[:6]]
        ours = by[traffic, load, OURS]
        ratios = [
            f"{ours / by[traffic, load, BOUND]:.2f}",
            _times(ours, by[traffic, load, WINDOW]),
        ]
        cells = [traffic, f"{load:g}", *(f"{share:.2f}" for share in shares), *ratios]
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
