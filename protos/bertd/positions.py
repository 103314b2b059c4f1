"""How the tokens of packed sequences are numbered: part of the bundle's contract.

::

    cu_seqlens   0             3           6
    input_ids    5  8  6       5  1  6            offset 2, token 1 takes no number
    position_ids 2  3  4       2  1  3
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Int64Array = NDArray[np.int64]


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
    starts = np.repeat(cu_seqlens[:-1], np.diff(cu_seqlens))
    if unnumbered_token_id is not None:
        numbered = input_ids != unnumbered_token_id
        if not numbered.all():
            before = np.concatenate([[0], np.cumsum(numbered, dtype=np.int64)])
            return np.where(numbered, before[:-1] - before[starts] + offset, offset - 1)
    positions: Int64Array = np.arange(len(input_ids), dtype=np.int64) - starts + offset
    return positions
