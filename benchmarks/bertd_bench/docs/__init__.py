"""Measured parts of documents: what `bertd bench docs` writes, each from its committed results."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

RESULTS = Path("benchmarks/results")  # below the project's root


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


def link_to_result(name: str, document: str) -> str:
    """A result's path as a document links to it, both below the project's root."""
    return Path(os.path.relpath(RESULTS / name, Path(document).parent)).as_posix()
