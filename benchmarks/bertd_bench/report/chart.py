"""A chart: its words, its table, its drawing and its colours; or why it is not there.

Series keep apart for colour-blind readers (Okabe and Ito's order of hues, shifted for contrast of
3:1 on both grounds), and lines and markers differ too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Palette(NamedTuple):
    """Colours as matplotlib reads them.

    Attributes:
        ground: behind everything.
        ink: of text.
        muted: of axes and lesser text.
        grid: of lines behind the data.
        series: of data, bertd's first.
    """

    ground: str
    ink: str
    muted: str
    grid: str
    series: tuple[str, ...]


LIGHT = Palette(
    "#ffffff", "#1b1f24", "#59636e", "#d9dee3",
    ("#0b62b8", "#c2500a", "#0a7a5c", "#a03a86", "#8a6a00", "#5d6873"),
)  # fmt: skip
DARK = Palette(
    "#14181d", "#e8ecf0", "#9aa5b1", "#333b44",
    ("#6cb0f5", "#f2935a", "#45c7a0", "#e08ccb", "#d9b84a", "#9fabb7"),
)  # fmt: skip

# Stands in a drawing where the page's style sheet decides.
PAGE = Palette(
    "#000001", "#000002", "#000003", "#000004",
    ("#000011", "#000012", "#000013", "#000014", "#000015", "#000016"),
)  # fmt: skip


def variables(palette: Palette) -> str:
    """The style sheet's declarations of a palette."""
    named = zip(_names(), [*palette[:4], *palette.series], strict=True)
    return " ".join(f"{name}: {colour};" for name, colour in named)


def page_colours(svg: str) -> str:
    """A drawing made with :data:`PAGE`, with the style sheet's names for its colours."""
    for name, colour in zip(_names(), [*PAGE[:4], *PAGE.series], strict=True):
        svg = svg.replace(colour, f"var({name})")
    return svg


def _names() -> list[str]:
    return ["--ground", "--ink", "--muted", "--grid", *(f"--series-{n}" for n in range(1, 7))]


@dataclass(frozen=True, slots=True)
class Chart:
    """What a reader gets: sees, hears read out, or reads as a table.

    Attributes:
        key: of its place in the page and of its files.
        title: what it shows.
        says: what is to be seen in it, in words; its text alternative.
        heads: of the table.
        rows: of the table; the first cell names the row.
        draw: into matplotlib's axes, in a palette's colours.
        inches: height of the drawing.
        open: whether the table is shown beside the drawing, not folded away.
    """

    key: str
    title: str
    says: str
    heads: list[str]
    rows: list[list[str]]
    draw: Callable[[Any, Palette], None] = field(compare=False)
    inches: float = 3.2
    open: bool = False

    @property
    def digest(self) -> str:
        """Of all its numbers and words: pictures carry it, so that a test can tell old ones."""
        said = json.dumps([self.title, self.says, self.heads, self.rows], ensure_ascii=False)
        return hashlib.sha256(said.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Missing:
    """A chart whose result is not there.

    Attributes:
        remedy: the command that measures it, or what is wrong with the result.
    """

    key: str
    title: str
    remedy: str


LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))
MARKS = ("o", "s", "^", "D", "v", "P")


def lines(axes: Any, colours: Palette, series: Mapping[str, tuple[Any, Any]]) -> None:
    """Draw x and y of each name, with a colour, a dash and a mark of its own."""
    for number, (name, (xs, ys)) in enumerate(series.items()):
        kind = {"color": colours.series[number % 6], "linestyle": LINES[number % 6]}
        mark = {"marker": MARKS[number % 6], "markersize": 4}
        axes.plot(xs, ys, label=name, linewidth=1.7, **kind, **mark)


def log(axis: Any) -> None:
    """A logarithmic axis with plain numbers."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else "")


def below(axes: Any) -> None:
    """The legend under the chart, two names in a row: there is room for it on a phone."""
    figure = axes.get_figure()
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
