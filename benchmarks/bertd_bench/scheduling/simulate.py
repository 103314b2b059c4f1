"""Schedulers against each other in virtual time: what is compared, and what comes out.

::

    measured costs ─┬─> traffic x load ─> simulate(policy) ─> PolicyResult
                    └─> traffic, bisection over the load   ─> SustainedLoad
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from bertd_server.scheduling.batching import BatchPolicy, Costs, budget
from pydantic import BaseModel

from bertd_bench.scheduling.capacity import capacity
from bertd_bench.scheduling.costs import LANES, MACHINE, MEASURED
from bertd_bench.scheduling.policies import FixedWindow, Ours, TokenBudget
from bertd_bench.scheduling.simulation import SchedulingPolicy, SimulatedRun, simulate
from bertd_bench.scheduling.traffic import TRAFFICS, Arrival, Traffic, arrivals, lone

LOADS = (0.5, 0.8, 1.0, 1.3, 2.0)
OURS = "bertd"
UNSURE = "bertd, times 10 % off"
TAKES_ALL = "bertd, takes all"
ONE_BY_ONE = "one by one"
WINDOW = "fixed window"
BUDGET = "token budget"
POLICIES = (OURS, UNSURE, TAKES_ALL, ONE_BY_ONE, WINDOW, BUDGET)

_MAX_TOKENS, _MAX_SEQUENCES = 2_048, 256  # the server's defaults
_LARGEST = 16_384  # tokens of the largest batch of any policy here
_WINDOW_REQUESTS = 32
_NOISE = 0.1
_OVERRUN = _NOISE / math.sqrt(2 * math.pi)  # of a batch's time: what a tracker would see
_IN_TIME = 0.99  # of all requests: the objective holds at the 99th percentile
_STEPS = 7  # of bisection, from a range of 0 to 2


class PolicyResult(BaseModel, frozen=True):
    """One policy under one traffic and load.

    Attributes:
        load: offered work over capacity.
        goodput: work answered within its objective, in tokens, over capacity.
        in_time: part of the requests answered within their objectives.
        refused: part of the requests without an answer.
        p50, p95, p99: of answered requests, in times of a lone text of the mean length.
        batch_tokens: mean, of real tokens.
    """

    traffic: str
    load: float
    policy: str
    goodput: float
    in_time: float
    refused: float
    p50: float
    p95: float
    p99: float
    batch_tokens: float


class SustainedLoad(BaseModel, frozen=True):
    """The highest load at which 99 % of all requests are answered within their objectives."""

    traffic: str
    policy: str
    load: float


class ModelSimulation(BaseModel, frozen=True):
    """One model's results."""

    name: str
    rows: list[PolicyResult]
    sustained: list[SustainedLoad]


class Simulation(BaseModel, frozen=True):
    """What `bertd bench simulate` found, and for which costs and seeds.

    Attributes:
        machine: on which costs were measured, and its lanes.
    """

    machine: str
    lanes: int
    requests: int
    seeds: list[int]
    models: list[ModelSimulation]


@dataclass(frozen=True, slots=True)
class Stage:
    """One traffic on one machine."""

    traffic: Traffic
    costs: Costs
    lanes: int
    requests: int

    def draw(self, load: float, seed: int) -> list[Arrival]:
        """Arrivals at a load; the texts do not depend on it."""
        once = arrivals(self.traffic, self.costs, rate=1.0, count=self.requests, seed=seed)
        rate = load * capacity(self.costs, self.lanes, _LARGEST, once)
        return arrivals(self.traffic, self.costs, rate=rate, count=self.requests, seed=seed)

    def typical(self, drawn: Sequence[Arrival]) -> int:
        """Tokens of the mean text."""
        return round(sum(arrival.tokens for arrival in drawn) / len(drawn))

    def scheduler(self, policy: str, drawn: Sequence[Arrival]) -> SchedulingPolicy:
        """A fresh scheduler."""
        typical = self.typical(drawn)
        window = lone(self.costs, typical)
        seconds = budget(self.costs.lane, self.costs.lane.knee(typical, _MAX_TOKENS))
        limits = BatchPolicy(_MAX_TOKENS, _MAX_SEQUENCES, seconds)
        make: dict[str, Callable[[], SchedulingPolicy]] = {
            OURS: lambda: Ours(limits, self.costs),
            UNSURE: lambda: Ours(limits, self.costs, overrun=_OVERRUN * limits.budget_seconds),
            TAKES_ALL: lambda: Ours(limits, self.costs, refuses=False),
            ONE_BY_ONE: lambda: FixedWindow(0.0, 1),
            WINDOW: lambda: FixedWindow(window, _WINDOW_REQUESTS),
            BUDGET: lambda: TokenBudget(_LARGEST),
        }
        return make[policy]()

    def run(self, policy: str, drawn: Sequence[Arrival], seed: int) -> SimulatedRun:
        """Play arrivals against a policy."""
        noise = _NOISE if policy == UNSURE else 0.0
        scheduler = self.scheduler(policy, drawn)
        return simulate(drawn, scheduler, self.costs, lanes=self.lanes, noise=noise, seed=seed)


def results(stage: Stage, load: float, seeds: Sequence[int]) -> list[PolicyResult]:
    """Every policy at one load, over all seeds together."""
    draws = [(seed, stage.draw(load, seed)) for seed in seeds]
    unit = lone(stage.costs, stage.typical(draws[0][1]))
    return [
        _row(stage, load, policy, [stage.run(policy, drawn, seed) for seed, drawn in draws], unit)
        for policy in POLICIES
    ]


def _row(
    stage: Stage, load: float, policy: str, runs: Sequence[SimulatedRun], unit: float
) -> PolicyResult:
    requests = [request for run in runs for request in run.requests]
    good = [request for request in requests if request.good]
    took = [r.answered - r.virtual_arrival for r in requests if r.answered is not None] or [0.0]
    p50, p95, p99 = (round(float(p), 2) for p in np.percentile(np.array(took) / unit, [50, 95, 99]))
    batches = [batch.tokens for run in runs for batch in run.batches] or [0]
    total = sum(request.arrival.tokens for request in requests)
    return PolicyResult(
        traffic=stage.traffic.name,
        load=load,
        policy=policy,
        goodput=round(load * sum(request.arrival.tokens for request in good) / total, 4),
        in_time=round(len(good) / len(requests), 4),
        refused=round(sum(request.refused for request in requests) / len(requests), 4),
        p50=p50,
        p95=p95,
        p99=p99,
        batch_tokens=round(sum(batches) / len(batches), 1),
    )


def sustained(stage: Stage, policy: str, seed: int) -> SustainedLoad:
    """Bisect for the highest load within the objective."""

    def in_time(load: float) -> float:
        drawn = stage.draw(load, seed)
        run = stage.run(policy, drawn, seed)
        return sum(request.good for request in run.requests) / len(run.requests)

    low, high = 0.0, 2.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if in_time(middle) >= _IN_TIME else (low, middle)
    return SustainedLoad(traffic=stage.traffic.name, policy=policy, load=round(low, 3))


def compare(*, requests: int, seeds: Sequence[int], progress: Callable[[str], None]) -> Simulation:
    """Simulate every traffic, load and policy on every model whose costs were measured.

    Args:
        requests: texts of each run.
        seeds: of arrivals; the first one alone decides the loads that are sustained.
        progress: told what is simulated.
    """
    models = []
    for model in MEASURED:
        rows: list[PolicyResult] = []
        highest: list[SustainedLoad] = []
        for traffic in TRAFFICS:
            progress(f"{model.name}: {traffic.name}")
            stage = Stage(traffic, model.costs, LANES, requests)
            for load in LOADS:
                rows += results(stage, load, seeds)
            highest += [sustained(stage, policy, seeds[0]) for policy in POLICIES]
        models.append(ModelSimulation(name=model.name, rows=rows, sustained=highest))
    return Simulation(
        machine=MACHINE, lanes=LANES, requests=requests, seeds=list(seeds), models=models
    )
