"""Writes the measured parts of documents: each room names its own in its module `document`.

::

    room/document.py: SECTIONS ─┐
    benchmarks/results ─────────┴─render──> Markdown ──> <!-- measured: NAME --> … /measured
"""

from __future__ import annotations

import pkgutil
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from importlib import import_module, util
from pathlib import Path

import bertd_bench
from bertd_bench.docs import Section

END = "<!-- /measured -->"


def begin(name: str) -> str:
    """The comment that opens a part."""
    return f"<!-- measured: {name} -->"


def sections() -> list[Section]:
    """The sections of every room."""
    return [section for room in _rooms() for section in import_module(f"{room}.document").SECTIONS]


def _rooms() -> Iterator[str]:
    """Packages here that have a module `document`; none is imported for its name."""
    for found in pkgutil.iter_modules(bertd_bench.__path__, "bertd_bench."):
        if found.ispkg and util.find_spec(f"{found.name}.document"):
            yield found.name


def names(text: str) -> list[str]:
    """Of the measured parts of a document."""
    return re.findall(r"<!-- measured: (.*?) -->", text)


def replaced(text: str, name: str, section: str) -> str:
    """The document with another section between the two comments.

    Raises:
        ValueError: a comment is missing, or the first is there more than once.
    """
    opening = begin(name)
    before, found, rest = text.partition(opening)
    old, closed, after = rest.partition(END)
    if not found or not closed or opening in rest or names(old):
        raise ValueError(f"the document needs one pair of lines {opening} and {END}")
    return f"{before}{opening}\n\n{section.strip()}\n\n{END}{after}"


def rewritten(root: Path, results: Path, of: Sequence[Section]) -> dict[Path, tuple[str, str]]:
    """What each document says, and what it should say.

    Args:
        root: of the project.
        results: the folder of JSON files.
        of: the sections to write.

    Raises:
        OSError: a document or a result cannot be read.
        ValueError: a result is none, or a document lacks a comment; the message names the file.
    """
    grouped: dict[str, list[Section]] = defaultdict(list)
    for section in of:
        grouped[section.document].append(section)
    found = {}
    for document, parts in sorted(grouped.items()):
        before = after = (root / document).read_text(encoding="utf-8")
        for part in parts:
            try:
                after = replaced(after, part.name, part.render(results))
            except ValueError as error:
                raise ValueError(f"{document}, {part.name}: {error}") from error
        found[root / document] = (before, after)
    return found
