"""Whether two runs say the same: `bertd bench agree A.json B.json`, of ratios and their intervals.

::

    A, B ──kind──> name: ratio ──intervals overlap?──> a sentence, then a table
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from bertd_bench.compare.document import against_ours, shown
from bertd_bench.compare.results import Comparison, ratio
from bertd_bench.harness.intervals import Ratio
from bertd_bench.harness.results import document_of
from bertd_bench.load.results import GoodputReport

Ratios = Mapping[str, Ratio]


def read(path: Path) -> dict[str, Ratio]:
    """The ratios of bertd over each peer in a result of `compare` or `load`.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no such result, or has no interval: one round says nothing of it.
    """
    found = document_of(path)
    kind = found.get("benchmark") if isinstance(found, dict) else None
    try:
        if kind == "load":
            ratios = _of_load(GoodputReport.model_validate(found))
        elif kind == "compare":
            ratios = _of_comparison(Comparison.model_validate(found))
        else:
            raise ValueError(f"{path} has no ratios: give results of `bertd bench load` or compare")
    except ValidationError as error:
        raise ValueError(f"{path} is a result of another version: measure it anew") from error
    if any(each.interval is None for each in ratios.values()):
        raise ValueError(f"{path} has ratios without an interval: measure two rounds at least")
    return ratios


def agrees(a: Ratio, b: Ratio) -> bool:
    """Whether their intervals overlap."""
    if a.interval is None or b.interval is None:
        return False
    return a.interval.low <= b.interval.high and b.interval.low <= a.interval.high


def apart(a: Ratios, b: Ratios) -> list[str]:
    """Names of both whose ratios do not agree."""
    return [name for name in a if name in b and not agrees(a[name], b[name])]


def render(a: Ratios, b: Ratios) -> str:
    """A verdict in a sentence, then the table.

    Raises:
        ValueError: they share no ratio.
    """
    shared = [name for name in a if name in b]
    if not shared:
        raise ValueError("the two share no ratio: measure the same model and peers in both")
    wrong = apart(a, b)
    verdict = f"All {len(shared)} ratios agree within their 95 % intervals."
    if wrong:
        verdict = f"{len(wrong)} of {len(shared)} ratios do not agree: {'; '.join(wrong)}."
    lines = [verdict, "", "| bertd over | A | B | |", "|---|---|---|---|"]
    lines += [
        f"| {name} | {shown(a[name])} | {shown(b[name])} | {'no' if name in wrong else 'agree'} |"
        for name in shared
    ]
    return "\n".join(lines)


def _of_load(report: GoodputReport) -> dict[str, Ratio]:
    return {
        f"{report.model}, {ours.name} over {each.name}": found
        for ours in report.entries
        if ours.own
        for each in report.entries
        if not each.own and (found := report.ratio(ours, each)) is not None
    }


def _of_comparison(found: Comparison) -> dict[str, Ratio]:
    return {
        f"{subject.model}, {subject.task}, {subject.threads} threads, {case.name}, {row.name}": (
            ratio(row, ours)
        )
        for subject in found.subjects
        for case, row, ours in against_ours(subject.cases)
    }
