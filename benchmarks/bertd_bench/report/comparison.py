"""Charts of the comparison: how many times as fast bertd was as each peer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bertd_bench.compare import document
from bertd_bench.compare.results import Case, Comparison, Subject, ratio
from bertd_bench.harness.texts import MIXED_BATCH, MIXED_LENGTHS, title_of
from bertd_bench.report.chart import MARKS, Chart, Missing, Palette

REMEDY = "bertd bench compare --json benchmarks/results/compare.json"


def of(comparisons: Sequence[Comparison]) -> list[Chart | Missing]:
    """All charts of comparisons, the standard one first."""
    if not comparisons:
        return [Missing("speedup", "Times as fast as each peer", REMEDY)]
    subjects = [subject for each in comparisons for subject in each.subjects]
    return [_mixed(), *(_speedup(subject, number) for number, subject in enumerate(subjects))]


def _mixed() -> Chart:
    """What the mixed batch is."""
    numbers = range(1, len(MIXED_LENGTHS) + 1)

    def draw(axes: Any, colours: Palette) -> None:
        axes.bar(numbers, MIXED_LENGTHS, color=colours.series[0])
        axes.axhline(max(MIXED_LENGTHS), color=colours.ink, linewidth=1, linestyle="--")
        axes.set_xlabel("text of the batch (line: what padding makes of each)")
        axes.set_ylabel("tokens")

    padded = len(MIXED_LENGTHS) * max(MIXED_LENGTHS)
    return Chart(
        key="mixed",
        title="The mixed batch",
        says=f"{MIXED_BATCH}; padded to the longest they are {padded:,}.",
        heads=["text", "tokens"],
        rows=[[str(n), str(length)] for n, length in zip(numbers, MIXED_LENGTHS, strict=True)],
        draw=draw,
        inches=2.6,
    )


def _widest(subject: Subject) -> Case:
    """The mixed batch, or else the largest case."""
    return max(subject.cases, key=lambda case: (len(set(case.lengths)), sum(case.lengths)))


def _named(subject: Subject) -> str:
    threads = "1 thread" if subject.threads == 1 else f"{subject.threads} threads"
    return f"{subject.model}, {subject.task}, {threads}"


def _speedup(subject: Subject, number: int) -> Chart:
    every = document.against_ours(subject.cases)
    name = _widest(subject).name
    drawn = sorted(
        ((row, ratio(row, ours)) for case, row, ours in every if case.name == name),
        key=lambda pair: pair[1].value,
    )
    names = list(dict.fromkeys(row.name for _, row, _ in every))
    cases = sorted(document.by_name(subject), key=lambda case: case != name)
    cells = {(row.name, case.name): document.shown(ratio(row, ours)) for case, row, ours in every}
    kinds = {row.name: row.precision for _, row, _ in every}

    def draw(axes: Any, colours: Palette) -> None:
        for place, (row, value) in enumerate(drawn):
            at = 0 if row.precision == "fp32" else 1
            colour = colours.series[at]
            if value.interval is not None:
                ends = [value.interval.low, value.interval.high]
                axes.plot(ends, [place] * 2, color=colour, linewidth=2.2, solid_capstyle="butt")
            axes.plot(value.value, place, MARKS[at], color=colour, markersize=6)
        axes.axvline(1, color=colours.ink, linewidth=1)
        axes.set_yticks(range(len(drawn)), [row.name for row, _ in drawn])
        axes.set_ylim(-0.6, max(len(drawn), 1) - 0.4)
        axes.set_xlim(left=min([0.8, *(value.value * 0.9 for _, value in drawn)]))
        axes.set_xlabel(f"times as fast, {title_of(name)}")

    closest = f"{drawn[0][0].name}, {drawn[0][1].value:.2f} times" if drawn else "none"
    return Chart(
        key=f"speedup-{number + 1}",
        title=f"Times as fast as each peer: {_named(subject)}",
        says=(
            f"How many times as fast bertd was as each peer, {len(names)} in all, on "
            f"{title_of(name)}, by medians, with 95 % intervals. Round marks are float32, "
            "square ones lower precision, compared with bertd in int8. The nearest peer: "
            f"{closest}."
        ),
        heads=["peer", "precision", *map(title_of, cases)],
        rows=[
            [each, kinds[each], *(cells.get((each, case), "") for case in cases)] for each in names
        ],
        draw=draw,
        inches=1.3 + 0.28 * max(len(drawn), 2),
        open=True,
    )
