"""The measured parts of docs/lab/engine.md, each from every committed result of the engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from bertd_bench.docs import Section, links
from bertd_bench.engine.results import EngineReport
from bertd_bench.harness.results import read

DOCUMENT = "docs/lab/engine.md"


def render(report: EngineReport) -> str:
    """All parts that a report has."""
    parts = [memory(report), bits(report), times(report)]
    return "\n\n".join(part for part in parts if part)


def times(report: EngineReport) -> str:
    """Padding, lanes and operators."""
    if not report.padding:
        return ""
    machine = report.machine
    about = (
        f"{report.model}, {report.precision}, {report.threads} threads, {report.lanes} lanes; "
        f"{machine.cpu}, {machine.usable_threads} usable threads, ONNX Runtime "
        f"{machine.versions['onnxruntime']}, load {machine.load_average[0]:.2f} before the run."
    )
    blocks = [
        about,
        _table(
            ["ms", *report.padding[0].milliseconds, "mixed / equal", "together / apart"],
            [
                [
                    tax.session,
                    *(f"{value:.2f}" for value in tax.milliseconds.values()),
                    f"{tax.mixed_to_equal:.2f}",
                    f"{tax.together_to_apart:.2f}",
                ]
                for tax in report.padding
            ],
        ),
        _table(
            [
                "ms of a batch",
                "lane alone",
                "lane, all busy",
                "wide",
                "lanes / wide, batches a second",
            ],
            [
                [
                    row.batch,
                    f"{row.lane_alone:.2f}",
                    f"{row.lane_busy:.2f}",
                    f"{row.wide:.2f}",
                    f"{row.lanes_to_wide:.2f}x",
                ]
                for row in report.lane_rows
            ],
        ),
    ]
    kinds = list(dict.fromkeys(kind for each in report.operators.values() for kind in each))[:8]
    shares = [
        [name, *(f"{100 * each.get(kind, 0):.1f} %" for kind in kinds)]
        for name, each in report.operators.items()
    ]
    blocks.append(_table(["share of operators, one thread", *kinds], shares))
    return "\n\n".join(blocks)


def memory(report: EngineReport) -> str:
    """One sentence."""
    found = report.memory
    if found is None:
        return ""
    limit = f", limit {_mib(found.limit)}" if found.limit else ""
    return (
        f"- {report.model}, {report.precision}, {report.lanes} lanes{limit}: "
        f"{_mib(found.first_bytes)} after every shape and token, "
        f"{_mib(found.warm_bytes)} after 500 random batches, "
        f"{_mib(found.samples_bytes[-1])} after {found.batches:,} more of up to "
        f"{found.max_batch_tokens} tokens ({100 * found.growth:+.1f} %), "
        f"{_mib(max(found.samples_bytes))} at most."
    )


def bits(report: EngineReport) -> str:
    """One sentence."""
    found = report.identity
    if found is None:
        return ""
    return (
        f"- {report.model}, {report.precision}: of {found.texts:,} answers in {found.batches:,} "
        f"random batches, on {report.lanes} lanes at once and on the wide session with "
        f"{report.threads} threads, {found.different} had other bits than the text alone."
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first are numbers."""
    lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _mib(amount: float) -> str:
    return f"{amount / 2**20:.0f} MiB"


def _reports(folder: Path) -> Iterator[EngineReport]:
    for path in sorted(folder.glob("engine-*.json")):
        yield read(path, EngineReport, "engine")


def _sentences(parts: Iterator[str]) -> str:
    return "\n".join(part for part in parts if part)


def _times(folder: Path) -> str:
    """Of every report, with links to them."""
    files = [path.name for path in sorted(folder.glob("engine-*.json"))]
    linked = [f"[`{name}`]({links.to_result(name, DOCUMENT)})" for name in files]
    return "\n\n".join([*map(times, _reports(folder)), f"From {', '.join(linked)}."])


SECTIONS = (
    Section(DOCUMENT, "engine", _times),
    Section(DOCUMENT, "memory", lambda folder: _sentences(map(memory, _reports(folder)))),
    Section(DOCUMENT, "identity", lambda folder: _sentences(map(bits, _reports(folder)))),
)
