"""Ramps in virtual time against systems of known capacity, and a whole run on a tiny model."""

from __future__ import annotations

import asyncio
import heapq
import math
import random
from pathlib import Path

import pytest
from bertd_bench.cli import bench
from bertd_bench.harness.results import read
from bertd_bench.load import document, generator, ramp, results
from bertd_bench.load.contestants import EAGER, OURS
from bertd_bench.load.generator import RequestOutcome, SendResult
from click.testing import CliRunner
from helpers.virtual import load, virtually

LANES, SECONDS = 4, 0.01  # 400 requests a second
OBJECTIVE = 0.1


class Lanes:
    """Answers each request in 10 ms, four at a time, in the order in which they came."""

    def __init__(self) -> None:
        self.free = [0.0] * LANES

    async def __call__(self, _: int, within: float) -> SendResult:
        loop = asyncio.get_running_loop()
        end = max(loop.time(), heapq.heappop(self.free)) + SECONDS
        heapq.heappush(self.free, end)
        wait = end - loop.time()
        await asyncio.sleep(min(wait, within))
        return SendResult(RequestOutcome.ANSWERED if wait <= within else RequestOutcome.EXPIRED)


def probe(rate: float) -> ramp.Step:
    """Ten seconds of it, all at once."""
    plan = generator.poisson(rate, 10, [1.0], random.Random(0))
    return ramp.step_of(rate, 10, virtually(load(plan, Lanes())), cores=1.0)


@pytest.mark.parametrize(
    "guess", [100.0, *(pytest.param(g, marks=pytest.mark.slow) for g in (400.0, 1600.0))]
)
def test_a_ramp_ends_beyond_the_capacity_and_closes_in_on_the_last_rate_that_held(
    guess: float,
) -> None:
    """Whatever it set out from; queues of 100 ms build up a little below what the lanes can do."""
    plan = ramp.RampSchedule(OBJECTIVE, most=24)
    steps = ramp.climb(probe, guess, plan)
    held = ramp.held(steps, OBJECTIVE)
    assert 0.85 * LANES / SECONDS < held <= 1.02 * LANES / SECONDS
    missed = [step for step in steps if step.rate > held and not step.meets(OBJECTIVE)]
    assert min(step.rate for step in missed) <= held * (1 + plan.precision)
    best = max(step.goodput(OBJECTIVE) for step in steps)
    assert min(step.goodput(OBJECTIVE) for step in missed) < plan.falls * best
    assert len(steps) < plan.most


def test_a_system_that_never_meets_the_objective_holds_no_rate() -> None:
    steps = ramp.climb(probe, 400, ramp.RampSchedule(SECONDS / 2, most=5))
    assert len(steps) == 5
    assert ramp.held(steps, SECONDS / 2) == 0


def test_what_was_not_answered_took_for_ever() -> None:
    """Of 200 requests three got no answer: more than one in a hundred."""
    step = ramp.Step(
        rate=20,
        seconds=10,
        requests=200,
        latencies_us=[1000] * 197,
        outcomes={"answered": 197, "refused": 3},
        late_us=0,
        cores=1,
    )
    assert step.percentile(0.98) == 0.001
    assert math.isinf(step.percentile(0.99))
    assert not step.meets(60)
    assert step.goodput(60) == pytest.approx(19.7)


@pytest.mark.slow
def test_contestants_climb_in_turns_and_become_a_table(tiny_bundle: Path, tmp_path: Path) -> None:
    """Bertd, and eager behind its front end: figures mean nothing, but are there.

    Both have proved that they give the same vectors.
    """
    target = tmp_path / "load.json"
    names = (OURS, f"{EAGER}, by length")
    arguments = ["load", "--model", str(tiny_bundle.parent / "checkpoint")]
    arguments += ["--threads", "1", "--seconds", "0.1", "--rounds", "2", "--steps", "1"]
    arguments += ["--set", "calibration_seconds=0.05", "--set", "warmup_seconds=0"]
    arguments += [part for name in names for part in ("--contestant", name)]
    done = CliRunner().invoke(bench, [*arguments, "--json", str(target)])
    assert done.exit_code == 0, done.output
    report = read(target, results.GoodputReport, "load")
    assert [each.name for each in report.entries] == list(names), report.skipped
    for entry in report.entries:
        assert entry.difference < 1e-4
        assert [each.round for each in entry.ramps] == [0, 1]
        assert all(step.requests == sum(step.outcomes.values()) for step in entry.steps())
    assert document.goodput(report) in done.output
    assert "| highest rate with p99 ≤ 100 ms |" in done.output
