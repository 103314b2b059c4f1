"""Changes as a table for a terminal; for documents the baseline, and whether repeats agree."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bertd_bench.compare.document import folded
from bertd_bench.docs import Section, link_to_result
from bertd_bench.harness.results import read, repeated
from bertd_bench.regression import agree
from bertd_bench.regression.baseline import Baseline, Change

_PAGE = "docs/lab/benchmarks.md"


def render(found: Sequence[Change], bound: float) -> str:
    """Each case, before and now, in times of the kernel."""
    width = max(len(each.name) for each in found)
    lines = [f"{'':{width}}  baseline       now   change"]
    for each in found:
        between = (
            f"({each.interval.low:.2f} to {each.interval.high:.2f})" if each.interval else "(?)"
        )
        mark = "  SLOWER" if each.slower_than(bound) else ""
        mark = "  faster" if each.faster_than(bound) else mark
        lines.append(
            f"{each.name:{width}}  {each.before:8.3f}  {each.now:8.3f}   "
            f"{each.value:.2f}x {between}{mark}"
        )
    return "\n".join(lines)


def table(results: Path) -> str:
    """The committed baseline as Markdown."""
    found = read(results / "baseline.json", Baseline, "regress")
    link = link_to_result("baseline.json", _PAGE)
    introduction = (
        f"`{found.command}`: {found.model}, {found.threads} threads, {found.machine.cpu}, load "
        f"{found.machine.load_average[0]:.2f} before the run; the kernel took "
        f"{found.noise.calibration / 1e6:.2f} ms. Raw samples and versions: [`{link}`]({link})."
    )
    lines = [introduction, "", "| | ms | of the kernel |", "|---|---:|---:|"]
    lines += [
        f"| {case.name} | {case.median_ms:.2f} | {found.ratio(case):.3f} |" for case in found.cases
    ]
    return "\n".join([*lines, "", found.noise.verdict])


def agreement(results: Path) -> str:
    """Of each committed result that was repeated, whether its ratios came again."""
    parts = []
    for path, again in repeated(results):
        said, _, rows = agree.render(agree.read(path), agree.read(again)).partition("\n\n")
        names = " and ".join(
            f"[`{each.name}`]({link_to_result(each.name, _PAGE)})" for each in (path, again)
        )
        parts += [f"{names}: {said}", *folded("Both", rows)]
    return "\n\n".join(parts) or "Not repeated yet: `make comparison`."


SECTIONS = (Section(_PAGE, "baseline", table), Section(_PAGE, "agreement", agreement))
