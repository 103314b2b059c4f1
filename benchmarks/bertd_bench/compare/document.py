"""Comparisons as Markdown: ratios with intervals, rows where bertd is not ahead marked.

::

    compare.json, compare-*.json ─┬─render──> docs/lab/benchmarks.md: every model and peer
                                  └─summary─> README.md: against eager and the best of each kind
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from bertd_bench.compare.results import (
    Case,
    Comparison,
    ContestantTimes,
    Subject,
    committed,
    ratio,
)
from bertd_bench.contestants.ours import ENGINE, ENGINE_INT8, GRPC
from bertd_bench.contestants.torch_eager import REFERENCE
from bertd_bench.docs import Section, link_to_result
from bertd_bench.harness.intervals import Ratio
from bertd_bench.harness.texts import MIXED_BATCH, title_of

LinkedComparison = tuple[
    str, Comparison
]  # where its JSON file is, as seen from the document; and what it says
_LEGEND = (
    "Each cell says how many times as fast bertd was, by medians, with a 95 % interval. fp32 peers "
    "are compared with bertd in fp32, bf16 and int8 peers with bertd in int8. Where bertd is not "
    "surely ahead the cell is bold: *even* if the interval holds 1, *behind* if it is below. "
    f"{MIXED_BATCH}."
)
_RIVALS = {"fp32": ENGINE, "bf16": ENGINE_INT8, "int8": ENGINE_INT8}  # who of ours is compared


def against_ours(cases: Iterable[Case]) -> list[tuple[Case, ContestantTimes, ContestantTimes]]:
    """Every peer's row, with that of ours that it is compared with."""
    return [
        (case, row, ours)
        for case in cases
        for row in case.rows
        if not row.own
        if (ours := case.row(_RIVALS[row.precision])) is not None
    ]


def best(
    cases: Iterable[Case], precisions: tuple[str, ...]
) -> tuple[ContestantTimes, Ratio] | None:
    """The peer nearest to bertd in the same precision, or furthest ahead; None without any."""
    found = [
        (row, ratio(row, ours))
        for _, row, ours in against_ours(cases)
        if row.precision in precisions
    ]
    return min(found, key=lambda one: one[1].value, default=None)


def shown(value: Ratio) -> str:
    """A ratio with its interval, marked unless bertd is surely ahead."""
    text = f"{value.value:.2f}x"
    if value.interval is not None:
        text += f" ({value.interval.low:.2f} to {value.interval.high:.2f})"
    if value.ahead:
        return text
    return f"**{text} {'behind' if value.behind else 'even'}**"


def milliseconds(row: ContestantTimes) -> str:
    """A median, with three digits that mean something."""
    value = row.measured.median_ms
    return f"{value:.2f} ms" if value < 10 else f"{value:.1f} ms"


def by_name(subject: Subject) -> dict[str, list[Case]]:
    """The cases of each name: several where memory cut the peers into groups."""
    found: dict[str, list[Case]] = {}
    for case in subject.cases:
        found.setdefault(case.name, []).append(case)
    return found


def render(found: Sequence[LinkedComparison]) -> str:
    """The page's section: for each model the ratios, then who did what, then what was not.

    Args:
        found: comparisons, the standard one first.
    """
    parts = [_LEGEND]
    for link, comparison in found:
        parts.append(_introduction(comparison, link))
        for subject in comparison.subjects:
            parts.append(f"### {subject.model}, {subject.task}, {subject.threads} threads")
            parts.append(_ratios(subject))
            parts += folded("Cores used, batches, agreement", _conduct(subject))
            parts += folded("Not timed", *_left_out(subject))
        parts += _noise(comparison)
    return "\n\n".join(parts)


def folded(title: str, *parts: str) -> list[str]:
    """Parts under a title that opens them; nothing of none."""
    if not parts:
        return []
    return [f"<details><summary>{title}</summary>", *parts, "</details>"]


def _introduction(comparison: Comparison, link: str) -> str:
    here = comparison.machine
    quota = "none" if here.quota_cores is None else f"{here.quota_cores:g} cores"
    facts = [
        here.cpu,
        f"{here.usable_threads} usable threads",
        f"{here.threads_per_core or 'unknown'} per core",
        f"quota {quota}",
        f"governor {here.governor or 'not readable'}",
        f"kernel {here.kernel or here.system}",
        f"load {here.load_average[0]:.2f} before the run",
    ]
    note = f"{comparison.note}\n\n" if comparison.note else ""
    return (
        f"{note}`{comparison.command}`: {comparison.rounds} rounds; {', '.join(facts)}. Raw "
        f"samples and versions: [`{link}`]({link})."
    )


def _contestants(subject: Subject) -> dict[str, list[tuple[Case, ContestantTimes]]]:
    """The rows of each contestant, with their cases."""
    found: dict[str, list[tuple[Case, ContestantTimes]]] = {}
    for case in subject.cases:
        for row in case.rows:
            found.setdefault(row.name, []).append((case, row))
    return found


def _ratios(subject: Subject) -> str:
    names = list(by_name(subject))
    lines = [f"| | {' | '.join(map(title_of, names))} |", "|---" + "|---:" * len(names) + "|"]
    order = list(_RIVALS)
    for pairs in sorted(
        _contestants(subject).values(),
        key=lambda pairs: (order.index(pairs[0][1].precision), not pairs[0][1].own),
    ):
        cells = {case.name: _cell(case, row) for case, row in reversed(pairs)}
        first = pairs[0][1]
        label = f"**{first.name}**" if first.own else first.name
        lines.append(f"| {label} | {' | '.join(cells.get(name, '') for name in names)} |")
    return "\n".join(lines)


def _cell(case: Case, row: ContestantTimes) -> str:
    ours = None if row.own else case.row(_RIVALS[row.precision])
    return milliseconds(row) if ours is None else shown(ratio(row, ours))


def _conduct(subject: Subject) -> str:
    """What each contestant used, how it took a batch, and how near its answers were."""
    lines = [
        "| | cores used | a batch was handed over | furthest from eager | lowest cosine |",
        "|---|---:|---|---:|---:|",
    ]
    for name, pairs in _contestants(subject).items():
        rows = [row for _, row in pairs]
        seen = [row.measured for row in rows]
        ways = {
            title_of(case.name): row.handling
            for case, row in pairs
            if len(case.lengths) > 1 and not row.own
        }
        unsteady = sum(each.warmup is not None and not each.warmup.steady for each in seen)
        note = f", unsteady in {unsteady} of {len(rows)}" if unsteady else ""
        used = "not counted"
        if any(each.turn_seconds for each in seen):
            used = f"{max(each.cores for each in seen):.2f}"
        if any(each.over_budget for each in seen):
            used += f" **over its {subject.threads}**"
        lines.append(
            f"| {name}{note} | {used} | {'; '.join(f'{case}: {way}' for case, way in ways.items())}"
            f" | {max(row.difference for row in rows):.0e} | "
            f"{min(row.cosine for row in rows):.4f} |"
        )
    return "\n".join(lines)


def _left_out(subject: Subject) -> list[str]:
    said = [f"- {name}: {reason}" for name, reason in subject.skipped.items()]
    said += [
        f"- {name}, {case.name}: {reason}"
        for case in subject.cases
        for name, reason in case.refused.items()
    ]
    return ["\n".join(said)] if said else []


def _noise(comparison: Comparison) -> list[str]:
    noisy = comparison.noisy
    total = sum(len(subject.cases) for subject in comparison.subjects)
    if not noisy:
        return [f"The machine was quiet in all {total} cases."]
    title = f"The machine was noisy in {len(noisy)} of {total} cases"
    return folded(title, "\n".join(f"- {each}" for each in noisy))


def summary(found: Sequence[LinkedComparison]) -> str:
    """README's table: the first model against eager, and against the best peer of each kind.

    Args:
        found: comparisons, the standard one first; of all models but its first, the widest case.

    Raises:
        ValueError: bertd or eager is not in one.
    """
    link, comparison = found[0]
    subject = comparison.subjects[0]
    introduction = (
        f"Medians of bertd in process, and how many times as fast it was as PyTorch eager and as "
        f"the fastest peer of each precision, with 95 % intervals: {subject.model}, "
        f"{subject.threads} threads, {comparison.rounds} rounds, {comparison.machine.cpu}. "
        f"Samples and versions: [`{link}`]({link}).{comparison.note and ' ' + comparison.note}"
    )
    warning = []
    if any(each.noisy for _, each in found):
        warning = ["The machine was noisy: measure again before you trust a ratio.", ""]
    lines = [
        introduction,
        "",
        *warning,
        "| | bertd | over eager | over the best fp32 | bertd int8 | over the best int8 or bf16 |",
        "|---|---:|---:|---|---:|---|",
        *(_summed(link, title_of(name), cases) for name, cases in by_name(subject).items()),
    ]
    rows: dict[str, str] = {}  # the first result of a subject counts, others have more lengths
    for link, each in found:
        for other in each.subjects:
            mixed = [case for case in other.cases if len(set(case.lengths)) > 1]
            if other is not subject and mixed:
                title = f"{title_of(mixed[0].name)}, {_named(other, subject)}"
                rows.setdefault(title, _summed(link, title, mixed))
    lines += rows.values()
    lines += ["", f"{MIXED_BATCH}.", "", *_transport(subject)]
    return "\n".join(lines).rstrip()


def _named(subject: Subject, first: Subject) -> str:
    """A subject, by what tells it from the first."""
    parts = [subject.model]
    if subject.task != first.task:
        parts.append(subject.task)
    if subject.threads != first.threads:
        parts.append(f"{subject.threads} threads" if subject.threads > 1 else "1 thread")
    return ", ".join(parts)


def _summed(link: str, name: str, cases: Sequence[Case]) -> str:
    ours, eager = cases[0].row(ENGINE), cases[0].row(REFERENCE)
    if ours is None or eager is None:
        raise ValueError(f"{link}, {name}: the comparison lacks {ENGINE} or {REFERENCE}")
    ours8 = cases[0].row(ENGINE_INT8)
    return (
        f"| {name} | {milliseconds(ours)} | {shown(ratio(eager, ours))} | "
        f"{_best(best(cases, ('fp32',)))} | {milliseconds(ours8) if ours8 else ''} | "
        f"{_best(best(cases, ('bf16', 'int8')))} |"
    )


def _best(found: tuple[ContestantTimes, Ratio] | None) -> str:
    return "none measured" if found is None else f"{shown(found[1])}, {found[0].name}"


def _transport(subject: Subject) -> list[str]:
    case = min(subject.cases, key=lambda one: sum(one.lengths))
    ours, served = case.row(ENGINE), case.row(GRPC)
    if ours is None or served is None:
        return []
    added = served.measured.median_ms - ours.measured.median_ms
    return [f"Over gRPC a call of {case.name} takes {added:.1f} ms more.", ""]


_PAGE, _README = "docs/lab/benchmarks.md", "README.md"


def _linked(results: Path, document: str) -> list[LinkedComparison]:
    return [(link_to_result(name, document), found) for name, found in committed(results)]


SECTIONS = (
    Section(_PAGE, "comparison", lambda results: render(_linked(results, _PAGE))),
    Section(_README, "comparison", lambda results: summary(_linked(results, _README))),
)
