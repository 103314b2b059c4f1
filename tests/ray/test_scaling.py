"""How many replicas a load needs."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from bertd_ray.scaling import UTILISATION, Utilisation, replicas_for


@pytest.mark.parametrize(
    ("used", "running", "replicas"),
    [
        ([], 3, 3),  # nobody has said anything
        ([0.01, 0.01], 2, 1),
        ([0.7, 0.7], 2, 2),
        ([0.75, 0.7], 2, 3),
        ([1.0], 1, 2),
        ([3.0], 1, 5),  # two seconds of queue
        ([1.4], 2, 4),  # the other one has just come
    ],
)
def test_replicas_follow_the_mean(used: list[float], running: int, replicas: int) -> None:
    assert replicas_for(used, running, 0.7) == replicas


def test_the_policy_counts_replicas_that_run() -> None:
    context = SimpleNamespace(
        aggregated_metrics={UTILISATION: {"a": 1.4, "gone": 9.0}},
        running_replicas=["a"],
        current_num_replicas=1,
    )
    assert Utilisation(0.7)(context) == (2, {})
    context.aggregated_metrics = None
    assert Utilisation(0.7)(context) == (1, {})


@pytest.mark.parametrize("target", [0, -1, 2.5])
def test_a_target_has_bounds(target: float) -> None:
    with pytest.raises(ValueError, match="target is"):
        Utilisation(target)
