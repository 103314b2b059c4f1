"""Schedulers against each other in virtual time: what is compared, and what comes out.

::

    measured costs, traffic x load ──> simulate(policy) ──> PolicyResult
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bertd_server.scheduling.batching import BatchPolicy, Costs, budget
from pydantic import BaseModel

from bertd_bench.scheduling.costs import LANES, MACHINE, MEASURED, capacity
from bertd_bench.scheduling.policies import FixedWindow, Ours, TokenBudget
from bertd_bench.scheduling.simulation import SchedulingPolicy, SimulatedRun, simulate
from bertd_bench.scheduling.traffic import TRAFFICS, Arrival, Traffic, arrivals, lone

LOADS = (0.5, 0.8, 1.0, 1.3, 2.0)
OURS = "bertd"
ONE_BY_ONE = "one by one"
WINDOW = "fixed window"
BUDGET = "token budget"
POLICIES = (OURS, ONE_BY_ONE, WINDOW, BUDGET)

_MAX_TOKENS, _MAX_SEQUENCES = 2_048, 256  # the server's defaults
_LARGEST = 16_384  # tokens of the largest batch of any policy here
_WINDOW_REQUESTS = 32


class PolicyResult(BaseModel, frozen=True):
    """One policy under one traffic and load.

    Attributes:
        load: offered work over capacity.
        goodput: work answered within its objective, in tokens, over capacity.
        in_time: part of the requests answered within their objectives.
    """

    traffic: str
    load: float
    policy: str
    goodput: float
    in_time: float


class ModelSimulation(BaseModel, frozen=True):
    """One model's results."""

    name: str
    rows: list[PolicyResult]


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
        rate = load * capacity(self.costs, self.lanes, _LARGEST, [each.shape for each in once])
        return arrivals(self.traffic, self.costs, rate=rate, count=self.requests, seed=seed)

    def scheduler(self, policy: str, drawn: Sequence[Arrival]) -> SchedulingPolicy:
        """A fresh scheduler, tuned for the mean text."""
        if policy == ONE_BY_ONE:
            return FixedWindow(0.0, 1)
        if policy == BUDGET:
            return TokenBudget(_LARGEST)
        typical = round(sum(arrival.tokens for arrival in drawn) / len(drawn))
        if policy == WINDOW:
            return FixedWindow(lone(self.costs, typical), _WINDOW_REQUESTS)
        seconds = budget(self.costs.lane, self.costs.lane.knee(typical, _MAX_TOKENS))
        return Ours(BatchPolicy(_MAX_TOKENS, _MAX_SEQUENCES, seconds), self.costs)

    def run(self, policy: str, drawn: Sequence[Arrival]) -> SimulatedRun:
        """Play arrivals against a policy."""
        return simulate(drawn, self.scheduler(policy, drawn), self.costs, lanes=self.lanes)


def results(stage: Stage, load: float, seeds: Sequence[int]) -> list[PolicyResult]:
    """Every policy at one load, over all seeds together."""
    draws = [stage.draw(load, seed) for seed in seeds]
    found = []
    for policy in POLICIES:
        requests = [each for drawn in draws for each in stage.run(policy, drawn).requests]
        good = [request.arrival.tokens for request in requests if request.good]
        total = sum(request.arrival.tokens for request in requests)
        found.append(
            PolicyResult(
                traffic=stage.traffic.name,
                load=load,
                policy=policy,
                goodput=round(load * sum(good) / total, 4),
                in_time=round(len(good) / len(requests), 4),
            )
        )
    return found


def compare(*, requests: int, seeds: Sequence[int], progress: Callable[[str], None]) -> Simulation:
    """Simulate every traffic, load and policy on every model whose costs were measured.

    Args:
        requests: texts of each run.
        seeds: of arrivals.
        progress: told what is simulated.
    """
    models = []
    for name, costs in MEASURED.items():
        rows: list[PolicyResult] = []
        for traffic in TRAFFICS:
            progress(f"{name}: {traffic.name}")
            stage = Stage(traffic, costs, LANES, requests)
            rows += [row for load in LOADS for row in results(stage, load, seeds)]
        models.append(ModelSimulation(name=name, rows=rows))
    return Simulation(
        machine=MACHINE, lanes=LANES, requests=requests, seeds=list(seeds), models=models
    )
