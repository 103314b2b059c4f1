"""The cost model: what it learns from measurements, and that it follows the machine."""

from __future__ import annotations

import random
import statistics

import pytest
from bertd_server.models.calibration import Calibration
from bertd_server.scheduling.batching import BatchPolicy
from bertd_server.scheduling.cost import CostModel, CostTracker, Measurement, Shape, fit
from bertd_server.scheduling.forecast import Forecast
from hypothesis import given
from hypothesis import strategies as st

# A small model on a slow core: 1 ms, 20 µs a sequence, 20 ns a pair, tokens from 60 down to 40 µs.
TRUE = CostModel((1e-3, 2e-5, 2e-8, *([6e-5] * 3), *([5e-5] * 3), *([4e-5] * 3)))
GRID = [
    Shape.of([length] * count)
    for length in (4, 8, 16, 32, 64, 128, 256, 512)
    for count in (1, 2, 4, 8, 16, 32)
    if length * count <= 4096
]

lengths = st.lists(st.integers(1, 512), min_size=1, max_size=40)
weights = st.lists(st.sampled_from([0.0, 1e-7, 1e-5, 1e-3]), min_size=12, max_size=12)


def measured(model: CostModel, shapes: list[Shape], noise: float, seed: int) -> list[Measurement]:
    rng = random.Random(seed)
    return [Measurement(s, model.seconds(s) * rng.uniform(1 - noise, 1 + noise)) for s in shapes]


def relative_error(model: CostModel, measurement: Measurement) -> float:
    return abs(model.seconds(measurement.shape) - measurement.seconds) / measurement.seconds


def some_shapes(count: int, seed: int) -> list[Shape]:
    rng = random.Random(seed)
    return [Shape.of(rng.choices((5, 12, 40, 130, 500), k=rng.randint(1, 9))) for _ in range(count)]


@pytest.mark.parametrize("seed", range(5))
def test_the_fit_finds_a_known_machine_through_noise(seed: int) -> None:
    """5 % of noise on the grid leaves a few percent of error on shapes that it does not hold."""
    model = fit(measured(TRUE, GRID, 0.05, seed))
    unseen = measured(TRUE, some_shapes(200, seed), 0.0, seed)
    errors = sorted(relative_error(model, m) for m in unseen)
    assert errors[100] < 0.03
    assert errors[-1] < 0.12


def test_what_is_longer_than_all_that_was_measured_is_not_free() -> None:
    """Beyond the grid tokens cost what they cost at its end."""
    model = fit(measured(TRUE, [s for s in GRID if s.tokens <= 200], 0.05, 1))
    assert relative_error(model, *measured(TRUE, [Shape.of([100] * 30)], 0.0, 1)) < 0.3


def test_a_sparse_grid_gives_no_steps_that_nothing_measured() -> None:
    """Where a few shapes leave the slopes open, neighbouring ones are alike."""
    straight = CostModel((1e-3, 0.0, 0.0, *([1e-4] * 9)))
    sparse = [Shape.of([length] * count) for length in (1, 8, 64, 512) for count in (1, 4)]
    slopes = fit(measured(straight, sparse, 0.05, 2)).weights[3:]
    assert max(slopes) < 1.3e-4
    assert min(slopes) > 0.7e-4


@given(lengths, lengths, weights)
def test_more_work_never_costs_less(one: list[int], other: list[int], given: list[float]) -> None:
    """Nor does any batch take no time."""
    model = CostModel(tuple(given))
    assert 0 < model.seconds(Shape.of(one)) <= model.seconds(Shape.of([*one, *other]))
    assert model.share(Shape.of(one)) > 0
    assert model.seconds(Shape.of([])) == 0


@given(st.integers(1, 300))
def test_the_shares_of_a_full_batch_are_what_it_takes(length: int) -> None:
    """Shares are what a text adds to batches in which tokens are cheapest."""
    count = max(1, 1024 // length)
    batch = Shape.of([length] * count)
    shares = count * TRUE.share(Shape.of([length]))
    assert shares == pytest.approx(TRUE.seconds(batch), rel=0.05)


@given(st.integers(1, 512), st.integers(16, 4096))
def test_the_knee_is_the_smallest_batch_that_is_nearly_best(length: int, limit: int) -> None:
    """Up to the limit, no size is more than a twentieth better."""
    knee = TRUE.knee(length, limit)
    assert knee.tokens <= limit

    def per_token(tokens: int) -> float:
        shape = Shape(max(1, tokens // length), tokens, tokens * min(tokens, length))
        return TRUE.seconds(shape) / tokens

    best = min(
        per_token(size) for size in (8, 16, 32, 64, 128, 256, 512, 1024, limit) if size <= limit
    )
    assert TRUE.seconds(knee) / knee.tokens <= 1.05 * best + 1e-12


def test_a_fit_needs_measurements_that_took_time() -> None:
    with pytest.raises(ValueError, match="needs measurements"):
        fit([])
    with pytest.raises(ValueError, match="each above 0"):
        fit([Measurement(Shape.of([1]), 0.0)])


def test_the_tracker_keeps_the_pace_of_the_machine_and_forgets_it_again() -> None:
    """A machine half as fast needs no new fit; a bias within the tolerance goes too."""
    for factor in (2.0, 1.2):
        tracker = CostTracker(measured(TRUE, GRID, 0.02, 0))
        changed = measured(TRUE.scaled(factor), some_shapes(100, 3), 0.05, 3)
        for m in changed:
            tracker.observe(m)
        bias = [tracker.model.seconds(m.shape) / m.seconds for m in changed]
        assert statistics.median(bias) == pytest.approx(1.0, abs=0.03)
        assert tracker.refits == 0
        assert tracker.error < 0.08
        tracker.forget()
        assert tracker.model is tracker.at_start
        assert tracker.error == 0


def test_the_tracker_fits_again_when_costs_have_another_form() -> None:
    """Here a sequence costs as much as many tokens do."""
    tracker = CostTracker(measured(TRUE, GRID, 0.02, 0))
    other = CostModel((TRUE.weights[0], 5e-3, *TRUE.weights[2:]))
    for m in measured(other, some_shapes(400, 3), 0.05, 3):
        tracker.observe(m)
    assert tracker.refits >= 1
    assert tracker.error < 0.25


def test_the_tracker_lets_a_few_outliers_pass() -> None:
    """One batch in four that takes ten times as long is no slower machine."""
    tracker = CostTracker(measured(TRUE, GRID, 0.02, 0))
    for index, m in enumerate(measured(TRUE, some_shapes(300, 4), 0.05, 4)):
        tracker.observe(Measurement(m.shape, m.seconds * (10 if index % 4 == 0 else 1)))
    assert tracker.refits == 0


@pytest.mark.parametrize("factor", [0.25, 4.0])
def test_the_budget_follows_the_machine_and_returns_after_a_pause(factor: float) -> None:
    """Its pace changes the budget of batches; ten idle seconds bring back the measured one, unless
    the machine has proven faster than that since."""
    forecast = Forecast(Calibration(measured(TRUE, GRID, 0.0, 0), []), BatchPolicy(2048, 64))
    before = forecast.policy.budget_seconds
    for m in measured(TRUE.scaled(factor), some_shapes(64, 5), 0.0, 5):
        forecast.observe(m.shape, m.seconds, 100.0, wide=False)
    assert forecast.policy.budget_seconds / before == pytest.approx(factor, rel=0.05)
    changed = forecast.policy.budget_seconds
    forecast.idle(109.0)
    assert forecast.policy.budget_seconds == changed
    for now in (111.0, 125.0):
        forecast.idle(now)
        expected = min(1.0, factor) * TRUE.seconds(GRID[0])
        assert forecast.costs.lane.seconds(GRID[0]) == pytest.approx(expected, rel=0.05)


def test_a_batch_that_was_much_faster_counts_at_once_and_a_slow_one_with_others() -> None:
    """None is faster than the machine can be, while anything may hold one up."""
    tracker = CostTracker(measured(TRUE.scaled(10), GRID, 0.0, 0))  # in a bad minute
    shape = GRID[9]
    assert not tracker.observe(Measurement(shape, 100 * TRUE.seconds(shape)))
    assert tracker.observe(Measurement(shape, TRUE.seconds(shape)))
    assert tracker.model.seconds(shape) == pytest.approx(TRUE.seconds(shape), rel=0.05)
    tracker.forget()  # after a pause
    assert tracker.model.seconds(shape) == pytest.approx(TRUE.seconds(shape), rel=0.05)
    tracker.forget()
    assert tracker.model.seconds(shape) == pytest.approx(TRUE.seconds(shape), rel=0.05)


def test_a_better_grid_takes_the_place_of_the_first_and_keeps_the_pace() -> None:
    """Here the machine is half as fast as when the second grid was measured."""
    tracker = CostTracker(measured(TRUE.scaled(7), GRID[:3], 0.0, 0))
    for m in measured(TRUE.scaled(2), some_shapes(32, 5), 0.0, 5):
        tracker.observe(m)
    tracker.rebase(measured(TRUE, GRID, 0.0, 0))
    shape = Shape.of([100] * 4)
    assert tracker.at_start.seconds(shape) == pytest.approx(TRUE.seconds(shape), rel=0.05)
    assert tracker.model.seconds(shape) == pytest.approx(2 * TRUE.seconds(shape), rel=0.05)


@given(
    st.lists(st.sampled_from(GRID[:12]), min_size=1, max_size=4, unique=True),
    st.lists(st.floats(1e-4, 1.0), min_size=4, max_size=4),
)
def test_what_was_not_measured_is_bounded_by_what_was(
    shapes: list[Shape], times: list[float]
) -> None:
    """Whatever a few batches of short texts took, in a bad minute say: a large batch is never
    predicted to take longer than the smallest measured ones one after the other, its pairs
    aside."""
    found = [Measurement(s, t) for s, t in zip(shapes, times, strict=False)]
    model = fit(found)
    token = min(m.seconds / m.shape.tokens for m in found)
    most = max(m.shape.tokens for m in found)
    for shape in (Shape.of([512]), Shape.of([64] * 32), Shape.of([8] * 250)):
        near = model.seconds(Shape(shape.sequences, most, 0))
        beyond = model.seconds(shape) - near
        assert beyond <= (shape.tokens - most) * token + shape.pairs * token / 512 + 1e-9


def test_a_wide_session_that_was_slow_is_tried_again() -> None:
    """Once it has seen no batch for ten seconds, while the lanes go on as they are."""
    forecast = Forecast(
        Calibration(measured(TRUE, GRID, 0.0, 0), measured(TRUE, GRID, 0.0, 0)),
        BatchPolicy(2048, 64),
    )
    at_start = forecast.costs
    for m in measured(TRUE.scaled(3), some_shapes(64, 5), 0.0, 5):
        forecast.observe(m.shape, m.seconds, 100.0, wide=True)
    slow = forecast.costs.wide
    for now in (101.0, 109.0):
        forecast.observe(Shape.of([10]), 0.01, now, wide=False)
    assert forecast.costs.wide == slow != at_start.wide
    forecast.observe(Shape.of([10]), 0.01, 111.0, wide=False)
    assert forecast.costs.wide == at_start.wide
