"""What the worst legal call does to a server: ``python tests/tools/worst_calls.py``.

::

    rows of tests/robustness/worst_calls.py ──drill──> tests/tools/worst_calls.json ──> docs/load.md

All rows take about a quarter of an hour; ``-k WORD`` drills those whose name has it, and leaves the
others as they were. ``--tree FOLDER --as before`` drills the server of another checkout, for the
column to compare with. ``--document`` only writes the document anew. ``--against FOLDER`` drills
nothing, and prints how much memory the largest calls alone take of both checkouts, in turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from robustness import drill  # noqa: E402 - found through the line above
from robustness.drill import Drill, Result, Waits  # noqa: E402
from robustness.worst_calls import BY_NAME, ROWS  # noqa: E402

DOCUMENT = ROOT / "docs/load.md"
RESULTS = Path(__file__).with_suffix(".json")
BEGIN, END = "<!-- made by tests/tools/worst_calls.py -->", "<!-- /made -->"
LARGEST = (  # D1, D5 and D6 of the cases
    "InferenceService/Embed: windows",
    "InferenceService/EmbedTokens: answer",
    "InferenceService/TagTokens: characters",
)
PEAK_SECONDS = 15.0  # that a call may take, then it is cancelled
QUICK = ("--warmup-seconds", "0.1", "--calibration-seconds", "1")
NOW, BEFORE = "now", "before"
SECONDS = 3.0  # of each part of a drill
HEADER = (
    "| call | alone | p99 | longest | memory peak | back | refusal | end | |",
    "|---|---|---:|---:|---:|---:|---:|---:|---|",
)
_PACKAGES = ("server", "protos", "client", "export")
_CODES = {"OK": "answered", "CANCELLED": "given up", "RESOURCE_EXHAUSTED": "refused for now"}

Saved = dict[str, Any]  # "idle": waits beside an idle server, "rows": results by their names


def table(saved: Saved, earlier: Saved) -> list[str]:
    """Lines of the table; what an earlier server did stands in brackets."""
    results, idle = _read(saved)
    before, idle_before = _read(earlier)
    lines = list(HEADER)
    for row in ROWS:
        if row.name in results:
            old = before.get(row.name)
            cells = _cells(results[row.name], idle)
            beside = _cells(old, idle_before) if old else [""] * len(cells)
            marks = "; ".join(drill.faults(results[row.name], idle)) or "held"
            both = [
                f"{new} ({was})" if was else new for new, was in zip(cells, beside, strict=True)
            ]
            lines.append(f"| {row.name} | {' | '.join(both)} | {marks} |")
    return lines


def _read(saved: Saved) -> tuple[dict[str, Result], list[Waits]]:
    rows = {name: drill.from_json(each) for name, each in saved.get("rows", {}).items()}
    return rows, [Waits(**each) for each in saved.get("idle", [])]


def _cells(found: Result, idle: Sequence[Waits]) -> list[str]:
    outcomes = ", ".join(
        f"{count} {_CODES.get(code, 'refused')}" for code, count in sorted(found.outcomes.items())
    )
    refusal = f"{1e3 * found.refusal:.0f} ms" if found.refusal else ""
    if found.alone is None:
        return [outcomes, "", "", "", "", refusal, ""]
    p99, longest = drill.ratios(found, idle)
    return [
        outcomes,
        f"{p99:.1f}",
        f"{longest:.1f}",
        f"+{max(0, found.peak - found.before) / 2**20:.0f} MiB",
        f"{found.back_seconds:.0f} s" if found.back_seconds <= drill.RECOVERY_SECONDS else "no",
        refusal,
        f"{found.end_seconds:.1f} s",
    ]


def written(document: str, lines: Iterable[str]) -> str:
    """A document with this table in its place."""
    before, _, rest = document.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n\n" + "\n".join(lines) + f"\n\n{END}{after}"


def drilled(names: Sequence[str], models: Path | None, flags: Sequence[str]) -> Saved:
    """Drill rows, one after the other, and say how each went."""
    rows = [row for row in ROWS if not names or any(name in row.name for name in names)]
    with tempfile.TemporaryDirectory() as scratch:
        root = models or Path(scratch) / "models"
        if not root.exists():
            drill.make_models(root, minilm=True)
        results: dict[str, Any] = {}
        with Drill(root, Path(scratch), *flags, seconds=SECONDS) as running:
            for row in rows:
                found = running.run(row)
                if not row.beyond:
                    running.end(row, found)
                results[row.name] = drill.as_json(found)
                said = drill.faults(found, running.idle) if running.idle else []
                print(row.name, "; ".join(said) or "held", sep=": ", flush=True)
            return {"idle": list(map(asdict, running.idle)), "rows": results}


def peaks(tree: Path, models: Path, turns: int = 3) -> None:
    """Print what the largest calls take at most beyond an idle server, of two trees in turns."""
    found: dict[tuple[str, Path], list[int]] = {}
    for _ in range(turns):
        for name in LARGEST:
            for each in (tree, ROOT):
                _serve_from(each)
                with (
                    tempfile.TemporaryDirectory() as scratch,
                    Drill(models, Path(scratch), *QUICK, seconds=PEAK_SECONDS) as running,
                ):
                    found.setdefault((name, each), []).append(running.peak(BY_NAME[name]))
    for (name, each), sizes in found.items():
        middle = statistics.median(sizes) / 2**20
        print(f"{name}, {each}: +{middle:.0f} MiB of {[size >> 20 for size in sizes]}")


def _serve_from(tree: Path) -> None:
    """Have servers that are started from now on run the code of a checkout."""
    paths = [str(tree.resolve() / each) for each in _PACKAGES]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)


def merged(saved: Saved, more: Saved) -> Saved:
    """Rows of both, the newer one's where both have one."""
    return {
        "idle": more["idle"] or saved.get("idle", []),
        "rows": saved.get("rows", {}) | more["rows"],
    }


def main() -> None:
    """Drill and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("-k", nargs="*", default=[], metavar="WORD", help="only rows with it")
    parser.add_argument("--tree", type=Path, help="another checkout whose server is drilled")
    parser.add_argument("--as", dest="column", choices=[NOW, BEFORE], default=NOW)
    parser.add_argument("--models", type=Path, help="a folder for the models, kept for next time")
    parser.add_argument("--against", type=Path, help="another checkout to compare peaks with")
    parser.add_argument("--document", action="store_true", help="drill nothing")
    parser.add_argument("flags", nargs="*", help="of the server, after --")
    given = parser.parse_args()
    if given.against:
        if not given.models:
            parser.error("--against needs --models, a folder for the models that both serve")
        if not given.models.exists():
            drill.make_models(given.models, minilm=True)
        peaks(given.against, given.models)
        return
    saved: Mapping[str, Saved] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if not given.document:
        if given.tree:
            _serve_from(given.tree)
        more = drilled(given.k, given.models, given.flags)
        saved = {**saved, given.column: merged(saved.get(given.column, {}), more)}
        RESULTS.write_text(json.dumps(saved, indent=1) + "\n", encoding="utf-8")
    lines = table(saved.get(NOW, {}), saved.get(BEFORE, {}))
    DOCUMENT.write_text(written(DOCUMENT.read_text(encoding="utf-8"), lines), encoding="utf-8")


if __name__ == "__main__":
    main()
