"""The results that a report is made of, told apart by what they say they are."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from bertd_bench.compare.results import BENCHMARK as COMPARE
from bertd_bench.compare.results import Comparison
from bertd_bench.engine.results import EngineReport
from bertd_bench.hardware.card import BENCHMARK as HARDWARE
from bertd_bench.hardware.card import Card
from bertd_bench.load.results import BENCHMARK as GOODPUT
from bertd_bench.load.results import GoodputReport


@dataclass(frozen=True, slots=True)
class Results:
    """What was found, each with the name of its file; of each kind that is drawn once, the last.

    Attributes:
        unread: files that look like a result which is drawn, and are none; why.
    """

    card: tuple[str, Card] | None = None
    goodput: tuple[str, GoodputReport] | None = None
    comparisons: list[tuple[str, Comparison]] = field(default_factory=list)
    engines: list[tuple[str, EngineReport]] = field(default_factory=list)
    unread: dict[str, str] = field(default_factory=dict)


# What a result is called here, by the benchmark that it names or the parts that it has.
_KINDS: tuple[tuple[str, type[BaseModel], str, frozenset[str]], ...] = (
    ("comparisons", Comparison, COMPARE, frozenset()),
    ("card", Card, HARDWARE, frozenset()),
    ("goodput", GoodputReport, GOODPUT, frozenset()),
    ("engines", EngineReport, "", frozenset({"padding", "efficiency", "operators"})),
)


def read(paths: Iterable[Path]) -> Results:
    """Read what can be drawn; other results are passed over.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file is no JSON.
    """
    found: dict[str, Any] = {"comparisons": [], "engines": [], "unread": {}}
    for path in sorted(paths, key=lambda path: path.name.split(".")):  # the standard run first
        data = path.read_bytes()
        try:
            document = json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)
        except ValueError as error:
            raise ValueError(f"{path} is no JSON: give results of `bertd bench`") from error
        if not isinstance(document, dict):
            continue
        for name, kind, benchmark, parts in _KINDS:
            named = document.get("benchmark", "")
            if named != benchmark or (not benchmark and not parts <= document.keys()):
                continue
            try:
                result = kind.model_validate(document)
            except ValidationError as error:
                where = ".".join(map(str, error.errors()[0]["loc"]))
                found["unread"][path.name] = f"its {where} is not as this version writes it"
                continue
            if isinstance(found.get(name), list):
                found[name].append((path.name, result))
            else:
                found[name] = (path.name, result)
    return Results(**found)
