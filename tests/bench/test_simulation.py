"""Schedulers in virtual time: nothing is lost, nothing is random, small cases add up by hand."""

from __future__ import annotations

import time

import numpy as np
import pytest
from bertd_bench.docs import sections
from bertd_bench.scheduling import simulatetable
from bertd_bench.scheduling.clairvoyant import bound, least_work
from bertd_bench.scheduling.costgrid import CostGrid
from bertd_bench.scheduling.policies import FixedWindow, Ours, TokenBudget
from bertd_bench.scheduling.simulate import (
    BOUND,
    LOADS,
    OURS,
    POLICIES,
    UNSURE,
    Simulation,
    Stage,
    rows,
)
from bertd_bench.scheduling.simulation import Choice, Run, Scheduler, State, simulate
from bertd_bench.scheduling.traffic import TRAFFICS, Arrival
from bertd_server.scheduling.batching import BatchPolicy, Costs
from bertd_server.scheduling.cost import CostModel, Shape
from helpers.paths import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

RESULTS = ROOT / "benchmarks" / "results"
GRID = CostGrid.model_validate_json((RESULTS / "costs.json").read_text(encoding="utf-8"))
COSTS = GRID.models[0].costs()

# One second for a batch, and one for each ten tokens of it.
SIMPLE = Costs(CostModel((1.0, 0.0, 0.0, *(0.1,) * 9)))
LIMITS = BatchPolicy(max_tokens=1_000, max_sequences=100)


def arriving(*texts: tuple[float, int, float]) -> list[Arrival]:
    """Of each its time, tokens and deadline."""
    return [Arrival(at, tokens, 0, deadline) for at, tokens, deadline in texts]


def played(scheduler: Scheduler, *texts: tuple[float, int, float], lanes: int = 1) -> Run:
    return simulate(arriving(*texts), scheduler, SIMPLE, lanes=lanes)


def ends(run: Run) -> list[float | None]:
    return [None if r.answered is None else round(r.answered, 6) for r in run.requests]


def test_window_by_hand() -> None:
    """The first waits for the window and takes along the second; three make a full batch."""
    run = played(
        FixedWindow(2.0, 3), (0, 10, 99), (1, 10, 99), (6, 10, 99), (6, 10, 99), (7, 10, 99)
    )
    assert [batch.begin for batch in run.batches] == [2.0, 7.0]
    assert ends(run) == [5.0, 5.0, 11.0, 11.0, 11.0]


def test_padding_by_hand() -> None:
    """Ten tokens beside thirty cost thirty."""
    texts = ((0.0, 10, 99.0), (0.0, 30, 99.0))
    assert ends(played(FixedWindow(0.0, 2), *texts)) == [5.0, 5.0]
    assert ends(played(FixedWindow(0.0, 2, pads=True), *texts)) == [7.0, 7.0]


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
        def choose(self, state: State) -> Choice:
            whole = state.lanes.idle == state.lanes.total
            return Choice(state.waiting[:1], wide=True) if whole else Choice()

    run = played(Wide(), (0, 10, 99), (0, 10, 99), lanes=2)
    assert ends(run) == [2.0, 4.0]


def test_the_bound_by_hand() -> None:
    """Three texts of a second each compete for two seconds; worth by tokens or by requests."""
    costs = Costs(CostModel((0.0, 0.0, 0.0, *(0.1,) * 9)))
    texts = arriving((0, 10, 2), (0, 10, 2), (0, 10, 2))
    assert bound(texts, costs, 1, 1_000).requests == pytest.approx(2.0)
    # A long text and short ones: by requests the short ones win, by tokens they are alike.
    texts = arriving((0, 20, 2), (0, 5, 2), (0, 5, 2))
    found = bound(texts, costs, 1, 1_000)
    assert found.requests == pytest.approx(2.5)
    assert found.tokens == pytest.approx(20.0)
    # Windows that do not overlap do not compete, and one too short for its text counts nothing.
    texts = arriving((0, 10, 1), (1, 10, 2), (2, 10, 2.5))
    assert bound(texts, costs, 1, 1_000).requests == pytest.approx(2.0)
    assert bound(texts[2:], costs, 1, 1_000).tokens == 0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(1, 4), st.integers(1, 6)), max_size=7))
def test_the_bound_is_the_optimum_of_its_program(texts: list[tuple[int, int, int]]) -> None:
    """Compared with max-flow by exhaustion: the least cut over all sets of texts (small cases)."""
    costs = Costs(CostModel((0.0, 0.0, 0.0, *(1.0,) * 9)))
    drawn = arriving(*sorted((float(at), n, float(at + max(n, span))) for at, n, span in texts))
    slots = range(16)
    least = np.inf
    for chosen in range(2 ** len(drawn)):
        inside = [a for i, a in enumerate(drawn) if chosen >> i & 1]
        usable = sum(any(a.at <= slot < a.deadline for a in inside) for slot in slots)
        least = min(
            least, usable + sum(a.tokens for i, a in enumerate(drawn) if not chosen >> i & 1)
        )
    assert bound(drawn, costs, 1, 1_000).tokens == pytest.approx(least)


@pytest.mark.parametrize("lengths", [(8,), (8, 8, 8, 200), (256,) * 8, (16,) * 100])
def test_no_batch_costs_less_than_the_least_work_of_its_texts(lengths: tuple[int, ...]) -> None:
    """What makes the bound a bound."""
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
    run = stage.run(policy, drawn, 5)
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
    if policy != UNSURE:
        good = sum(request.arrival.tokens for request in run.requests if request.good)
        assert good <= bound(drawn, COSTS, 2, 16_384).tokens * (1 + 1e-9)


def test_a_seed_decides_everything() -> None:
    """Noise included; another seed draws other texts."""
    stage = Stage(TRAFFICS[3], COSTS, 2, 200)

    def outcome(seed: int) -> list[float | None]:
        return [r.answered for r in stage.run(UNSURE, stage.draw(1.0, seed), seed).requests]

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
        def choose(self, state: State) -> Choice:  # noqa: ARG002 - the protocol's
            return Choice()

    with pytest.raises(RuntimeError, match="rests"):
        played(Idle(), (0, 10, 99))


@pytest.fixture(scope="module")
def committed() -> Simulation:
    return Simulation.model_validate_json((RESULTS / "simulation.json").read_text(encoding="utf-8"))


def test_the_document_says_what_was_simulated(committed: Simulation) -> None:
    text = (ROOT / "docs" / "lab" / "scheduling.md").read_text(encoding="utf-8")
    table = simulatetable.to_markdown(committed)
    assert text == sections.replaced(text, sections.begin("simulate"), table)


def test_the_committed_result_can_be_had_again(committed: Simulation) -> None:
    """One case of it: a change of the scheduler that moves it needs a new table."""
    stage = Stage(TRAFFICS[0], COSTS, committed.models[0].lanes, committed.requests)
    found = rows(stage, 1.0, committed.seeds)
    expected = [r for r in committed.models[0].rows if (r.traffic, r.load) == ("steady", 1.0)]
    assert found == expected


def test_the_committed_result_is_complete_and_ours_is_good(committed: Simulation) -> None:
    """What the document claims: at least 0.84 of the bound anywhere, 0.9 without bursts."""
    for model in committed.models:
        by = {(row.traffic, row.load, row.policy): row.goodput for row in model.rows}
        assert len(by) == len(TRAFFICS) * len(LOADS) * (len(POLICIES) + 1)
        for traffic in TRAFFICS:
            for load in LOADS:
                share = by[traffic.name, load, OURS] / by[traffic.name, load, BOUND]
                assert share >= (0.84 if traffic.bursts else 0.895), (traffic.name, load)
