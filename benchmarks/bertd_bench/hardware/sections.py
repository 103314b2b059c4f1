"""Measured sections of docs/lab/benchmarks.md that are of this machine: its card, its baseline."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bertd_bench.docs.sections import begin, replaced
from bertd_bench.hardware import card, document
from bertd_bench.regression import baseline
from bertd_bench.regression import document as changes

CARD = begin("hardware-docs", "the card that follows")
BASELINE = begin("hardware-docs", "the baseline that follows")


def rewrite(text: str, folder: Path, link: str) -> str:
    """The document with both sections as the results say.

    Args:
        text: of the document.
        folder: of the results.
        link: the folder, as seen from the document.

    Raises:
        ValueError: a section is missing, or a file is another result.
    """
    sources: tuple[tuple[str, str, Callable[[Path, str], str], str], ...] = (
        (CARD, "hardware.json", _card, "bertd bench hardware --json"),
        (BASELINE, "baseline.json", _baseline, "bertd bench regress --update --baseline"),
    )
    for opening, name, render, command in sources:
        path = folder / name
        section = (
            render(path, f"{link}/{name}")
            if path.exists()
            else f"Not measured yet: `{command} benchmarks/results/{name}`."
        )
        text = replaced(text, opening, section)
    return text


def _card(path: Path, link: str) -> str:
    return document.render(card.read(path), link)


def _baseline(path: Path, link: str) -> str:
    return changes.table(baseline.read(path), link)
