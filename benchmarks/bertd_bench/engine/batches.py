"""Random legal batches for the benchmarks of the engine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from bertd.bundle import Manifest
from bertd_server.engine.packing import TokenSequence

_LONGEST = (16, 64, 256, 512)  # of the texts of one batch, chosen anew for each


def random_lengths(rng: np.random.Generator, longest: int, max_tokens: int) -> list[int]:
    """Lengths of a batch: few or many, short, mixed or long; at most `max_tokens` together."""
    room = int(2 ** rng.uniform(2, np.log2(max_tokens)))
    most = min(longest, _LONGEST[rng.integers(len(_LONGEST))])
    lengths: list[int] = []
    while room > 1 and len(lengths) < 64:
        lengths.append(min(int(rng.integers(2, most + 1)), room))
        room -= lengths[-1]
    return lengths


def random_texts(
    rng: np.random.Generator, lengths: Sequence[int], manifest: Manifest
) -> list[TokenSequence]:
    """Texts of random tokens."""
    return [
        TokenSequence(rng.integers(5, manifest.vocab_size, length), np.zeros(length, np.int64))
        for length in lengths
    ]
