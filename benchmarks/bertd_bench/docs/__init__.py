"""Measured parts of documents: what `bertd bench docs` writes, each from its committed results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Section:
    """A measured part of a document.

    Attributes:
        document: path below the project's root, such as docs/lab/load.md.
        name: that its comment `<!-- measured: NAME -->` has.
        render: from the folder of results to Markdown.
    """

    document: str
    name: str
    render: Callable[[Path], str]
