"""Packing lays sequences end to end and loses nothing."""

import numpy as np
import pytest
from bertd_server.packing import TokenSequence, pack
from hypothesis import given
from hypothesis import strategies as st

token_lists = st.lists(st.lists(st.integers(0, 30_000), min_size=1, max_size=40), min_size=1)


def sequence(ids: list[int]) -> TokenSequence:
    """A sequence whose token types tell its parity."""
    return TokenSequence(np.array(ids, np.int64), np.array(ids, np.int64) % 2)


@given(token_lists, st.integers(0, 3))
def test_every_sequence_comes_back_from_its_slice(ids: list[list[int]], offset: int) -> None:
    """Slicing a batch by `cu_seqlens` gives each sequence, its types and its positions."""
    batch = pack([sequence(one) for one in ids], offset)
    assert batch.sequences == len(ids)
    assert batch.tokens == sum(map(len, ids))
    for one, begin, end in zip(ids, batch.cu_seqlens, batch.cu_seqlens[1:], strict=False):
        assert batch.input_ids[begin:end].tolist() == one
        assert batch.token_type_ids[begin:end].tolist() == [i % 2 for i in one]
        assert batch.position_ids[begin:end].tolist() == list(range(offset, offset + len(one)))


def test_nothing_to_pack_is_refused() -> None:
    """No sequence, or an empty one, is a mistake of the caller."""
    with pytest.raises(ValueError, match="at least one"):
        pack([])
    with pytest.raises(ValueError, match="at least one"):
        pack([sequence([1]), sequence([])])
