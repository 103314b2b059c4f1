"""Schedulers in virtual time: nothing is lost, nothing is random, small cases add up by hand."""

from __future__ import annotations

import time

import pytest
from bertd_bench.scheduling.costs import MEASURED, least_work
from bertd_bench.scheduling.policies import FixedWindow, Ours, TokenBudget
from bertd_bench.scheduling.simulate import (
    BUDGET,
    LOADS,
    ONE_BY_ONE,
    OURS,
    POLICIES,
    WINDOW,
    Simulation,
    Stage,
    results,
)
from bertd_bench.scheduling.simulation import (
    Choice,
    QueueView,
    SchedulingPolicy,
    SimulatedRun,
    simulate,
)
from bertd_bench.scheduling.traffic import TRAFFICS, Arrival
from bertd_server.scheduling.batching import BatchPolicy, Costs
from bertd_server.scheduling.cost import CostModel, Shape
from helpers.paths import ROOT

RESULTS = ROOT / "benchmarks" / "results"
COSTS = next(iter(MEASURED.values()))

# One second for a batch, and one for each ten tokens of it.
SIMPLE = Costs(CostModel((1.0, 0.0, 0.0, *(0.1,) * 9)))
LIMITS = BatchPolicy(max_tokens=1_000, max_sequences=100)


def arriving(*texts: tuple[float, int, float]) -> list[Arrival]:
    """Of each its time, tokens and deadline."""
    return [Arrival(at, tokens, 0, deadline) for at, tokens, deadline in texts]


def played(
    scheduler: SchedulingPolicy, *texts: tuple[float, int, float], lanes: int = 1
) -> SimulatedRun:
    return simulate(arriving(*texts), scheduler, SIMPLE, lanes=lanes)


def ends(run: SimulatedRun) -> list[float | None]:
    return [None if r.answered is None else round(r.answered, 6) for r in run.requests]


def test_window_by_hand() -> None:
    """The first waits for the window and takes along the second; three make a full batch."""
    run = played(
        FixedWindow(2.0, 3), (0, 10, 99), (1, 10, 99), (6, 10, 99), (6, 10, 99), (7, 10, 99)
    )
    assert [batch.begin for batch in run.batches] == [2.0, 7.0]
    assert ends(run) == [5.0, 5.0, 11.0, 11.0, 11.0]


def test_budget_by_hand() -> None:
    """Twenty tokens are a batch, in the order of arrival; who has gone is dropped."""
    run = played(TokenBudget(20), (0, 10, 99), (0, 10, 99), (0, 10, 2.5), (0, 30, 99))
    assert ends(run) == [3.0, 3.0, None, 7.0]
    assert run.requests[2].refused


def test_budget_has_room_for_so_many() -> None:
    """The third finds two waiting; the first is not yet at work when they come together."""
    run = played(TokenBudget(10, most=2), (0, 10, 99), (0, 10, 99), (0, 10, 99))
    assert [request.refused for request in run.requests] == [False, False, True]


def test_ours_by_hand() -> None:
    """The earlier deadline goes first, and who cannot make it is refused on arrival."""
    scheduler = Ours(BatchPolicy(15, 100), SIMPLE)
    run = played(scheduler, (0, 10, 99), (0.5, 10, 99), (0.6, 10, 20), (0.7, 10, 3))
    assert ends(run) == [2.0, 6.0, 4.0, None]
    assert run.requests[3].refused


def test_two_lanes_and_a_batch_that_takes_both() -> None:
    """Two lanes run at once; a wide batch waits for no lane and leaves none."""
    run = played(TokenBudget(10), (0, 10, 99), (0, 10, 99), (0, 10, 99), lanes=2)
    assert ends(run) == [2.0, 2.0, 4.0]

    class Wide(TokenBudget):
        def choose(self, state: QueueView) -> Choice:
            whole = state.lanes.idle == state.lanes.total
            return Choice(state.waiting[:1], wide=True) if whole else Choice()

    run = played(Wide(), (0, 10, 99), (0, 10, 99), lanes=2)
    assert ends(run) == [2.0, 4.0]


@pytest.mark.parametrize("lengths", [(8,), (8, 8, 8, 200), (256,) * 8, (16,) * 100])
def test_no_batch_costs_less_than_the_least_work_of_its_texts(lengths: tuple[int, ...]) -> None:
    """What makes the capacity one."""
    work = least_work(COSTS, 2, 2_048)
    least = sum(work(Shape.of([n])) for n in lengths)
    assert COSTS.wide is not None
    assert least <= COSTS.wide.seconds(Shape.of(lengths)) * (1 + 1e-9)
    assert least <= COSTS.lane.seconds(Shape.of(lengths)) / 2 * (1 + 1e-9)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("traffic", TRAFFICS, ids=lambda traffic: traffic.name)
def test_each_request_has_one_outcome(policy: str, traffic: object) -> None:
    """Answered in one batch or refused, never both; lanes never run more than there are."""
    stage = Stage(next(t for t in TRAFFICS if t is traffic), COSTS, 2, 300)
    drawn = stage.draw(1.3, 5)
    run = stage.run(policy, drawn)
    assert [request.arrival for request in run.requests] == drawn
    computed = [id(request) for batch in run.batches for request in batch.requests]
    assert len(set(computed)) == len(computed)
    for request in run.requests:
        assert (id(request) in computed) == (request.answered is not None) != request.refused
    for batch in run.batches:
        held = [b for b in run.batches if b.begin <= batch.begin < b.end]
        assert sum(2 if b.wide else 1 for b in held) <= 2
        # Nobody is computed whose time has passed, nor, by ours, one who could not make it.
        assert all(request.deadline > batch.begin for request in batch.requests)
        assert all(request.virtual_arrival <= batch.begin for request in batch.requests)
    if policy == OURS:
        assert all(r.good for r in run.requests if r.answered is not None)
    work = least_work(COSTS, 2, 16_384)
    for batch in run.batches:
        seconds = (batch.end - batch.begin) * (1 if batch.wide else 0.5)
        assert sum(work(request.shape) for request in batch.requests) <= seconds * (1 + 1e-9)


def test_a_seed_decides_everything() -> None:
    """Another one draws other texts."""
    stage = Stage(TRAFFICS[3], COSTS, 2, 200)

    def outcome(seed: int) -> list[float | None]:
        return [r.answered for r in stage.run(OURS, stage.draw(1.0, seed)).requests]

    assert outcome(1) == outcome(1) != outcome(2)


def test_load_moves_arrivals_nearer_and_changes_nothing_else() -> None:
    stage = Stage(TRAFFICS[0], COSTS, 2, 100)
    slow, fast = stage.draw(0.5, 1), stage.draw(2.0, 1)
    assert [a.tokens for a in slow] == [a.tokens for a in fast]
    assert slow[-1].at == pytest.approx(4 * fast[-1].at)


def test_time_is_virtual() -> None:
    """A year of waiting is over at once."""
    begin = time.process_time()
    run = played(FixedWindow(3e7, 2), (0, 10, 9e7))
    assert ends(run) == [3e7 + 2]
    assert time.process_time() - begin < 10


def test_a_policy_that_rests_for_ever_is_reported() -> None:
    class Idle(TokenBudget):
        def choose(self, state: QueueView) -> Choice:  # noqa: ARG002 - the protocol's
            return Choice()

    with pytest.raises(RuntimeError, match="rests"):
        played(Idle(), (0, 10, 99))


@pytest.fixture(scope="module")
def committed() -> Simulation:
    return Simulation.model_validate_json((RESULTS / "simulation.json").read_text(encoding="utf-8"))


def test_the_committed_result_can_be_had_again(committed: Simulation) -> None:
    """One case of it: a change of the scheduler that moves it needs a new table."""
    stage = Stage(TRAFFICS[0], COSTS, committed.lanes, committed.requests)
    found = results(stage, 1.0, committed.seeds)
    expected = [r for r in committed.models[0].rows if (r.traffic, r.load) == ("steady", 1.0)]
    assert found == expected


def test_the_committed_result_is_complete_and_ours_is_good(committed: Simulation) -> None:
    """Nobody who answers in arrival order does more; under overload the window does far less."""
    for model in committed.models:
        by = {(row.traffic, row.load, row.policy): row.goodput for row in model.rows}
        assert len(by) == len(TRAFFICS) * len(LOADS) * len(POLICIES)
        for traffic in TRAFFICS:
            for load in LOADS:
                ours = by[traffic.name, load, OURS]
                for policy in (ONE_BY_ONE, WINDOW, BUDGET):
                    assert ours >= by[traffic.name, load, policy], (traffic.name, load, policy)
                if load >= 1:
                    assert ours >= 1.4 * by[traffic.name, load, WINDOW], (traffic.name, load)
