"""README's pictures: which charts they are, and how the document shows them."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from bertd_bench.docs import Section, link_to_result
from bertd_bench.report import page, sources
from bertd_bench.report.chart import Chart, Missing

FOLDER = "report"  # below the results: the page, and the pictures beside it
_README = "README.md"
_KEYS = {"load"}


def shown(charts: Sequence[Chart | Missing]) -> list[Chart]:
    """The charts of README, as far as they are there."""
    return [each for each in charts if isinstance(each, Chart) and each.key in _KEYS]


def pictures(results: Path) -> str:
    """Each in the reader's colours, with what it says as alternative text."""
    wanted = shown(page.charts(sources.read(sources.files(results))))
    if not wanted:
        return "No picture yet: `bertd bench report` draws them."
    folder = link_to_result(FOLDER, _README)
    return "\n\n".join(
        f"<picture>\n"
        f'  <source media="(prefers-color-scheme: dark)" srcset="{folder}/{each.key}-dark.png">\n'
        f'  <img src="{folder}/{each.key}-light.png" width="540" alt="{escape(each.says)}">\n'
        f"</picture>"
        for each in wanted
    )


SECTIONS = (Section(_README, "pictures", pictures),)
