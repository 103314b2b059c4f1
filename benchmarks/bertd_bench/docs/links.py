"""Links from documents to the committed results."""

from __future__ import annotations

import os
from pathlib import Path

RESULTS = Path("benchmarks/results")  # below the project's root


def to_result(name: str, document: str) -> str:
    """A result's path as a document links to it, both below the project's root."""
    return Path(os.path.relpath(RESULTS / name, Path(document).parent)).as_posix()
