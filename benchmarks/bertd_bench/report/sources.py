"""The results that a report is made of, told apart by what they say they are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from bertd_bench.compare.results import Comparison
from bertd_bench.harness.results import document_of, named
from bertd_bench.load.results import GoodputReport


@dataclass(slots=True)
class Results:
    """What was found, each with the name of its file.

    Attributes:
        unread: files that look like a result which is drawn, and are none; why.
    """

    loads: list[tuple[str, GoodputReport]] = field(default_factory=list)
    comparisons: list[tuple[str, Comparison]] = field(default_factory=list)
    unread: dict[str, str] = field(default_factory=dict)


def files(results: Path) -> tuple[Path, ...]:
    """All results of a folder but repeats."""
    return tuple(named(results, "*.json") + named(results, "*.json.gz"))


def read(paths: Iterable[Path]) -> Results:
    """Read what can be drawn; other results are passed over.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file is no JSON.
    """
    found = Results()
    for path in sorted(paths, key=lambda path: path.name.split(".")):  # the standard run first
        document = document_of(path)
        if not isinstance(document, dict):
            continue
        try:
            match document.get("benchmark"):
                case "compare":
                    found.comparisons.append((path.name, Comparison.model_validate(document)))
                case "load":
                    found.loads.append((path.name, GoodputReport.model_validate(document)))
        except ValidationError as error:
            where = ".".join(map(str, error.errors()[0]["loc"]))
            found.unread[path.name] = f"its {where} is not as this version writes it"
    return found
