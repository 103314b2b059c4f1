"""The drills, a few times each: `bertd bench drill` does them a hundred times."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from bertd_bench.contestants.eager import BenchError
from bertd_bench.drills import models, restarts, swaps
from bertd_bench.drills.models import TEXTS, DrillModel
from bertd_bench.drills.timeline import ServedVersion, Timeline


@pytest.fixture(scope="module")
def pair(tiny_bundle: Path, other_bundle: Path) -> tuple[DrillModel, DrillModel]:
    """Two models of one shape."""
    return models.known("A", tiny_bundle), models.known("B", other_bundle)


@pytest.mark.parametrize("control", ["explicit", "poll"])
def test_models_are_swapped_under_load(
    pair: tuple[DrillModel, DrillModel], control: swaps.Control, tmp_path: Path
) -> None:
    """New versions, and one version rewritten: each answer has the bits and version of one."""
    found = swaps.drill(
        pair,
        control,
        times=5,
        quiet_calls=10,
        folder=tmp_path / "drill",
        flags=["--threads", "2", "--lanes", "2"],
        progress=print,
    )
    assert found.seen.wrong == []
    assert set(found.seen.answered) == set(swaps._KINDS)
    assert len(found.memory) == 5


@pytest.mark.parametrize(("how", "times"), [(signal.SIGTERM, 2), (signal.SIGKILL, 1)])
def test_servers_are_restarted_under_load(
    pair: tuple[DrillModel, DrillModel], how: signal.Signals, times: int, tmp_path: Path
) -> None:
    """One of two is always there; the client's calls find it."""
    found = restarts.drill(
        pair[0],
        how,
        times=times,
        quiet_calls=10,
        delay_seconds=0.3,
        wait_seconds=1.0,
        folder=tmp_path / "drill",
        flags=("--threads", "1", "--lanes", "1"),
        progress=print,
    )
    assert found.wrong == []
    assert len(found.answered) == (2 if how is signal.SIGTERM else 0)


def test_a_drill_sees_what_is_wrong(pair: tuple[DrillModel, DrillModel]) -> None:
    """Bits of the other model, of both, of none; a version that is not theirs; one long gone."""
    one, other = pair
    texts = TEXTS[:2]
    mine, theirs = ([model.bits[text] for text in texts] for model in pair)
    timeline = Timeline([ServedVersion(one, "1")])
    assert timeline.wrong(0, texts, mine, "1") == ""
    assert timeline.wrong(0, texts, theirs, "1").endswith(
        "has the bits of ['nobody', 'nobody']; allowed: A as 1"
    )
    timeline.add(ServedVersion(other, "2"))
    assert timeline.wrong(0, texts, theirs, "2") == timeline.wrong(0, texts, mine) == ""
    assert "['B', 'B']" in timeline.wrong(0, texts, theirs, "1")
    assert "['A', 'B']" in timeline.wrong(0, texts, [mine[0], theirs[1]])
    assert "1 vectors" in timeline.wrong(0, texts, mine[:1])
    timeline.settle()
    assert "allowed: B as 2" in timeline.wrong(timeline.settled, texts, mine, "1")
    with pytest.raises(BenchError, match="same bits"):
        models.check_different([one, one])
