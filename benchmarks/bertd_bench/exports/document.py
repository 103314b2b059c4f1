"""Results of `bertd bench exports` as Markdown: for the terminal, and for docs/export.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bertd_bench.docs import Section, link_to_result
from bertd_bench.exports.exports import PRECISIONS, TASKS, ExportRow, ExportTable
from bertd_bench.exports.speed import CASES, STEADY, Speed
from bertd_bench.harness.results import read

_HEAD = ("model", "task", "precision", "largest difference", "agreement", "MB")


def to_markdown(matrix: ExportTable) -> str:
    """The rows as a table, the refusals below it, and how all of it was measured."""
    timed = {case for row in matrix.rows for case in row.speed}
    cases = [case for case in CASES if case in timed]
    head = [*_HEAD, *cases]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * 3}{'---:|' * (len(head) - 3)}"]
    rows = sorted(matrix.rows, key=_place)
    lines += [_line(row, cases) for row in rows if not row.refused]
    refused = [row for row in rows if row.refused]
    if refused:
        lines += ["", "Refused:", ""]
        lines += [f"- {row.model}, {row.task}, {row.precision}: {row.refused}" for row in refused]
    return "\n".join([*lines, "", _caption(matrix)])


def _place(row: ExportRow) -> tuple[str, str, int, int]:
    """Models by name, tasks and precisions in the order of their definition."""
    tasks = (*TASKS, row.task)
    return row.model, row.size, tasks.index(row.task), PRECISIONS.index(row.precision)


def _line(row: ExportRow, cases: Sequence[str]) -> str:
    cells = [
        f"{row.model}, {row.size}" if row.size else row.model,
        row.task,
        row.precision,
        f"{max(row.parity.values()):.1e}",
        "" if row.agreement is None else f"{row.agreement:.4f}",
        f"{row.bundle_bytes / 1e6:.0f}",
        *(_ratio(row.speed[case]) if case in row.speed else "" for case in cases),
    ]
    return f"| {' | '.join(cells)} |"


def _ratio(found: Speed) -> str:
    return f"{'~' if found.disturbed else ''}{found.ratio:.2f}x"


def _caption(matrix: ExportTable) -> str:
    speeds = [found for row in matrix.rows for found in row.speed.values()]
    said = f"{matrix.threads} threads, {matrix.machine.cpu}"
    if not speeds:
        return f"{said}."
    calls = [each.calls for found in speeds for each in (found.eager, found.engine)]
    text = f"{said}; {min(calls)} to {max(calls)} calls of each contestant for a cell."
    if any(found.disturbed for found in speeds):
        text += (
            f" ~ marks a cell that was disturbed: half of a contestant's calls spread over more "
            f"than {100 * STEADY:.0f} % of the median."
        )
    return text


_PAGE = "docs/export.md"


def _render(results: Path) -> str:
    """One table, with its caption, for each result."""
    parts = []
    for path in sorted(results.glob("exports-*.json")):
        link = link_to_result(path.name, _PAGE)
        parts.append(f"{to_markdown(read(path, ExportTable, 'exports'))} Raw: [`{link}`]({link}).")
    return "\n\n".join(parts)


SECTIONS = (Section(_PAGE, "exports", _render),)
