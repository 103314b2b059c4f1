"""README's measured numbers, written from a committed result, so that none is typed by hand."""

from __future__ import annotations

from bertd_bench.contestants import EAGER_ONE_BY_ONE, ENGINE, GRPC
from bertd_bench.report import CaseResult, Report, Result


def render(report: Report, link: str) -> str:
    """Write a comparison as Markdown: what was measured, a table of ratios, the transport's cost.

    Args:
        report: a report of `bertd bench compare`.
        link: where its JSON file is, as seen from the README.

    Raises:
        ValueError: the report is of another benchmark, or lacks a contestant.
    """
    if report.benchmark != "compare":
        raise ValueError(
            f"{link} is a report of {report.benchmark}: give one of `bertd bench compare`"
        )
    machine = report.machine
    calls = min(len(result.samples_ns) for case in report.cases for result in case.results)
    load = f"load {machine.load_average[0]:.2f} before the run"
    if machine.busy:
        load += ", which is busy: measure again before you trust a ratio"
    ours = [
        result.contestant
        for result in report.cases[0].results
        if result.contestant not in (report.baseline, EAGER_ONE_BY_ONE)
    ]
    introduction = (
        f"Median time of {report.baseline}, and how many times as fast bertd was: {report.model}, "
        f"{report.threads} threads, {calls} calls each, {machine.cpu} "
        f"({load}). Samples, percentiles and versions: [`{link}`]({link})."
    )
    lines = [
        introduction,
        "",
        f"| | {' | '.join([report.baseline, *ours])} |",
        "|---" * (2 + len(ours)) + "|",
    ]
    for case in report.cases:
        lines.extend(_rows(case, report.baseline, ours))
    shortest = min(report.cases, key=lambda case: case.tokens)
    transport = _median(shortest, GRPC) - _median(shortest, ENGINE)
    cost = (
        f"With {shortest.tokens} tokens the transport takes {transport:.1f} ms of a call; "
        "the texts of one call share it."
    )
    return "\n".join([*lines, "", cost])


def _rows(case: CaseResult, baseline: str, ours: list[str]) -> list[str]:
    """One row against the baseline, and one against eager one by one where there is that."""
    names = {result.contestant for result in case.results}
    if EAGER_ONE_BY_ONE not in names:
        return [_row(case.case, case, baseline, ours)]
    return [
        _row(f"{case.case}, {case.tokens} tokens, padded", case, baseline, ours),
        _row("the same, one by one", case, EAGER_ONE_BY_ONE, ours),
    ]


def _row(title: str, case: CaseResult, against: str, ours: list[str]) -> str:
    reference = _median(case, against)
    ratios = [f"{reference / _median(case, name):.2f}x" for name in ours]
    return f"| {' | '.join([title, f'{reference:.1f} ms', *ratios])} |"


def _median(case: CaseResult, contestant: str) -> float:
    """Median of a contestant in milliseconds."""
    found: list[Result] = [r for r in case.results if r.contestant == contestant]
    if not found:
        raise ValueError(f"{case.case}: the report has no {contestant}")
    return found[0].summary.median
