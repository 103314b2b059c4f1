"""Which measurements are believed, which are kept, and what is run next."""

from __future__ import annotations

import random

import pytest
from bertd_server.models import sampling
from bertd_server.models.sampling import Sample, Samples, contradiction, judged, together
from bertd_server.scheduling.cost import Measurement, Shape
from hypothesis import given
from hypothesis import strategies as st

ONE, FOUR, MANY = Shape.of([8]), Shape.of([8] * 4), Shape.of([128] * 16)
GRID = [ONE, Shape.of([32]), FOUR, Shape.of([128]), MANY]


def seconds(shape: Shape) -> float:
    return 1e-3 + 1e-4 * shape.tokens


def clean(samples: Samples, noise: float = 0.0) -> Samples:
    """Run what is to be run, until nothing is."""
    rng = random.Random(1)
    while (shape := samples.following()) is not None:
        samples.add(shape, Sample(seconds(shape) * rng.uniform(1, 1 + noise), disturbed=False))
    return samples


def test_a_run_whose_threads_had_no_core_is_disturbed_and_what_it_would_take_is_known() -> None:
    assert judged(0.01, 0.95, 1.0) == Sample(0.01, disturbed=False)
    assert judged(0.04, 0.25, 1.0) == Sample(0.01, disturbed=True)
    # Two lanes on one core disturb each other always, and a third program disturbs both.
    assert judged(0.02, 0.5, 0.5) == Sample(0.02, disturbed=False)
    assert judged(0.04, 0.25, 0.5) == Sample(0.02, disturbed=True)


@given(st.floats(0.0, 1.0), st.floats(0.05, 1.0))
def test_a_sample_takes_some_time_and_never_longer_than_it_did(
    share: float, possible: float
) -> None:
    assert 0 < judged(0.5, share, possible).seconds <= 0.5 + 1e-9


def test_lanes_are_clean_together_if_most_are() -> None:
    good, bad = Sample(0.01, disturbed=False), Sample(0.5, disturbed=True)
    assert together([good, good, bad]) == good
    assert together([good, bad]).disturbed


def test_a_real_run_is_timed() -> None:
    """Whether it is clean is the machine's affair."""
    for threads in (1, 2):
        sample = sampling.timed(lambda: sum(range(50_000)), threads=threads, possible=1.0)
        assert 0 < sample.seconds < 60


def test_small_shapes_of_each_size_run_first_and_a_whole_grid_has_no_flaw() -> None:
    samples = Samples(GRID)
    assert samples.flaw() == "5 of 5 shapes have not been run"
    first = []
    for _ in GRID:
        shape = samples.following()
        assert shape is not None
        samples.add(shape, Sample(seconds(shape), disturbed=False))
        first.append(shape.tokens)
    assert first == [8, 32, 128, 2048, 32]
    clean(samples, noise=0.1)
    assert samples.flaw() is None
    assert samples.following() is None
    assert {m.shape for m in samples.measurements()} == set(GRID)


def test_what_would_take_too_long_is_not_asked_for() -> None:
    """Live batches must do there, and the grid is whole without."""
    samples = Samples([ONE, Shape.of([8192])])
    samples.add(ONE, Sample(0.02, disturbed=False))
    assert samples.following(within=0.01) is None
    clean_one = clean(samples)
    assert len(clean_one) == 1
    assert clean_one.flaw() is None


def test_what_others_disturbed_is_run_again_but_not_for_ever_and_is_never_kept() -> None:
    samples = Samples(GRID[:2])
    runs = 0
    while (shape := samples.following()) is not None:
        samples.add(shape, Sample(seconds(shape), disturbed=shape is not ONE))
        runs += 1
    assert runs < 20
    assert "others had the cores while a batch of 32 tokens ran" in str(samples.flaw())
    assert len(samples.measurements()) == 2  # something is better than nothing


def test_a_clean_sample_counts_for_all_disturbed_ones() -> None:
    samples = Samples([ONE])
    for disturbed, taken in ((True, 5.0), (False, 1.0), (True, 6.0)):
        samples.add(ONE, Sample(taken, disturbed))
    assert samples.measurements() == [Measurement(ONE, 1.0)]


def test_what_never_takes_the_same_time_twice_is_not_kept() -> None:
    samples = Samples([ONE])
    taken = 0.001
    while samples.following() is not None:
        samples.add(ONE, Sample(taken, disturbed=False))
        taken *= 1.5
    assert "never took the same time twice" in str(samples.flaw())


def test_more_work_that_took_less_time_is_a_contradiction_and_is_run_again() -> None:
    """16 texts of 128 tokens faster than one."""
    samples = Samples(GRID)
    for shape in GRID:
        for _ in range(3):
            taken = 0.001 if shape is MANY else seconds(shape)
            samples.add(shape, Sample(taken, disturbed=False))
    assert samples.flaw() == "8 tokens took 0.0018 s and 2048, in as many texts or more, 0.001 s"
    samples.drop()
    assert not len(samples)  # all of them took longer than what is the most work
    assert clean(samples).flaw() is None


@pytest.mark.parametrize(
    ("other", "taken", "contradicts"),
    [
        (Shape.of([8] * 4), 0.9, False),  # noise
        (Shape.of([8] * 4), 0.7, True),
        (Shape.of([7]), 0.7, False),  # less work
        (Shape.of([5, 5]), 0.7, False),  # more tokens, fewer pairs: that may be
    ],
)
def test_what_contradicts(other: Shape, taken: float, contradicts: bool) -> None:
    found = contradiction([Measurement(ONE, 1.0), Measurement(other, taken)])
    assert (found is not None) == contradicts
