"""An engine over a bundle, and what it leaves in its cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from bertd.bundle import read_manifest
from bertd_server.engine.engine import Engine, EngineOptions
from bertd_server.engine.packing import TokenSequence

WIDE = EngineOptions(threads=2)


def engine(folder: Path, options: EngineOptions = WIDE) -> Engine:
    return Engine(folder, read_manifest(folder), options)


def entries(folder: Path) -> list[str]:
    """Names of what is kept in a folder."""
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def texts(lengths: Sequence[int], vocabulary: int = 320) -> list[TokenSequence]:
    """Sequences of these lengths, the same for as many."""
    rng = np.random.default_rng(len(lengths))
    return [TokenSequence(rng.integers(5, vocabulary, n), np.zeros(n, np.int64)) for n in lengths]
