"""Properties of forming batches, and of the queue that it is done from."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

import pytest
from bertd_server.scheduling.batching import (
    BatchPolicy,
    Costs,
    FreeLanes,
    form_batch,
    form_short_batch,
    urgency,
)
from bertd_server.scheduling.cost import CostModel, Shape
from bertd_server.scheduling.request_queue import RequestQueue
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

# 1 ms, 20 µs a sequence, 20 ns a pair, 50 µs a token; the wide session is as fast as 1.6 lanes.
LANE = CostModel((1e-3, 2e-5, 2e-8, *([5e-5] * 9)))
WIDE = CostModel((1.5e-3, 2e-5, 1.2e-8, *([3e-5] * 9)))
NOW = 1.0


@dataclass(eq=False)
class Text:
    """A waiting text."""

    tokens: int
    deadline: float = math.inf
    priority: int = 0
    virtual_arrival: float = 0.0
    passed_over: int = 0
    probe: bool = False
    shape: Shape = field(init=False)

    def __post_init__(self) -> None:
        self.shape = Shape.of([self.tokens])


def lines(passed_over: SearchStrategy[int]) -> SearchStrategy[list[Text]]:
    return st.lists(
        st.builds(
            Text,
            tokens=st.integers(1, 512),
            deadline=st.sampled_from([0.5, 1.001, 1.005, 1.02, 1.1, 2.0, math.inf]),
            priority=st.integers(0, 2),
            virtual_arrival=st.floats(0, 1),
            passed_over=passed_over,
        ),
        max_size=40,
    )


texts = lines(st.just(0))
policies = st.builds(
    BatchPolicy,
    max_tokens=st.integers(1, 2048),
    max_sequences=st.integers(1, 32),
    budget_seconds=st.sampled_from([1e-3, 1e-2, 0.1, math.inf]),
    max_passed_over=st.just(3),
    margin=st.sampled_from([0.0, 0.002]),
)
costs = st.sampled_from([Costs(LANE), Costs(LANE, WIDE)])
lanes = st.sampled_from(
    [FreeLanes(1, 1), FreeLanes(1, 2), FreeLanes(2, 2), FreeLanes(3, 4), FreeLanes(4, 4)]
)


@given(lines(st.integers(0, 4)), policies, costs, lanes)
def test_every_text_goes_to_exactly_one_place(
    waiting: list[Text], policy: BatchPolicy, cost: Costs, lane: FreeLanes
) -> None:
    """Batch, late and remaining hold each text once; something runs unless all are late."""
    decision = form_batch(waiting, policy, cost, lane, NOW)
    places = [id(t) for t in (*decision.batch, *decision.late, *decision.remaining)]
    assert sorted(places) == sorted(map(id, waiting))
    assert bool(decision.batch) == (len(decision.late) < len(waiting))


@given(texts, policies, costs, lanes)
def test_a_batch_is_the_front_of_the_order(
    waiting: list[Text], policy: BatchPolicy, cost: Costs, lane: FreeLanes
) -> None:
    """Priority, deadline, virtual arrival; no text overtakes another for being smaller."""
    decision = form_batch(waiting, policy, cost, lane, NOW)
    gone = {id(t) for t in decision.late}
    ordered = sorted((t for t in waiting if id(t) not in gone), key=urgency)
    assert [*decision.batch, *decision.remaining] == ordered


@given(lines(st.integers(0, 4)), policies, costs, lanes)
def test_a_text_passed_over_too_often_makes_the_batch_go_by_arrival(
    waiting: list[Text], policy: BatchPolicy, cost: Costs, lane: FreeLanes
) -> None:
    decision = form_batch(waiting, policy, cost, lane, NOW)
    ordered = [*decision.batch, *decision.remaining]
    assume(any(t.passed_over >= 3 for t in ordered))
    assert ordered == sorted(ordered, key=lambda t: t.virtual_arrival)


@given(texts, policies, costs, lanes)
def test_a_batch_keeps_its_limits(
    waiting: list[Text], policy: BatchPolicy, cost: Costs, lane: FreeLanes
) -> None:
    """Only a single text may be larger than a limit, or take longer than the budget."""
    decision = form_batch(waiting, policy, cost, lane, NOW)
    assert len(decision.batch) <= policy.max_sequences
    if len(decision.batch) > 1:
        assert sum(t.tokens for t in decision.batch) <= policy.max_tokens
        assert decision.seconds <= policy.budget_seconds


@given(texts, policies, costs, lanes)
def test_nothing_late_is_computed_and_nobody_is_made_late(
    waiting: list[Text], policy: BatchPolicy, cost: Costs, lane: FreeLanes
) -> None:
    """The whole batch is done before the deadline of each of its texts; late ones have no way.

    By a margin, if there is more than one: the first always runs.
    """
    decision = form_batch(waiting, policy, cost, lane, NOW)
    margin = policy.margin if len(decision.batch) > 1 else 0.0
    assert all(NOW + decision.seconds + margin < t.deadline for t in decision.batch)
    ways = [cost.lane, *([cost.wide] if cost.wide and lane.idle == lane.total else [])]
    for text in decision.late:
        assert all(NOW + way.seconds(text.shape) >= text.deadline for way in ways)


@given(texts, policies, lanes)
def test_the_wide_session_is_taken_only_when_every_lane_is_idle(
    waiting: list[Text], policy: BatchPolicy, lane: FreeLanes
) -> None:
    decision = form_batch(waiting, policy, Costs(LANE, WIDE), lane, NOW)
    assert not decision.wide or lane.idle == lane.total
    model = WIDE if decision.wide else LANE
    assert decision.seconds == model.seconds(Shape.of(t.tokens for t in decision.batch))


@given(st.lists(st.integers(1, 300), min_size=2, max_size=30), st.integers(2, 4))
def test_idle_lanes_share_what_waits(tokens: list[int], count: int) -> None:
    """One batch for each: the first ones have their even part, and the last takes the rest."""
    waiting = [Text(n, virtual_arrival=i) for i, n in enumerate(tokens)]
    policy = BatchPolicy(100_000, 100)
    work = sum(LANE.share(t.shape) for t in waiting)
    for idle in range(count, 0, -1):
        decision = form_batch(waiting, policy, Costs(LANE), FreeLanes(idle, count), NOW)
        taken = sum(LANE.share(t.shape) for t in decision.batch)
        even = sum(LANE.share(t.shape) for t in waiting) / idle
        assert (
            taken - LANE.share(decision.batch[-1].shape) < even + 1e-12 <= taken + 2e-12
            if even
            else True
        )
        waiting = decision.remaining
        if not waiting:
            break
    assert not waiting
    assert work > 0


def test_a_lone_long_text_goes_wide_and_many_short_ones_do_not() -> None:
    """Short ones are done sooner on the lanes, which have less overhead."""
    policy, all_idle = BatchPolicy(2048, 64), FreeLanes(4, 4)
    long = form_batch([Text(512)], policy, Costs(LANE, WIDE), all_idle, NOW)
    short = form_batch([Text(8) for _ in range(8)], policy, Costs(LANE, WIDE), all_idle, NOW)
    assert (long.wide, short.wide, len(short.batch)) == (True, False, 2)


@pytest.mark.parametrize(
    ("tokens", "lasting", "runs"),
    [
        ([8], 0.01, [8]),  # 1.4 ms
        ([8], 0.005, []),  # what runs ends nearly as soon
        ([8, 16], 0.02, [8, 16]),
        ([8, 16], 0.008, []),  # the two together take too long
        ([129], 10.0, []),
        ([60, 70], 10.0, []),  # many are for the lanes
        ([8], math.inf, [8]),  # no slower than on all threads, whose cores others have
        ([128], math.inf, [128]),
    ],
)
def test_all_short_texts_that_wait_run_beside_much_longer_ones_or_none(
    tokens: list[int], lasting: float, runs: list[int]
) -> None:
    decision = form_short_batch(
        [Text(size) for size in tokens],
        BatchPolicy(2048, 32),
        Costs(LANE, WIDE),
        lasting,
        NOW,
    )
    assert [text.tokens for text in (decision.batch if decision else [])] == runs
    if decision:
        assert decision.seconds == LANE.seconds(Shape.of(runs))


def test_short_texts_go_to_all_threads_where_those_are_much_faster() -> None:
    wide = Costs(LANE, WIDE.scaled(0.3))
    assert form_short_batch([Text(8)], BatchPolicy(2048, 32), wide, math.inf, NOW) is None


def test_a_short_text_that_would_be_late_stays_for_the_lanes() -> None:
    late, other = Text(8, deadline=NOW + 1e-4), Text(8)
    decision = form_short_batch([late, other], BatchPolicy(2048, 32), Costs(LANE), 1.0, NOW)
    assert decision is not None
    assert decision.batch == [other]
    assert decision.shape == other.shape


def test_a_text_that_no_lane_can_answer_in_time_goes_wide() -> None:
    """The wide session is there for its deadline, whatever waits behind it."""
    tight = Text(512, deadline=NOW + 0.025)
    others = [Text(200, virtual_arrival=1.0) for _ in range(50)]
    decision = form_batch(
        [*others, tight], BatchPolicy(2048, 64), Costs(LANE, WIDE), FreeLanes(2, 2), NOW
    )
    assert decision.wide
    assert decision.batch[0] is tight


@given(texts, policies, costs, lanes, st.integers(0, 3))
def test_the_queue_decides_as_if_it_looked_at_all(
    waiting: list[Text], policy: BatchPolicy, cost: Costs, lane: FreeLanes, passed_over: int
) -> None:
    """The same batch, late ones and session, unless its front was cut.

    Then a lane's batch begins as the whole queue's would; it may end sooner. Nothing is lost in it.
    """
    queue = RequestQueue[Text](60.0)
    for text in waiting:
        queue.add(text, Costs(LANE), NOW)
    if waiting:
        queue.eldest.passed_over = passed_over
    front = queue._front(policy, cost, lane, NOW)
    whole = form_batch(waiting, policy, cost, lane, NOW)
    decision = queue.take(policy, cost, lane, NOW)
    if len(front) == len(waiting):
        assert (decision.batch, decision.wide, decision.seconds) == (
            whole.batch,
            whole.wide,
            whole.seconds,
        )
        assert {*map(id, decision.late)} == {*map(id, whole.late)}
    elif not whole.late and not whole.wide and not decision.wide:
        assert decision.batch == whole.batch[: len(decision.batch)]
    left = [*decision.batch, *decision.late, *queue]
    assert sorted(map(id, left)) == sorted(map(id, waiting))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_no_text_starves(seed: int) -> None:
    """More urgent texts arrive for ever; each text waits its bounded number of batches.

    A text runs within `max_passed_over + 1` batches for each one of those that arrived before it,
    and for itself.
    """
    rng = random.Random(seed)
    policy = BatchPolicy(max_tokens=64, max_sequences=4, max_passed_over=3)
    queue = RequestQueue[Text](60.0)
    before: dict[int, int] = {}  # texts in the queue when one arrived, and batches that had run
    born: dict[int, int] = {}
    arrived = batch = 0
    while batch < 150 or queue:
        batch += 1
        for _ in range(rng.choice((0, 3, 6)) if batch < 150 else 0):
            arrived += 1
            lasting = rng.random() < 0.2
            priority = 2 if lasting else 0
            text = Text(rng.randint(1, 64), math.inf, priority, virtual_arrival=arrived)
            before[arrived], born[arrived] = len(queue), batch
            queue.add(text, Costs(LANE), NOW)
        for text in queue.take(policy, Costs(LANE), FreeLanes(1, 1), NOW).batch:
            place = int(text.virtual_arrival)
            assert batch - born[place] <= (before[place] + 1) * (policy.max_passed_over + 1)


def test_forming_a_batch_looks_at_the_front_alone() -> None:
    """Ten thousand texts that wait behind a batch are not looked at."""

    class Watched(Text):
        looks = 0

        @property
        def shape(self) -> Shape:
            Watched.looks += 1
            return Shape.of([self.tokens])

        @shape.setter
        def shape(self, shape: Shape) -> None:
            pass

    queue = RequestQueue[Text](60.0)
    for turn in range(10_000):
        queue.add(Watched(16, virtual_arrival=turn), Costs(LANE), NOW)
    Watched.looks = 0
    policy = BatchPolicy(2048, 256, budget_seconds=0.02)
    decision = queue.take(policy, Costs(LANE), FreeLanes(2, 2), NOW)
    assert 10 < len(decision.batch) < 30
    assert Watched.looks < 20 * len(decision.batch)


@given(texts, st.data())
def test_the_queue_keeps_its_order_through_comings_and_goings(
    waiting: list[Text], data: st.DataObject
) -> None:
    queue = RequestQueue[Text](60.0)
    for text in waiting:
        queue.add(text, Costs(LANE), NOW)
    for text in data.draw(
        st.lists(st.sampled_from(waiting), unique_by=id) if waiting else st.just([])
    ):
        queue.remove(text)
        assert text not in queue
        text.priority += data.draw(st.integers(0, 1))
        if data.draw(st.booleans()):
            queue.add(text, Costs(LANE), NOW)
    left = list(queue)
    assert [urgency(t) for t in left] == sorted(map(urgency, left))
    assert not left or queue.eldest.virtual_arrival == min(t.virtual_arrival for t in left)
    assert len(queue) == len(left)
