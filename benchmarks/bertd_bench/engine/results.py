"""docs/lab/engine.md's measured sections, from the committed results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from bertd_bench.docs import sections
from bertd_bench.engine import document
from bertd_bench.engine.arrangements import Arrangements
from bertd_bench.engine.attention import Matrix
from bertd_bench.engine.endurance import IdentityReport, MemoryReport
from bertd_bench.engine.speed import EngineReport

# What a section is of: name in the comment, pattern of its results, their kind, how to write one.
_SECTIONS: Sequence[tuple[str, str, type[BaseModel], Callable[[Any], str]]] = (
    ("attention", "attention.json", Matrix, document.attention),
    ("arrangements", "arrangements-*.json", Arrangements, document.arrangements),
    ("engine", "engine-*.json", EngineReport, document.speed),
    ("memory", "memory-*.json", MemoryReport, document.memory),
    ("identity", "identity-*.json", IdentityReport, document.identity),
)


def rewrite(text: str, folder: Path) -> str:
    """The document with every section as the results say.

    Args:
        text: of the document.
        folder: of the JSON files.

    Raises:
        ValueError: a section or its results are missing.
    """
    for name, pattern, kind, render in _SECTIONS:
        paths = sorted(folder.glob(pattern))
        if not paths:
            raise ValueError(f"{folder} has no {pattern}: run `bertd bench {name} --json FILE`")
        blocks = [render(kind.model_validate_json(path.read_bytes())) for path in paths]
        separator = "\n" if kind in {MemoryReport, IdentityReport} else "\n\n"
        if separator == "\n":
            blocks = [f"- {block}" for block in blocks]
        opening = sections.begin("engine-docs", f"the figures of `bertd bench {name}`")
        text = sections.replaced(text, opening, separator.join(blocks))
    return text
