"""Charts drawn by matplotlib without a display: as SVG for the page, as PNG for README."""

from __future__ import annotations

import io
import re
from html import escape
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from bertd_bench.report.chart import DARK, LIGHT, PAGE, Chart, Palette, page_colours

WIDTH = 4.8  # inches: on a phone a unit of the drawing is then nearly a pixel
_TITLE = 60  # letters of a line of a picture's title; the page has its own
_DPI = 200  # of pictures
DIGEST = "Description"  # key of a PNG's text that holds a chart's digest
SCHEMES = {"light": LIGHT, "dark": DARK}


def svg(chart: Chart) -> str:
    """The chart as an element of a page: title and description inside, no colours of its own."""
    written = io.StringIO()
    with mpl.rc_context({**_settings(PAGE), "svg.hashsalt": chart.key}):
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        _figure(chart, PAGE).savefig(written, format="svg", transparent=True, metadata=nothing)
    text = written.getvalue()
    text = page_colours(text[text.index("<svg") :])
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\b(id="|url\(#|href="#)', rf"\g<1>{chart.key}-", text)  # unique in the page
    text = re.sub(r"font-family: [^;\"]*", "font-family: system-ui, sans-serif", text)
    text = re.sub(r"(font: [^;\"]*px )[^;\"]*", r"\1system-ui, sans-serif", text)
    opening, rest = text.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', opening)
    assert box is not None, "matplotlib writes a viewBox"  # noqa: S101 - says what we stand on
    named = (
        f'<svg {box.group()} role="img" aria-labelledby="{chart.key}-title {chart.key}-says">'
        f'<title id="{chart.key}-title">{escape(chart.title)}</title>'
        f'<desc id="{chart.key}-says">{escape(chart.says)}</desc>'
    )
    return named + rest.strip()


def write_pngs(chart: Chart, folder: Path) -> None:
    """Write `KEY-light.png` and `KEY-dark.png`; each carries the chart's digest."""
    for scheme, colours in SCHEMES.items():
        with mpl.rc_context(_settings(colours)):
            figure = _figure(chart, colours)
            figure.suptitle(fill(chart.title, _TITLE), color=colours.ink, fontsize=11)
            figure.savefig(
                folder / f"{chart.key}-{scheme}.png",
                format="png",
                dpi=_DPI,
                facecolor=colours.ground,
                metadata={"Software": None, DIGEST: chart.digest},
            )


def _figure(chart: Chart, colours: Palette) -> Figure:
    figure = Figure(figsize=(WIDTH, chart.inches), layout="constrained")
    axes: Any = figure.subplots()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(visible=True, linewidth=0.6)
    axes.set_axisbelow(True)
    chart.draw(axes, colours)
    return figure


def _settings(colours: Palette) -> Any:  # matplotlib's stubs want its own names as literals
    return {
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 10,
        "axes.facecolor": "none",
        "axes.edgecolor": colours.muted,
        "axes.labelcolor": colours.ink,
        "axes.linewidth": 0.8,
        "grid.color": colours.grid,
        "text.color": colours.ink,
        "xtick.color": colours.muted,
        "ytick.color": colours.muted,
        "xtick.labelcolor": colours.ink,
        "ytick.labelcolor": colours.ink,
        "legend.frameon": False,
        "legend.fontsize": 9,
    }
