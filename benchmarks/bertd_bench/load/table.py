"""The table of `bertd bench load` for the documentation."""

from __future__ import annotations

import math

from bertd_bench.load.processes import OURS
from bertd_bench.load.ramp import SHARE, Step
from bertd_bench.load.results import TARGET, Entry, GoodputReport


def to_markdown(report: GoodputReport) -> str:
    """Who takes how much, how bertd compares, and what was seen of the machine."""
    objective = f"{report.objective * 1e3:.0f} ms"
    machine = report.machine
    introduction = (
        f"{report.model}, {report.threads} threads each, {machine.cpu}. Single texts of "
        f"{report.mean_tokens:.0f} tokens on average at random moments; the client shares the "
        f"cores. The objective is {SHARE:.0%} of all requests within {objective} of the moment "
        "at which they were due. Rates are requests a second."
    )
    heads = (
        "",
        f"highest rate with p99 ≤ {objective}",
        "rounds",
        "p50 there",
        "p99 there",
        "most goodput",
        "cores",
        "bertd takes",
    )
    lines = [
        introduction,
        "",
        f"| {' | '.join(heads)} |",
        "|---|---:|---|---:|---:|---:|---:|---:|",
    ]
    lines += [_row(report, entry) for entry in _best_first(report)]
    lines += [f"| {name} | skipped: {reason} | | | | | | |" for name, reason in _skipped(report)]
    lines += ["", _verdict(report), "", report.noise.verdict, "", f"`{report.command}`"]
    return "\n".join(lines) + "\n"


def _best_first(report: GoodputReport) -> list[Entry]:
    return sorted(report.entries, key=lambda entry: -entry.rate(report.objective))


def _skipped(report: GoodputReport) -> list[tuple[str, str]]:
    return sorted(report.skipped.items())


def _row(report: GoodputReport, entry: Entry) -> str:
    objective = report.objective
    rates = entry.rates(objective)
    steps = entry.steps()
    there = [step for step in steps if step.meets(objective)]
    at = max(there, key=lambda step: step.rate, default=None)
    most = max((step.goodput(objective) for step in steps), default=0.0)
    p50, p99 = (_ms(at, share) for share in (0.5, SHARE))
    return (
        f"| {entry.name} | {entry.rate(objective):.0f} | {', '.join(f'{r:.0f}' for r in rates)} "
        f"| {p50} | {p99} | {most:.0f} | {f'{at.cores:.2f}' if at else '-'} "
        f"| {_ratio(report, entry)} |"
    )


def _ratio(report: GoodputReport, entry: Entry) -> str:
    ratio = report.ratio(entry)
    if entry.name == OURS or ratio is None:
        return ""
    found = report.interval(entry)
    return f"{ratio:.2f}x" + (f" ({found.low:.2f} to {found.high:.2f})" if found else "")


def _ms(step: Step | None, share: float) -> str:
    seconds = math.inf if step is None else step.percentile(share)
    return "-" if math.isinf(seconds) else f"{seconds * 1e3:.1f} ms"


def _verdict(report: GoodputReport) -> str:
    eager = report.eager
    ratio = None if eager is None else report.ratio(eager)
    if eager is None or ratio is None:
        return "There is nothing of eager behind the same front end to compare with."
    word = "met" if ratio >= TARGET else "**missed**"
    return (
        f"bertd takes {ratio:.2f} times the rate of the same model as {eager.name} behind the "
        f"same front end; wanted are {TARGET}: {word}."
    )
