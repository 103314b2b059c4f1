"""Properties of the pure batch-forming function."""

import math
from dataclasses import dataclass

from bertd_server.batching import Limits, form_batch
from hypothesis import given
from hypothesis import strategies as st


@dataclass(frozen=True)
class Text:
    """A waiting text."""

    tokens: int
    deadline: float = math.inf


texts = st.lists(
    st.builds(Text, tokens=st.integers(1, 512), deadline=st.sampled_from([0.0, 1.0, 2.0, math.inf]))
)
limits = st.builds(Limits, tokens=st.integers(1, 2048), sequences=st.integers(1, 32))


@given(texts, limits)
def test_every_text_goes_to_exactly_one_place_in_order(waiting: list[Text], limit: Limits) -> None:
    """Batch, expired and remaining hold each text once; order of arrival is kept."""
    decision = form_batch(waiting, limit, now=1.0)
    ids = [id(t) for t in (*decision.batch, *decision.expired, *decision.remaining)]
    assert sorted(ids) == sorted(map(id, waiting))
    wanted = [t for t in waiting if t not in decision.expired]
    assert decision.batch == wanted[: len(decision.batch)]


@given(texts, limits)
def test_a_batch_keeps_its_limits(waiting: list[Text], limit: Limits) -> None:
    """Only a single text may be larger than the budget."""
    batch = form_batch(waiting, limit, now=1.0).batch
    assert len(batch) <= limit.sequences
    assert len(batch) == 1 or sum(t.tokens for t in batch) <= limit.tokens


@given(texts, limits)
def test_expired_texts_are_never_computed_and_work_is_never_stalled(
    waiting: list[Text], limit: Limits
) -> None:
    """No batch holds an expired text, and there is a batch whenever a text is wanted."""
    decision = form_batch(waiting, limit, now=1.0)
    assert all(t.deadline > 1.0 for t in decision.batch)
    assert all(t.deadline <= 1.0 for t in decision.expired)
    assert bool(decision.batch) == any(t.deadline > 1.0 for t in waiting)
