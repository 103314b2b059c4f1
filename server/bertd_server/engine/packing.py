"""Sequences laid end to end: the arrays that the packed graph reads.

::

    [101 2003 2009 102] [101 7592 102]  ->  order       [1 0], by length
                                            input_ids   [7]
                                            positions   [0 1 2 0 1 2 3]
                                            cu_seqlens  [0 3 7]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from bertd import bundle
from bertd.bundle.arrays import Int64Array
from bertd.bundle.positions import number_positions
from bertd.bundle.runs import Arrangement, arrange


@dataclass(frozen=True, slots=True)
class TokenSequence:
    """One text as the model reads it; both arrays are int64 `[tokens]`.

    `prompt_tokens` at the beginning are left out of pooling; fewer than there are.
    """

    input_ids: Int64Array
    token_type_ids: Int64Array
    prompt_tokens: int = 0

    def __len__(self) -> int:
        return len(self.input_ids)


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """Sequences without padding: int64 `[tokens]` thrice, and `cu_seqlens` `[sequences + 1]`.

    They lie in ascending order of length; `arrangement` says which is which. `prompt_tokens` has
    an entry for each, in that order.
    """

    input_ids: Int64Array
    token_type_ids: Int64Array
    position_ids: Int64Array
    cu_seqlens: Int64Array
    arrangement: Arrangement
    prompt_tokens: Sequence[int]

    @property
    def sequences(self) -> int:
        """How many sequences lie in the batch."""
        return len(self.cu_seqlens) - 1

    @property
    def tokens(self) -> int:
        """How many tokens they have together."""
        return len(self.input_ids)

    def feeds(self) -> dict[str, Int64Array]:
        """The arrays by the names of the graph's inputs."""
        return {
            bundle.INPUT_IDS: self.input_ids,
            bundle.TOKEN_TYPE_IDS: self.token_type_ids,
            bundle.POSITION_IDS: self.position_ids,
            bundle.CU_SEQLENS: self.cu_seqlens,
            bundle.SHORT_RUNS: self.arrangement.short_runs,
            bundle.LONG_RUNS: self.arrangement.long_runs,
        }


def pack(
    sequences: Sequence[TokenSequence],
    position_offset: int = 0,
    unnumbered_token_id: int | None = None,
) -> PackedBatch:
    """Lay sequences end to end.

    Args:
        sequences: at least one, none empty.
        position_offset: position id of each sequence's first token.
        unnumbered_token_id: token that takes no position, see :mod:`bertd.bundle.positions`.

    Returns:
        A batch that is not to be written to: of one sequence it holds the arrays themselves.

    Raises:
        ValueError: there is no sequence, or one is empty.
    """
    lengths = [len(sequence.input_ids) for sequence in sequences]
    if not all(lengths) or not lengths:
        raise ValueError("a batch needs at least one sequence, and each at least one token")
    arrangement = arrange(np.array(lengths, np.int64))
    if len(sequences) == 1:  # its arrays are the batch's: a lone text waits for every copy
        (alone,) = sequences
        input_ids, token_type_ids = alone.input_ids, alone.token_type_ids
        cu_seqlens = np.array([0, *lengths], np.int64)
        prompt_tokens = [alone.prompt_tokens]
    else:
        order = arrangement.order.tolist()
        cu_seqlens = np.array([0, *accumulate(lengths[place] for place in order)], np.int64)
        input_ids = np.concatenate([sequences[place].input_ids for place in order])
        token_type_ids = np.concatenate([sequences[place].token_type_ids for place in order])
        prompt_tokens = [sequences[place].prompt_tokens for place in order]
    return PackedBatch(
        input_ids=input_ids,
        token_type_ids=token_type_ids,
        position_ids=number_positions(input_ids, cu_seqlens, position_offset, unnumbered_token_id),
        cu_seqlens=cu_seqlens,
        arrangement=arrangement,
        prompt_tokens=prompt_tokens,
    )
