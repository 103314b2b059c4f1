"""Reads labelled examples: JSON lines, with errors that name the file, the line and the field."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertd_export.errors import ExportError
from bertd_export.files.lines import split_lines


@dataclass(frozen=True)
class ExampleLine:
    """One example, and where it stands."""

    place: str
    record: dict[str, Any]

    def fault(self, field: str, expected: str) -> ExportError:
        """What to raise where a field is missing or wrong."""
        if field not in self.record:
            return ExportError(f'{self.place}: "{field}" is missing; it must be {expected}')
        given = repr(self.record[field])
        shown = given if len(given) <= 60 else given[:59] + "…"
        return ExportError(f'{self.place}: "{field}" is {shown}; it must be {expected}')

    def text(self, field: str) -> str:
        """A string that is not blank."""
        value = self.record.get(field)
        if not isinstance(value, str) or not value.strip():
            raise self.fault(field, "a string that is not blank")
        return value

    def optional_text(self, field: str) -> str | None:
        """A string that is not blank, or None where the field is absent."""
        return self.text(field) if field in self.record else None

    def number(self, field: str) -> float:
        """A finite number."""
        value = self.record.get(field)
        if isinstance(value, bool) or not isinstance(value, int | float) or value - value != 0:
            raise self.fault(field, "a finite number")
        return float(value)

    def texts(self, field: str, *, least: int = 0) -> list[str]:
        """A list of strings, `least` or more."""
        value = self.record.get(field)
        if (
            not isinstance(value, list)
            or len(value) < least
            or not all(isinstance(each, str) for each in value)
        ):
            counted = f"a list of {least} or more strings" if least else "a list of strings"
            raise self.fault(field, counted)
        return value

    def label(self, field: str, labels: Sequence[str]) -> int:
        """The index of one of the labels, given as its name or as the index itself."""
        value = self.record.get(field)
        if isinstance(value, str) and value in labels:
            return labels.index(value)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(labels):
            return value
        raise self.fault(field, one_of(labels))

    def each_label(self, field: str, labels: Sequence[str]) -> list[str]:
        """A list of names of labels."""
        found = self.texts(field)
        if not set(found) <= set(labels):
            raise self.fault(field, f"a list, each {one_of(labels)}")
        return found


def one_of(labels: Sequence[str]) -> str:
    """The labels to choose from, the first of them where there are many."""
    shown = ", ".join(labels[:8])
    return f"one of {shown}" + (f", … ({len(labels)} in all)" if len(labels) > 8 else "")


@dataclass(frozen=True)
class Examples:
    """The lines of a file, its name and the SHA-256 of its content."""

    source: str
    sha256: str
    lines: list[ExampleLine]


def read_examples(path: Path) -> Examples:
    """Read JSON lines; blank ones are skipped.

    Raises:
        ExportError: the file cannot be read, is empty, or a line is not a JSON object.
    """
    try:
        raw = path.read_bytes()
        rows = split_lines(raw)
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(f"{path} cannot be read: {error}") from error
    lines = []
    for number, row in enumerate(rows, 1):
        if not row.strip():
            continue
        place = f"{path}, line {number}"
        try:
            record = json.loads(row)
        except (ValueError, RecursionError) as error:
            raise ExportError(f"{place} is not JSON: {error}") from error
        if not isinstance(record, dict):
            raise ExportError(f"{place} must be a JSON object, not {type(record).__name__}")
        lines.append(ExampleLine(place, record))
    if not lines:
        raise ExportError(f"{path} holds no examples")
    return Examples(path.name, hashlib.sha256(raw).hexdigest(), lines)
