"""A chart: its words, its table and its drawing; or why it is not there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bertd_bench.report.palette import Palette


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
