"""docs/lab/load.md's measured sections, from the committed results."""

from __future__ import annotations

from pathlib import Path

from bertd_bench.docs import sections
from bertd_bench.load import front_results, serve_results, table
from bertd_bench.load import results as goodput

FILES = ("load-minilm.json", "load-base.json", "front-end.json", "load.json", "load.json.gz")


def rewrite(document: str, folder: Path) -> str:
    """The document with the section of each result file that is there written anew.

    Raises:
        OSError: a file cannot be read.
        ValueError: it is no report, or the document lacks its section.
    """
    for name in FILES:
        if not (folder / name).exists():
            continue  # not measured yet: its section stays empty
        opening = sections.begin("load-docs", f"what follows from {name.removesuffix('.gz')}")
        tables = _tables(folder / name)
        document = sections.replaced(document, opening, tables.strip())
    return document


def _tables(path: Path) -> str:
    if path.name.startswith("load.json"):
        return table.to_markdown(goodput.read(path, goodput.GoodputReport))
    content = path.read_bytes()
    if path.name.startswith("front-end"):
        return front_results.to_markdown(front_results.FrontReport.model_validate_json(content))
    return serve_results.to_markdown(serve_results.LoadReport.model_validate_json(content))
