"""What an export says of the time that is left."""

from __future__ import annotations

from typing import get_args

import pytest
from bertd_export.progress import ExportStep, ExportSteps, about, seconds_left
from hypothesis import given
from hypothesis import strategies as st

PLAN: list[ExportStep] = ["load", "trace", "write", "fusion", "parity", "raw texts"]
sizes = st.floats(0, 1000)


def test_steps_say_how_many_there_are_and_what_is_left_once_the_size_is_known() -> None:
    now = [0.0]
    said: list[str] = []
    step = ExportSteps(PLAN, said.append, lambda: now[0])
    step("loading x")
    step.weigh(85_000_000)
    now[0] = 100.0  # it may have been downloaded: that says nothing of this machine
    step("tracing BertModel")
    assert said[0] == "[1/6] loading x"
    first, _ = seconds_left(["load"], PLAN[1:], 0.0, 85.0)
    assert said[1] == f"[2/6] tracing BertModel; {about(first)} left"


def test_a_machine_that_took_longer_is_thought_to_go_on_so() -> None:
    over, to_come = PLAN[:2], PLAN[2:]
    usual, _ = seconds_left(over, to_come, 0.6, 0.0)
    slow, whole = seconds_left(over, to_come, 30.0, 0.0)
    assert slow > 10 * usual
    assert whole


def test_examples_of_the_users_have_no_estimate() -> None:
    _, whole = seconds_left(["load"], ["trace", "evaluate"], 0.0, 1.0)
    assert not whole
    said: list[str] = []
    step = ExportSteps(["evaluate"], said.append)
    step.weigh(1)
    step("measuring")
    assert said == ["[1/1] measuring; some seconds or more left"]


@given(sizes, sizes, st.floats(0, 1e4), st.lists(st.sampled_from(get_args(ExportStep)), max_size=9))
def test_larger_models_take_no_less(
    one: float, other: float, spent: float, plan: list[ExportStep]
) -> None:
    small, large = sorted((one, other))
    assert seconds_left([], plan, 0.0, small)[0] <= seconds_left([], plan, 0.0, large)[0]
    assert seconds_left(plan, plan, spent, large)[0] >= 0


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.0, "some seconds"), (6.9, "about 5 s"), (41.0, "about 40 s"), (200.0, "about 3 min")],
)
def test_an_estimate_is_said_no_more_exactly_than_it_is(seconds: float, words: str) -> None:
    assert about(seconds) == words
