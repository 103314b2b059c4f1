"""The footprint as Markdown: a sentence of README.md, a table of docs/deployment.md."""

from __future__ import annotations

import statistics
from pathlib import Path

from bertd_bench.docs import Section, link_to_result
from bertd_bench.harness.results import read
from bertd_bench.install.footprint import EXTRA, IMPORTS, Footprint

_NAME = "footprint.json"
_LISTED = 1e6  # bytes from which a package has a row of its own


def sentence(footprint: Footprint, link: str) -> str:
    """What README says: packages, imports and, where they were measured, cold starts."""
    client, server = (statistics.median(footprint.imports[module]) / 1e6 for module in IMPORTS)
    runs = min(len(samples) for samples in footprint.imports.values())
    described = footprint.machine
    busy = ", which is busy: measure again" if described.busy else ""
    starts = " against ".join(
        f"{statistics.median(samples) / 1e9:.1f} s of {name}"
        for name, samples in sorted(footprint.starts.items(), reverse=True)
    )
    first = f" From exec to the first right answer: {starts}." if starts else ""
    return (
        f"`pip install '.[{EXTRA}]'` brings {len(footprint.packages)} packages of "
        f"{footprint.megabytes:.0f} MB, no torch among them. What `bertd serve` imports takes "
        f"{server:.0f} ms, what the Python client imports {client:.0f} ms (medians of {runs}; "
        f"Python {described.versions['python']}, {described.cpu}, load "
        f"{described.load_average[0]:.2f} before the run{busy}; "
        f"[`{link}`]({link})).{first}"
    )


def table(footprint: Footprint, link: str) -> str:
    """The packages, the largest first; the small ones in one row."""
    ordered = sorted(footprint.packages, key=lambda package: -package.bytes)
    large = [package for package in ordered if package.bytes >= _LISTED]
    small = sorted(ordered[len(large) :], key=lambda package: package.name)
    rows = [f"| {p.name} {p.version} | {p.bytes / 1e6:.1f} |" for p in large]
    rest = ", ".join(f"{package.name} {package.version}" for package in small)
    python, architecture = footprint.machine.versions["python"], footprint.machine.architecture
    return "\n".join(
        [
            f"Python {python}, {architecture}: [`{link}`]({link}).",
            "",
            "| package | MB |",
            "|---|---|",
            *rows,
            f"| {rest} | {sum(package.bytes for package in small) / 1e6:.1f} |",
            f"| **{len(ordered)} packages** | **{footprint.megabytes:.1f}** |",
        ]
    )


def _read(results: Path) -> Footprint:
    return read(results / _NAME, Footprint, "footprint")


_README, _PAGE = "README.md", "docs/deployment.md"
SECTIONS = (
    Section(
        _README, "footprint", lambda path: sentence(_read(path), link_to_result(_NAME, _README))
    ),
    Section(_PAGE, "footprint", lambda path: table(_read(path), link_to_result(_NAME, _PAGE))),
)
