"""docs/load.md's measured sections, from the committed results."""

from __future__ import annotations

from pathlib import Path

from bertd_bench import sections
from bertd_bench.load.results import LoadReport, to_markdown

FILES = ("load-minilm.json", "load-base.json")


def rewrite(document: str, folder: Path) -> str:
    """The document with the section of each result file that is there written anew.

    Raises:
        OSError: a file cannot be read.
        ValueError: it is no report, or the document lacks its section.
    """
    for name in FILES:
        if not (folder / name).exists():
            continue  # not measured yet: its section stays empty
        report = LoadReport.model_validate_json((folder / name).read_bytes())
        opening = sections.begin("load-docs", f"what follows from {name}")
        document = sections.replaced(document, opening, to_markdown(report).strip())
    return document
