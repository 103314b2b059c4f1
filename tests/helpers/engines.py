"""An engine over a bundle, and what it leaves in its cache."""

from __future__ import annotations

from pathlib import Path

from bertd.bundle import read_manifest
from bertd_server.engine.engine import Engine, EngineOptions

WIDE = EngineOptions(threads=2)


def engine(folder: Path, options: EngineOptions = WIDE) -> Engine:
    return Engine(folder, read_manifest(folder), options)


def entries(folder: Path) -> list[str]:
    """Names of what is kept in a folder."""
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")
