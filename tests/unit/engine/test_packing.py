"""Packing lays sequences end to end and loses nothing."""

from itertools import pairwise

import numpy as np
import pytest
from bertd.bundle import LONG_RUNS
from bertd.bundle.runs import SHORT_TOKENS, arrange
from bertd_server.engine.packing import TokenSequence, pack
from hypothesis import example, given
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
    ordered = [ids[place] for place in batch.arrangement.order]
    for one, begin, end in zip(ordered, batch.cu_seqlens, batch.cu_seqlens[1:], strict=False):
        assert batch.input_ids[begin:end].tolist() == one
        assert batch.token_type_ids[begin:end].tolist() == [i % 2 for i in one]
        assert batch.position_ids[begin:end].tolist() == list(range(offset, offset + len(one)))


@given(st.lists(st.integers(0, 5), min_size=1, max_size=600), st.integers(0, 3))
@example([5] * SHORT_TOKENS, 2)
@example([5] * (SHORT_TOKENS + 1), 2)
def test_one_sequence_is_packed_as_the_first_of_two(ids: list[int], offset: int) -> None:
    """The straight path gives the arrays of the general one, less what a longer neighbour adds."""
    one, longer = sequence(ids), sequence([5] * 601)
    for unnumbered in (None, 1):
        alone = pack([one], offset, unnumbered)
        beside = pack([longer, one], offset, unnumbered)
        for name, array in alone.feeds().items():
            expected = beside.feeds()[name][: len(array)]
            assert array.dtype == expected.dtype == np.int64
            if name != LONG_RUNS:  # there the neighbour lies
                assert array.tolist() == expected.tolist()
        assert beside.arrangement.order.tolist() == [1, 0]
        assert alone.arrangement.order.tolist() == [0]
        short = len(ids) <= SHORT_TOKENS
        assert alone.arrangement.long_runs.tolist() == ([1] if short else [0, 1])


def test_nothing_to_pack_is_refused() -> None:
    """No sequence, or an empty one, is a mistake of the caller."""
    with pytest.raises(ValueError, match="at least one"):
        pack([])
    with pytest.raises(ValueError, match="at least one"):
        pack([sequence([1]), sequence([])])


@given(st.lists(st.integers(1, 600), min_size=1, max_size=60))
def test_runs_cover_every_sequence_once(lengths: list[int]) -> None:
    """Within a run all lengths are equal; short runs come first, and no sequence is left out."""
    given_lengths = np.array(lengths, np.int64)
    found = arrange(given_lengths)
    ascending = given_lengths[found.order]
    assert sorted(found.order.tolist()) == list(range(len(lengths)))
    assert found.short_runs[0] == 0
    assert found.short_runs[-1] == found.long_runs[0] == np.sum(given_lengths <= SHORT_TOKENS)
    assert found.long_runs[-1] == len(lengths)
    for bounds in (found.short_runs, found.long_runs):
        for begin, end in pairwise(bounds.tolist()):
            assert end > begin
            assert len(set(ascending[begin:end].tolist())) == 1
    runs = len(found.short_runs) + len(found.long_runs) - 2
    assert runs == len(set(lengths))
