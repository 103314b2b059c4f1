"""The tables of docs/lab/load.md: rates that are answered in time, and what a call costs."""

from __future__ import annotations

import math
from pathlib import Path

from bertd_bench.docs import Section
from bertd_bench.harness import results
from bertd_bench.load.contestants import OURS
from bertd_bench.load.front_end import BULK_LIMIT, UNARY, UNARY_LIMIT, FrontReport
from bertd_bench.load.ramp import SHARE, Step
from bertd_bench.load.results import TARGET, ContestantRamps, GoodputReport


def goodput(report: GoodputReport) -> str:
    """Who takes how much, how bertd compares, and what was seen of the machine."""
    objective = f"{report.objective * 1e3:.0f} ms"
    introduction = (
        f"{report.model}, {report.threads} threads each, {report.machine.cpu}. Single texts of "
        f"{report.mean_tokens:.0f} tokens on average at random moments; the client shares the "
        f"cores. The objective is {SHARE:.0%} of all requests within {objective} of the moment "
        "at which they were due. Rates are requests a second."
    )
    heads = f"highest rate with p99 ≤ {objective} | rounds | p50 there | p99 there | most goodput"
    best_first = sorted(report.entries, key=lambda each: -each.rate(report.objective))
    return "\n".join(
        [
            introduction,
            "",
            f"|  | {heads} | cores | bertd takes |",
            "|---|---:|---|---:|---:|---:|---:|---:|",
            *(_goodput_row(report, each) for each in best_first),
            *(
                f"| {name} | skipped: {reason} | | | | | | |"
                for name, reason in sorted(report.skipped.items())
            ),
            "",
            _verdict(report),
            "",
            report.noise.verdict,
            "",
            f"`{report.command}`",
        ]
    )


def _goodput_row(report: GoodputReport, each: ContestantRamps) -> str:
    objective, steps = report.objective, each.steps()
    there = [step for step in steps if step.meets(objective)]
    at = max(there, key=lambda step: step.rate, default=None)
    most = max((step.goodput(objective) for step in steps), default=0.0)
    cells = [
        each.name,
        f"{each.rate(objective):.0f}",
        ", ".join(f"{rate:.0f}" for rate in each.rates(objective)),
        _ms(at, 0.5),
        _ms(at, SHARE),
        f"{most:.0f}",
        f"{at.cores:.2f}" if at else "-",
        _ratio(report, each),
    ]
    return f"| {' | '.join(cells)} |"


def _ratio(report: GoodputReport, each: ContestantRamps) -> str:
    ratio = report.ratio(each)
    if each.name == OURS or ratio is None:
        return ""
    found = report.interval(each)
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


def front_end(report: FrontReport) -> str:
    """What a message costs beside an echo."""
    introduction = (
        f"{report.model}, texts of {report.tokens} tokens, {report.workers} calls at once, "
        f"{report.machine.cpu}, load {report.machine.load_average[0]:.2f} before the run. "
        f"CPU time of the whole server process; medians of {len(report.rows[0].bertd)} rounds."
    )
    lines = [
        introduction,
        "",
        "| | a message | echo of its sizes | ratio | a text | over one echo call | wanted | |",
        "|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    for row in report.rows:
        share = row.cost / row.texts / report.echo_call
        limit = UNARY_LIMIT if row.name == UNARY else BULK_LIMIT
        measured = row.ratio if row.name == UNARY else share
        lines.append(
            f"| {row.name} | {row.cost * 1e6:.0f} µs | {row.echo_cost * 1e6:.0f} µs "
            f"| {row.ratio:.2f} | {row.cost / row.texts * 1e6:.0f} µs | {share:.2f} "
            f"| ≤ {limit:.1f} | {'met' if measured <= limit else '**missed**'} |"
        )
    return "\n".join(lines)


def _goodput_section(folder: Path) -> str:
    plain = folder / "load.json"
    path = plain if plain.exists() else folder / "load.json.gz"
    return goodput(results.read(path, GoodputReport, "load"))


SECTIONS = (
    Section("docs/lab/load.md", "load", _goodput_section),
    Section(
        "docs/lab/load.md",
        "front-end",
        lambda folder: front_end(results.read(folder / "front-end.json", FrontReport, "front-end")),
    ),
)
