"""Which tokens pooling reads where it leaves out those of a prompt: part of the bundle's contract.

::

    prompt alone  [CLS] query :   [SEP]       prompt_tokens 3, the last special token not counted
    sequences     [CLS] query : cat [SEP]     [CLS] mat [SEP]      a text without a prompt: 0
    pooled_tokens               3   4         5     6   7          pooled_seqlens 0 2 5
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from bertd.bundle.arrays import Int64Array


def prompt_tokens(ids: Sequence[int], special: Collection[int]) -> int:
    """How many tokens at the beginning of each sequence are the prompt's.

    As sentence-transformers counts them: all that the prompt alone has, but for the last one if
    it is special. Where the prompt's end and the text's beginning become one token, or a token
    fewer, some of the text is left out too.

    Args:
        ids: of the prompt alone, as the model would read it.
        special: ids of special tokens.
    """
    return len(ids) - bool(ids and ids[-1] in special)


def pooled(cu_seqlens: Int64Array, leading: Sequence[int]) -> tuple[Int64Array, Int64Array]:
    """Places of the tokens that are pooled, and where those of each sequence start, and the end.

    Args:
        cu_seqlens: int64 `[sequences + 1]` of a batch.
        leading: how many tokens of each sequence are left out; fewer than it has.
    """
    left_out = np.array(leading, np.int64)
    places = np.arange(cu_seqlens[-1], dtype=np.int64)
    lengths = np.diff(cu_seqlens)
    within = places - cu_seqlens[:-1].repeat(lengths)
    bounds = cu_seqlens - np.concatenate([[0], np.cumsum(left_out)])
    return places[within >= left_out.repeat(lengths)], bounds
