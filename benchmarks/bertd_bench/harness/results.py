"""Results as JSON files, raw samples included; large ones are compressed."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

COMPRESS_BYTES = 2_000_000
AGAIN = "-again"
"""Ends the name of a result that repeats another: load-again.json repeats load.json."""

_Result = TypeVar("_Result", bound=BaseModel)


def write(result: BaseModel, path: Path) -> Path:
    """Write a result; above 2 MB compressed, under its name and `.gz`.

    Whoever interrupts this finds the file of before.

    Returns:
        The path that was written.
    """
    data = (result.model_dump_json(indent=1) + "\n").encode()
    if len(data) > COMPRESS_BYTES:
        path = path.with_name(f"{path.name}.gz")
        data = gzip.compress(data, mtime=0)
    unfinished = path.with_name(f".{path.name}.part")
    unfinished.write_bytes(data)
    unfinished.replace(path)
    return path


def named(folder: Path, pattern: str) -> list[Path]:
    """The results of a folder whose names match, the shortest name first, without repeats."""
    paths = sorted(folder.glob(pattern), key=lambda path: path.name.split("."))
    return [path for path in paths if not _title(path).endswith(AGAIN)]


def repeated(folder: Path) -> list[tuple[Path, Path]]:
    """The results of a folder that have a repeat, with it."""
    again = {_title(path): path for path in folder.glob(f"*{AGAIN}.json*")}
    pairs = ((path, again.get(_title(path) + AGAIN)) for path in named(folder, "*.json*"))
    return [(path, other) for path, other in pairs if other is not None]


def _title(path: Path) -> str:
    """The name without its endings, of which a compressed result has two."""
    return path.name.partition(".")[0]


def document_of(path: Path) -> Any:
    """The JSON of a file, compressed or not.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no JSON.
    """
    data = path.read_bytes()
    try:
        return json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)
    except (ValueError, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is no JSON: give a result of `bertd bench`") from error


def read(path: Path, kind: type[_Result], command: str) -> _Result:
    """Read what :func:`write` wrote.

    Args:
        path: of the file.
        kind: of the result.
        command: of `bertd bench` that writes such results.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no such result.
    """
    found = document_of(path)
    try:
        return kind.model_validate(found)
    except ValidationError as error:
        raise ValueError(f"{path} is not a result of `bertd bench {command}`") from error
