"""Batches that stand for all others: for warm-up, calibration and the plan of memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from bertd.bundle import Manifest

from bertd_server.engine.packing import TokenSequence

_LENGTHS = (8, 32, 128, 256, 512)
_COUNTS = (1, 4, 16, 64)
_LONG = 512  # tokens; longer texts are there alone, at each doubling
_STRIDE = 7_919  # a prime


def grid(max_text_tokens: int, max_batch_tokens: int) -> list[tuple[int, ...]]:
    """Lengths of batches, least tokens first: short, medium and long texts, few and many.

    Texts above 512 tokens are alone, and double up to the longest: there attention takes most of
    the time, and grows with the square. Where the longest takes more time than there is, the one
    of half its length still says much.

    Args:
        max_text_tokens: of the model's longest text, which is among them.
        max_batch_tokens: of one batch; a text alone is there in any case.
    """
    lengths = sorted({*(n for n in _LENGTHS if n < max_text_tokens), min(max_text_tokens, _LONG)})
    alone, length = {(max_text_tokens,)}, 2 * _LONG
    while length < max_text_tokens:
        alone.add((length,))
        length *= 2
    batches = {
        (length,) * count
        for length in lengths
        for count in _COUNTS
        if count == 1 or count * length <= max_batch_tokens
    }
    return sorted(batches | alone, key=lambda batch: (sum(batch), len(batch)))


def texts(
    lengths: Sequence[int], manifest: Manifest, *, worst: bool = False
) -> list[TokenSequence]:
    """Legal texts of these lengths.

    Args:
        lengths: tokens of each.
        manifest: of the model.
        worst: that take as much memory as any; fill-mask projects every mask to the vocabulary.
    """
    mask, unnumbered = manifest.mask_token_id, manifest.unnumbered_token_id
    ids = np.setdiff1d(np.arange(manifest.vocab_size), [mask or 0, unnumbered or 0])
    batch, begin = [], 0
    for length in lengths:
        # Tokens far apart, so that many pages of the embeddings are read.
        row = ids[(begin + np.arange(length)) * _STRIDE % len(ids)]
        if mask is not None:
            row[: length if worst else 1] = mask
        batch.append(TokenSequence(row, np.zeros(length, np.int64)))
        begin += length
    return batch
