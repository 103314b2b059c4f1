"""Which session is faster, as batches of one size say; all in virtual time."""

from __future__ import annotations

import math

import pytest
from bertd_server.models.calibration import Calibration
from bertd_server.scheduling.batching import BatchPolicy, FreeLanes, form_batch
from bertd_server.scheduling.classes import size_class
from bertd_server.scheduling.cost import CostModel, Measurement, Shape
from bertd_server.scheduling.forecast import Forecast
from helpers.held import GRID, LANE

BOTH = FreeLanes(2, 2)


class Text:
    """A waiting text."""

    priority, virtual_arrival, passed_over, probe = 0, 0.0, 0, False

    def __init__(self, tokens: int, deadline: float = math.inf) -> None:
        self.shape = Shape.single(tokens)
        self.deadline = deadline


class Machine:
    """Lone texts on a machine that takes other times than were measured."""

    def __init__(self, lane: float, wide: float, *, noted: bool, grid_wide: float = 0.8) -> None:
        """Take so many times what LANE says, on each session; measured were 1 and `grid_wide`.

        What is `noted` is learnt when it is time to.
        """
        self.lane, self.wide, self.noted = lane, wide, noted
        grid = [Measurement(shape, LANE.seconds(shape)) for shape in GRID]
        on_wide = [Measurement(m.shape, grid_wide * m.seconds) for m in grid]
        measured = Calibration(grid, on_wide)
        self.forecast = Forecast(measured, BatchPolicy(2048, 64))
        self.now = 100.0

    def answer(self, tokens: int, within: float = math.inf) -> bool:
        """Run one text; whether on all threads."""
        text = Text(tokens, self.now + within)
        forecast = self.forecast
        decision = form_batch([text], forecast.policy, forecast.costs, BOTH, self.now)
        assert decision.batch == [text]
        seconds = LANE.seconds(text.shape) * (self.wide if decision.wide else self.lane)
        self.now += seconds
        if not self.noted:
            forecast.observe(text.shape, seconds, self.now, wide=decision.wide, lone=True)
        elif forecast.note(text.shape, seconds, self.now, wide=decision.wide, way=0.0):
            forecast.learn()
        return decision.wide


@pytest.mark.parametrize("noted", [False, True])
def test_a_lone_text_goes_where_texts_of_its_size_are_done_first(*, noted: bool) -> None:
    """Neighbours made all threads slow for short texts."""
    machine = Machine(lane=1.0, wide=1.3, noted=noted)
    chosen = [machine.answer(24) for _ in range(200)]
    assert chosen[0]  # as measured
    assert sum(chosen) < 20
    machine.wide = 0.8
    assert sum(machine.answer(500) for _ in range(500)) > 200
    assert sum(machine.answer(24) for _ in range(500)) > 200  # the neighbours have gone


@pytest.mark.parametrize("noted", [False, True])
def test_the_other_session_is_tried_again_now_and_then_where_that_costs_little(
    *, noted: bool
) -> None:
    machine = Machine(lane=1.0, wide=0.8, noted=noted)
    chosen = [machine.answer(24) for _ in range(330)]
    assert 5 <= chosen.count(False) <= 15
    steep = Machine(lane=2.0, wide=0.8, noted=noted)  # known after the first tries
    assert [steep.answer(24) for _ in range(1000)].count(False) <= 3
    hasty = Machine(lane=1.0, wide=0.8, noted=noted)
    within = 0.9 * LANE.seconds(Shape.single(24))  # no time to try
    assert all(hasty.answer(24, within) for _ in range(200))


@pytest.mark.parametrize("noted", [False, True])
def test_a_session_that_a_bad_start_made_slow_is_tried(*, noted: bool) -> None:
    """Nothing but a batch can show it; where one shows that it is slow, it is left alone."""
    wronged = Machine(lane=1.0, wide=0.8, noted=noted, grid_wide=6.0)
    assert [wronged.answer(24) for _ in range(100)].count(True) > 50
    slow = Machine(lane=1.0, wide=6.0, noted=noted, grid_wide=6.0)
    begin = slow.now
    tries = [slow.answer(24) for _ in range(1000)].count(True)
    assert 1 <= tries <= 1 + (slow.now - begin) / 10.0


def test_what_is_known_of_a_class_is_forgotten_with_the_rest() -> None:
    machine = Machine(lane=1.0, wide=2.0, noted=False)
    for _ in range(3):
        machine.answer(24)
    known = machine.forecast.costs
    assert known.wide_factors or known.wide != CostModel(())
    assert not machine.answer(24)
    machine.forecast.idle(machine.now + 11.0)
    assert not machine.forecast.costs.wide_factors
    assert not machine.forecast.costs.lane_factors


@pytest.mark.parametrize(("tokens", "kind"), [(1, 1), (7, 3), (8, 4), (15, 4), (16, 5)])
def test_classes_are_powers_of_two(tokens: int, kind: int) -> None:
    assert size_class(Shape.single(tokens)) == kind
