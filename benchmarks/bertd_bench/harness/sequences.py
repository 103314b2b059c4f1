"""Texts as the engine takes them, of random tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from bertd.bundle import Manifest
from bertd_server.engine.packing import TokenSequence


def random_texts(
    rng: np.random.Generator, lengths: Sequence[int], manifest: Manifest
) -> list[TokenSequence]:
    """One text of each length, in tokens."""
    return [
        TokenSequence(rng.integers(5, manifest.vocab_size, length), np.zeros(length, np.int64))
        for length in lengths
    ]
