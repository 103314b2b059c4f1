"""Changes as a table for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from bertd_bench.regression.baseline import Baseline, Change


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


def table(found: Baseline, link: str) -> str:
    """A baseline as Markdown.

    Args:
        found: the baseline.
        link: where its JSON file is, as seen from the document.
    """
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
