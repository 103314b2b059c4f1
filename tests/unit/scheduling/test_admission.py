"""Admission: what is taken can be answered in time, and what is refused could not."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
from bertd_server.errors import DeadlineMissed, Overloaded
from bertd_server.scheduling.admission import Bounds, Demand, Outlook, refusal
from bertd_server.scheduling.request_queue import Backlog, Place
from hypothesis import given
from hypothesis import strategies as st

BOUNDS = Bounds(tokens=1000, seconds=10.0)
NOW = 100.0
_LONGEST = 0.3  # seconds of a text


def demand(
    deadline: float = math.inf, *, priority: int = 0, tokens: int = 10, seconds: float = 0.01
) -> Demand:
    """A call of one text that takes a little longer alone than in a full batch."""
    return Demand(priority, deadline, tokens, seconds, longest=0.02, soonest=0.015)


def backlog(*texts: tuple[int, float, float]) -> Backlog:
    """Priority, deadline and seconds of each text; each has 10 tokens."""
    it = Backlog(horizon=20.0)
    for priority, deadline, seconds in texts:
        it.add(priority, deadline, NOW, seconds=seconds, tokens=10)
    return it


def ask(
    call: Demand, waiting: Backlog, busy: tuple[float, ...] = (0.0,)
) -> Overloaded | DeadlineMissed | None:
    return refusal(call, Outlook(waiting, busy, full_batch=0.05, now=NOW), BOUNDS)


def refused(
    call: Demand, waiting: Backlog, busy: tuple[float, ...] = (0.0,), *, reason: str
) -> Overloaded:
    error = ask(call, waiting, busy)
    assert isinstance(error, Overloaded)
    assert error.reason == reason
    assert error.retry_after_seconds > 0
    return error


@given(st.lists(st.floats(0, 10), min_size=1, max_size=6), st.floats(0, 50))
def test_work_goes_to_the_lane_that_is_free_first(busy: list[float], work: float) -> None:
    """At the predicted moment the lanes have done exactly the work; none was free before."""
    level = Outlook(Backlog(1.0), busy, 0.0, NOW).wait(work)
    assert level >= min(busy) - 1e-9  # rounding
    assert sum(max(0.0, level - one) for one in busy) == pytest.approx(work, abs=1e-6)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2), st.sampled_from([100.3, 101.0, 105.0, math.inf]), st.floats(0.001, 1)
        ),
        max_size=30,
    ),
    st.data(),
)
def test_the_backlog_is_the_sum_of_what_waits(
    texts: list[tuple[int, float, float]], data: st.DataObject
) -> None:
    """By class and in all, whatever leaves in between; empty, it holds no rounding."""
    it = Backlog(20.0)
    places: list[tuple[Place, float]] = []
    for priority, deadline, seconds in texts:
        place = it.add(priority, deadline, NOW, seconds=seconds, tokens=7)
        places.append((place, seconds))
    for gone in data.draw(
        st.lists(st.sampled_from(places), unique_by=id) if places else st.just([])
    ):
        it.remove(gone[0])
        places.remove(gone)
    for priority in range(3):
        mine = [seconds for place, seconds in places if place.priority <= priority]
        assert it.seconds(priority) == pytest.approx(sum(mine), abs=1e-9)
        assert it.tokens(priority) == 7 * len(mine)
        promised = [work for _, work in it.promises(priority)]
        assert promised == sorted(promised)
        assert not promised or promised[-1] == pytest.approx(sum(mine))
    for place, _ in places:
        it.remove(place)
    assert (it.seconds(), it.tokens(), it.promises(0)) == (0.0, 0, [])


def test_an_empty_backlog_takes_any_call_that_has_time() -> None:
    """However many tokens it has, and with a lane that is busy for long."""
    assert ask(demand(tokens=10_000_000, seconds=100.0), backlog(), (1000.0,)) is None
    assert ask(demand(NOW + 0.016), backlog()) is None


def test_a_call_that_an_idle_server_could_not_answer_has_missed_its_deadline() -> None:
    """DEADLINE_EXCEEDED, not RESOURCE_EXHAUSTED: to wait would not help."""
    error = ask(demand(NOW + 0.014), backlog())
    assert isinstance(error, DeadlineMissed)
    assert "the deadline is in 14 ms" in error.message
    late = ask(demand(NOW - 0.014), backlog())
    assert late is not None
    assert "the deadline passed 14 ms ago" in late.message
    assert "takes 15 ms even on an idle server" in error.message


def test_the_wait_is_that_of_what_goes_before() -> None:
    """Less urgent classes and later deadlines do not count; idle lanes help."""
    soon = demand(NOW + 0.5)
    same = backlog((0, NOW + 0.4, 1.0))
    error = refused(soon, same, reason="deadline")
    assert error.in_vain
    assert "deadline is in 500 ms" in error.message
    assert ask(soon, same, (0.0, 0.0, 0.0)) is None
    assert ask(soon, backlog((1, NOW + 0.4, 1.0))) is None
    assert ask(soon, backlog((0, math.inf, 1.0))) is None
    refused(soon, backlog(), (0.5,), reason="deadline")


def test_a_call_does_not_break_the_promise_to_another() -> None:
    """It would be in time itself, and make one late that has a later deadline."""
    tight = backlog((0, NOW + 1.0, 0.9))
    assert ask(demand(NOW + 0.5, seconds=0.01), tight) is None
    assert refused(demand(NOW + 0.5, seconds=0.1), tight, reason="promises").in_vain
    hopeless = backlog((0, NOW + 1.0, 2.0))
    assert ask(demand(NOW + 0.5, seconds=0.1), hopeless) is None


def test_where_batches_overrun_less_is_promised() -> None:
    """20 ms more where batches take 5 ms longer than predicted, on average."""
    waiting = backlog((0, math.inf, 0.4))
    for overrun, within, taken in ((0.0, 0.52, True), (0.005, 0.52, False), (0.005, 0.54, True)):
        outlook = Outlook(waiting, (0.0,), full_batch=0.05, now=NOW, overrun=overrun)
        call = dataclasses.replace(demand(NOW + within, priority=1), seconds=0.08, longest=0.09)
        assert (refusal(call, outlook, BOUNDS) is None) == taken


def test_the_bounds_say_when_there_is_room() -> None:
    """In tokens and in seconds, of the call's own class and those before it."""
    many = backlog(*((0, math.inf, 0.02) for _ in range(100)))  # 1000 tokens, 2 s
    error = refused(demand(tokens=100), many, reason="queue_tokens")
    assert error.retry_after_seconds == pytest.approx(0.2)
    assert "1000 tokens are waiting and the limit is 1000" in error.message
    assert not error.in_vain
    refused(demand(tokens=1_001), many, reason="call_tokens")  # an idle server alone takes it
    assert ask(demand(tokens=1_001), Backlog(horizon=60.0)) is None
    long = backlog((0, math.inf, 13.0))
    assert refused(demand(), long, reason="queue_seconds").retry_after_seconds == pytest.approx(3.0)
    bulk = backlog(*((1, math.inf, 0.2) for _ in range(100)))
    assert ask(demand(tokens=100), bulk) is None
    refused(demand(tokens=100, priority=1), bulk, reason="queue_tokens")


def test_the_rest_of_a_large_call_is_not_waited_for() -> None:
    """Its texts arrive one after the other, virtually; a call with a deadline goes before them."""
    it = Backlog(horizon=20.0)
    places = [
        it.add(0, math.inf, NOW, seconds=0.5, tokens=100, virtual_arrival=NOW + number / 2)
        for number in range(200)
    ]
    assert it.before(0, math.inf, NOW) == pytest.approx(0.5)
    bounds = Bounds(tokens=10**6, seconds=1.0)
    assert refusal(demand(), Outlook(it, (0.0,), full_batch=0.05, now=NOW), bounds) is None
    assert it.before(0, math.inf, NOW + 4.9) == pytest.approx(5.0)
    assert it.before(0, NOW + 1.0, NOW) == 0
    assert it.before(1, math.inf, NOW + 4.9) == pytest.approx(100.0)
    for place in places[:10]:
        it.remove(place)
    assert it.before(0, math.inf, NOW + 4.9) == pytest.approx(0.0)
    assert it.before(0, math.inf, NOW + 5.0) == pytest.approx(0.5)


def test_there_are_few_slots_however_many_deadlines() -> None:
    """Else each admission would look at thousands of promises; near deadlines stay apart."""
    it = Backlog(horizon=20.0)
    for number in range(20_000):
        it.add(0, NOW + number / 1000, NOW, seconds=0.001, tokens=1)
    slots = [slot for slot, _ in it.promises(0)]
    assert len(slots) < 700
    assert all(end - begin <= max(1 / 256, (end - NOW) / 32) for begin, end in slots)


@given(
    st.lists(st.tuples(st.floats(0.001, _LONGEST), st.floats(0.05, 3.0)), min_size=1, max_size=40),
    st.integers(1, 3),
)
def test_what_is_admitted_can_be_done_in_time(calls: list[tuple[float, float]], lanes: int) -> None:
    """All that was taken, done earliest deadline first, is done before its deadline.

    Each text is a batch; deadlines are told apart to a part of a second.
    """
    it = Backlog(20.0)
    taken: list[tuple[float, float]] = []
    for seconds, within in calls:
        call = Demand(0, NOW + within, 1, seconds, longest=seconds, soonest=seconds)
        if refusal(call, Outlook(it, [0.0] * lanes, _LONGEST, NOW), Bounds(10_000, 100.0)) is None:
            it.add(0, NOW + within, NOW, seconds=seconds, tokens=1)
            taken.append((within, seconds))
    taken.sort()
    for (within, seconds), work in zip(
        taken, itertools.accumulate((s for _, s in taken), initial=0.0), strict=False
    ):
        assert work / lanes + seconds <= within + 1 / 32  # the widest slot within 3 s
