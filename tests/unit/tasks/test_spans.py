"""The best stretches of a context, against all spans written out."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from bertd_server.tasks import spans
from bertd_server.tasks.spans import WindowLogits, best_stretches
from helpers.stepwise import counted
from hypothesis import given, settings
from hypothesis import strategies as st


def written_out(
    windows: list[WindowLogits], points: list[tuple[int, int]], longest: int
) -> dict[tuple[int, int], float]:
    """The best score of each stretch."""
    found: dict[tuple[int, int], float] = {}
    for window in windows:
        for first, start in zip(window.places.tolist(), window.starts, strict=True):
            for last, end in zip(window.places.tolist(), window.ends, strict=True):
                if first <= last < first + longest:
                    stretch = points[first][0], points[last][1]
                    found[stretch] = max(found.get(stretch, -math.inf), float(start + end))
    return found


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    tokens=st.integers(1, 40),
    room=st.integers(1, 12),
    longest=st.integers(1, 9),
    kind=st.sampled_from(["plain", "shared", "any"]),
    block=st.sampled_from([1, 20, 10**6]),
)
def test_the_best_of_all_windows(  # noqa: PLR0913, PLR0917 - what there is to vary
    seed: int, tokens: int, room: int, longest: int, kind: str, block: int
) -> None:
    """Few values, so that many spans are equal; characters of several tokens; any order of them."""
    rng = random.Random(seed)
    if kind == "any":
        points = [(rng.randrange(9), rng.randrange(9, 20)) for _ in range(tokens)]
    else:
        share = 3 if kind == "shared" else 1
        points = [(place // share, place // share + 1) for place in range(tokens)]
    windows, begin = [], 0
    while True:
        places = np.arange(begin, min(begin + room, tokens))
        logits = [np.array(rng.choices([-1.0, 0.0, 2.5], k=len(places)), np.float32) for _ in "ab"]
        windows.append(WindowLogits(places, *logits))
        if begin + room >= tokens:
            break
        begin += rng.randint(1, room)
    expected = written_out(windows, points, longest)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spans, "_BLOCK", block)
        steps = best_stretches(windows, np.array(points), count=5, max_tokens=longest)
        best, parts = counted(steps)
    assert parts > len(windows)
    order = sorted(expected, key=lambda stretch: (-expected[stretch], stretch))[:5]
    found = list(zip(best.first.tolist(), best.last.tolist(), strict=True))
    assert found == order
    total = sum(math.exp(score) for score in expected.values())
    for stretch, probability in zip(found, best.probabilities(), strict=True):
        assert probability == pytest.approx(math.exp(expected[stretch]) / total, rel=1e-5)
