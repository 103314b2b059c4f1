"""How the tokens of packed sequences are numbered: part of the bundle's contract.

::

    cu_seqlens   0             3           6
    input_ids    5  8  6       5  1  6            offset 2, token 1 takes no number
    position_ids 2  3  4       2  1  3
"""

from __future__ import annotations

import numpy as np

from bertd.bundle.arrays import Int64Array


def number_positions(
    input_ids: Int64Array, cu_seqlens: Int64Array, offset: int, unnumbered_token_id: int | None
) -> Int64Array:
    """Position ids of packed sequences.

    Args:
        input_ids: int64 `[tokens]`.
        cu_seqlens: int64 `[sequences + 1]`, where each sequence starts, and the end.
        offset: position id of a sequence's first token.
        unnumbered_token_id: RoBERTa and its kin count only the tokens that are not this one, which
            all stand at position `offset - 1`; None for families that count every token.

    Returns:
        int64 `[tokens]`.
    """
    if unnumbered_token_id is not None:
        numbered = input_ids != unnumbered_token_id
        if not numbered.all():
            before = np.concatenate([[0], np.cumsum(numbered, dtype=np.int64)])
            within = before[:-1] - before[_starts(cu_seqlens)]
            return np.where(numbered, within + offset, offset - 1)
    if len(cu_seqlens) == 2:
        return np.arange(offset, offset + len(input_ids), dtype=np.int64)
    positions: Int64Array = np.arange(len(input_ids), dtype=np.int64) - _starts(cu_seqlens) + offset
    return positions


def _starts(cu_seqlens: Int64Array) -> Int64Array:
    """For each token, where its sequence starts."""
    begins = cu_seqlens[:-1]
    return begins.repeat(cu_seqlens[1:] - begins)
