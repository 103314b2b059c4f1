"""The scheduler's own book-keeping, with an engine whose runs the test holds back."""

from __future__ import annotations

import asyncio
import math
import os
import random
import threading
from collections.abc import Callable, Sequence
from typing import ClassVar

import pytest
from bertd.bundle.arrays import Float32Array
from bertd_server.engine.packing import TokenSequence
from bertd_server.errors import DeadlineMissed, Draining, EngineFailure, NoLane, Overloaded
from bertd_server.scheduling.cache import ResultCache
from bertd_server.scheduling.classes import size_class
from bertd_server.scheduling.cost import Shape
from bertd_server.scheduling.deduplication import Completion, Computed
from bertd_server.scheduling.forecast import Forecast
from bertd_server.scheduling.lanes import Lanes
from bertd_server.scheduling.scheduler import BULK
from helpers.held import LANE, Clock, HeldEngine, scheduler, sequences, values


def start(work: object) -> asyncio.Task[list[Completion]]:
    """Begin a call; it is submitted when the loop has turned once."""
    return asyncio.create_task(work)  # type: ignore[arg-type]


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until a condition holds, which needs nothing but turns."""
    for _ in range(1_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never holds")


async def test_the_count_of_waiting_tokens_is_their_sum() -> None:
    """After arrivals, dispatches, expiries and cancellations, and at the end of draining."""
    engine, clock = HeldEngine(), Clock()
    it = scheduler(engine, clock, max_queue_seconds=1000.0)
    rng = random.Random(5)
    calls = []
    seen = set()
    for turn in range(60):
        lengths = rng.choices(range(1, 20), k=rng.randint(1, 5))
        within = 0.05 if turn % 7 == 3 else math.inf
        some = sequences(*lengths, token=turn % 40)  # some are equal to others
        calls.append(start(it.submit(some, clock.now + within, turn % 3)))
        if turn % 5 == 4:
            rng.choice(calls).cancel()
        if turn == 30:
            engine.let_go()
        await asyncio.sleep(0)
        clock.now += 0.01
        waiting = [request.shape.tokens for request in it._queue]
        assert (it.gauges().waiting_tokens, it.gauges().waiting) == (sum(waiting), len(waiting))
        seen.add(sum(waiting))
    assert len(seen) > 10  # texts did wait
    await it.drain()
    gauges = it.gauges()
    assert (gauges.waiting, gauges.waiting_tokens, gauges.predicted_wait) == (0, 0, 0.0)
    assert not it._in_flight
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert any(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
    assert any(isinstance(outcome, Overloaded) for outcome in outcomes)
    single = [one for outcome in outcomes if isinstance(outcome, list) for one in outcome]
    assert {type(one) for one in single} == {Computed, EngineFailure, DeadlineMissed}
    statistics = it.statistics
    assert statistics.answered == sum(isinstance(one, Computed) for one in single)
    assert statistics.failed == sum(isinstance(one, EngineFailure) for one in single)


async def test_a_full_queue_refuses_and_has_room_again_after_a_cancellation() -> None:
    """What a cancelled call had taken in the queue is free at once."""
    engine = HeldEngine()
    it = scheduler(engine, max_queue_tokens=50)
    running = start(it.submit(sequences(5)))
    await engine.started()
    waiting = start(it.submit(sequences(30, 20)))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="50 tokens are waiting and the limit is 50") as caught:
        await it.submit(sequences(1))
    assert 0 < caught.value.retry_after_seconds < 0.01
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    later = start(it.submit(sequences(50)))
    await asyncio.sleep(0)
    engine.let_go()
    assert values(await running + await later) == [5, 50]
    await it.drain()
    assert it.statistics.refused == {"queue_tokens": 1}
    assert it.statistics.cancelled == 2


async def test_equal_texts_in_flight_are_computed_once() -> None:
    """Whether they wait or run, in one call or several; each caller has the whole answer."""
    engine = HeldEngine()
    it = scheduler(engine)
    first = start(it.submit(sequences(5)))
    await engine.started()
    joined = [start(it.submit(sequences(5, 6, 6))), start(it.submit(sequences(6)))]
    await asyncio.sleep(0)
    engine.let_go()
    assert values(await first) == [5]
    assert [values(await one) for one in joined] == [[5, 6, 6], [6]]
    await it.drain()
    assert engine.runs == [[5], [6]]
    assert it.statistics.deduplicated == 3
    assert it.statistics.answered == 5


async def test_one_who_leaves_a_request_leaves_it_to_the_others() -> None:
    """It is withdrawn when nobody is left."""
    engine = HeldEngine()
    it = scheduler(engine)
    running = start(it.submit(sequences(1)))
    await engine.started()
    one, other = start(it.submit(sequences(5))), start(it.submit(sequences(5, 6)))
    gone = start(it.submit(sequences(7)))
    await asyncio.sleep(0)
    one.cancel()
    gone.cancel()
    await asyncio.gather(one, gone, return_exceptions=True)
    engine.let_go()
    assert values(await running + await other) == [1, 5, 6]
    await it.drain()
    assert [sorted(run) for run in engine.runs] == [[1], [5, 6]]


async def test_a_joiner_brings_a_request_forward_and_its_leaving_puts_it_back() -> None:
    """A request is as urgent as its most urgent waiter."""
    engine = HeldEngine()
    it = scheduler(engine, max_batch_sequences=1)
    calls = [start(it.submit(sequences(1)))]
    await engine.started()
    calls += [start(it.submit(sequences(n), priority=BULK)) for n in (5, 6, 7)]
    joiner, fickle = start(it.submit(sequences(6))), start(it.submit(sequences(7)))
    await asyncio.sleep(0)
    fickle.cancel()
    await asyncio.gather(fickle, return_exceptions=True)
    engine.let_go()
    await asyncio.gather(*calls, joiner)
    await it.drain()
    assert engine.runs == [[1], [6], [5], [7]]


async def test_an_equal_text_with_less_time_expires_alone() -> None:
    """The other waiter of its request has the answer; nothing is computed for the expired."""
    engine, clock = HeldEngine(), Clock()
    it = scheduler(engine, clock)
    running = start(it.submit(sequences(1)))
    await engine.started()
    hurried = start(it.submit(sequences(5), clock.now + 0.1))
    patient = start(it.submit(sequences(5)))
    alone = start(it.submit(sequences(6), clock.now + 0.1))
    await asyncio.sleep(0)
    clock.now += 0.0990  # not enough for five tokens
    engine.let_go()
    assert values(await running) == [1]
    assert values(await hurried + await patient + await alone) == [
        DeadlineMissed,
        5,
        DeadlineMissed,
    ]
    await it.drain()
    assert engine.runs == [[1], [5]]
    assert it.statistics.expired == 2


async def test_a_call_that_cannot_be_in_time_is_refused_at_once() -> None:
    """With what is in its way: its own size, or what runs and waits before it."""
    engine, clock = HeldEngine(), Clock()
    it = scheduler(engine, clock)
    running = start(it.submit(sequences(40)))
    await engine.started()
    with pytest.raises(Overloaded, match="the answer would take") as caught:
        await it.submit(sequences(30), clock.now + 1.1 * LANE.seconds(Shape.of([30])))
    assert caught.value.in_vain
    clock.now += LANE.seconds(Shape.of([40]))
    engine.let_go()
    assert values(await running) == [40]
    with pytest.raises(DeadlineMissed, match="even on an idle server"):
        await it.submit(sequences(40), clock.now + LANE.seconds(Shape.of([40])) / 2)
    await it.drain()
    assert engine.runs == [[40]]
    assert it.statistics.refused == {"impossible": 1, "deadline": 1}


@pytest.mark.parametrize("wide", [False, True])
async def test_what_no_batch_has_confirmed_is_tried_before_it_is_refused(wide: bool) -> None:
    """The grid may be of a bad minute. The batch's own time then decides, in both ways."""
    engine, clock = HeldEngine(), Clock()
    it = scheduler(engine, clock, wide=wide)
    predicted = LANE.seconds(Shape.of([40])) / (1 + wide)
    taken = 1.5 * predicted  # the first call finds the machine slow, a later one finds it fast
    for _ in range(2):
        probe = start(it.submit(sequences(40), clock.now + predicted / 2))
        await engine.started()
        clock.now += taken
        engine.let_go(1)
        assert values(await probe) == [40]
        if taken > predicted:
            for _ in range(5):  # measured, so refused
                with pytest.raises(DeadlineMissed, match="even on an idle server"):
                    await it.submit(sequences(40), clock.now + predicted / 2)
            clock.now += 11.0  # nobody knows any more
            taken = predicted / 4
    for _ in range(20):
        call = start(it.submit(sequences(40), clock.now + predicted / 2))
        await engine.started()
        clock.now += taken
        engine.let_go(1)
        assert values(await call) == [40]
    with pytest.raises(DeadlineMissed):  # no machine is so wrong
        await it.submit(sequences(39), clock.now + predicted / 1000)
    await it.drain()
    assert it.statistics.refused == {"impossible": 6}


async def test_a_probe_is_made_by_an_idle_server_alone() -> None:
    """Behind other calls it would cost them, and prove nothing."""
    engine, clock = HeldEngine(), Clock()
    it = scheduler(engine, clock)
    running = start(it.submit(sequences(1)))
    await engine.started()
    with pytest.raises(DeadlineMissed):
        await it.submit(sequences(40), clock.now + LANE.seconds(Shape.of([40])) / 2)
    engine.let_go()
    await running
    await it.drain()


async def test_a_batch_that_is_overdue_is_taken_to_need_as_long_again() -> None:
    """The predicted wait falls until the batch should have ended, then grows."""
    engine, clock = HeldEngine(), Clock()
    it = scheduler(engine, clock)
    call = start(it.submit(sequences(40)))
    await engine.started()
    predicted = it.gauges().predicted_wait
    assert predicted == pytest.approx(LANE.seconds(Shape.of([40])), rel=0.1)
    clock.now += predicted + 2.0
    assert it.gauges().predicted_wait == pytest.approx(2.0)
    engine.let_go()
    assert values(await call) == [40]
    await it.drain()


async def test_a_call_of_many_texts_lets_others_get_in_between() -> None:
    """It is split over batches; a call that came later has its answer before the large one ends."""
    engine, clock = HeldEngine(), Clock()
    it = scheduler(engine, clock)
    large = start(it.submit(sequences(*range(20, 40))))
    await engine.started()
    clock.now += 0.004  # the time of two texts of the large call
    small = start(it.submit(sequences(1)))
    await asyncio.sleep(0)
    engine.let_go()
    assert values(await small) == [1]
    assert values(await large) == list(range(20, 40))
    await it.drain()
    place = next(i for i, run in enumerate(engine.runs) if 1 in run)
    assert place <= 4 < len(engine.runs) - 10


async def test_lanes_share_a_large_call() -> None:
    """Two idle lanes have half of it each."""
    engine = HeldEngine()
    it = scheduler(engine, lanes=2, max_batch_sequences=64, max_batch_tokens=1000)
    call = start(it.submit(sequences(*range(1, 9))))
    one, other = await engine.started(), await engine.started()
    assert sorted(one + other) == list(range(1, 9))
    assert abs(sum(one) - sum(other)) <= 8
    engine.let_go()
    assert values(await call) == list(range(1, 9))
    await it.drain()


async def test_the_wide_session_has_all_lanes() -> None:
    """A long text takes it while every lane is idle; what comes next waits for its end."""
    engine = HeldEngine()
    it = scheduler(engine, lanes=2, wide=True)
    long = start(it.submit(sequences(400)))
    assert await engine.started() == [400]
    other = start(it.submit(sequences(140)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert it.gauges().waiting == 1
    assert it.gauges().predicted_wait > 0
    engine.let_go()
    assert values(await long + await other) == [400, 140]
    await it.drain()
    assert it.statistics.wide_batches == engine.wide_runs >= 1


async def test_a_short_text_does_not_wait_for_a_long_batch() -> None:
    """It runs beside it, whatever else waits; no model of lanes is made of its time."""
    engine = HeldEngine()
    it = scheduler(engine)
    long = start(it.submit(sequences(400, 300)))
    assert await engine.started() == [400]
    short = start(it.submit(sequences(3)))
    assert await engine.started() == [3]
    other = start(it.submit(sequences(4)))  # one such batch at a time
    await until(lambda: it.gauges().waiting == 2)
    assert it.gauges().batches_running == 2
    engine.let_go()
    assert values(await long + await short + await other) == [400, 300, 3, 4]
    await it.drain()
    assert 1 <= it.statistics.short_batches <= 2
    assert size_class(Shape.single(400)) in it._forecast._seen
    assert size_class(Shape.single(3)) not in it._forecast._seen


async def test_the_thread_of_short_texts_does_not_step_back() -> None:
    """A lane does: beside threads of the event loop's priority it has a tenth of a core."""

    class Asked(HeldEngine):
        niceness: ClassVar[dict[int, int]] = {}

        def answer(
            self,
            batch: Sequence[TokenSequence],
            outputs: Sequence[str] | None = None,
            *,
            wide: bool = False,
        ) -> list[dict[str, Float32Array]]:
            thread = threading.get_native_id()
            self.niceness[len(batch[0])] = os.getpriority(os.PRIO_PROCESS, thread)
            return super().answer(batch, outputs, wide=wide)

    engine, own = Asked(), os.getpriority(os.PRIO_PROCESS, 0)
    it = scheduler(engine, lane_niceness=min(19, own + 10))
    calls = [start(it.submit(sequences(400)))]
    await engine.started()
    calls.append(start(it.submit(sequences(3))))
    await engine.started()
    engine.let_go()
    await asyncio.gather(*calls)
    await it.drain()
    assert engine.niceness == {400: min(19, own + 10), 3: own}


async def test_short_texts_do_not_step_back_while_other_threads_compute() -> None:
    """Such as the tokeniser's: a lane would have a tenth of what it has."""
    busy, engine = [True], HeldEngine()
    it = scheduler(engine, beside_others=lambda: busy[0])
    engine.let_go()
    await it.submit(sequences(3))
    assert it.statistics.short_batches == 1
    busy[0] = False
    await it.submit(sequences(4))
    assert it.statistics.short_batches == 1
    await it.drain()


async def test_a_call_that_need_not_wait_is_not_refused_for_what_waits() -> None:
    engine = HeldEngine()
    it = scheduler(engine, max_queue_tokens=301)
    long = start(it.submit(sequences(400, 300)))
    assert await engine.started() == [400]
    with pytest.raises(Overloaded, match="tokens are waiting"):
        await it.submit(sequences(150))
    short = start(it.submit(sequences(3)))
    assert await engine.started() == [3]
    with pytest.raises(Overloaded, match="tokens are waiting"):
        await it.submit(sequences(*range(10, 23)))
    engine.let_go()
    assert values(await long + await short) == [400, 300, 3]
    await it.drain()


async def test_a_failing_batch_is_halved_until_the_guilty_text_stands_alone() -> None:
    """Its neighbours have their answers; the lane lives."""
    engine = HeldEngine()
    alive: list[int] = []
    it = scheduler(engine, on_lanes=alive.append)
    engine.let_go()
    outcomes = await it.submit(sequences(2, 3, 13, 4))
    assert values(outcomes) == [2, 3, EngineFailure, 4]
    assert "thirteen" in str(outcomes[2])
    await it.drain()
    assert engine.runs == [[2, 3, 13, 4], [2, 3], [13, 4], [13], [4]]
    assert alive == [1]
    assert (it.statistics.batch_failures, it.statistics.lane_deaths) == (3, 0)


async def test_a_lane_that_dies_is_replaced_and_its_batch_tried_again() -> None:
    """The text that kills has its error once it has killed alone; health sees each death."""
    engine = HeldEngine()
    alive: list[int] = []
    it = scheduler(engine, on_lanes=alive.append)
    engine.let_go()
    outcomes = await it.submit(sequences(2, 17, 3))
    assert values(outcomes) == [2, EngineFailure, 3]
    assert values(await it.submit(sequences(17))) == [EngineFailure]  # tried twice
    assert values(await it.submit(sequences(4))) == [4]
    await it.drain()
    assert engine.runs == [[2, 17, 3], [2, 17], [3], [2], [17], [17], [17], [4]]
    assert alive == [1] + [0, 1] * 5
    assert it.statistics.lane_deaths == 5


async def test_results_are_kept_if_there_is_a_budget() -> None:
    """A repeated text costs nothing, and says that no batch ran for it."""
    engine = HeldEngine()
    it = scheduler(engine, cache_bytes=10_000)
    engine.let_go()
    (fresh,) = await it.submit(sequences(5))
    (kept,) = await it.submit(sequences(5))
    assert isinstance(fresh, Computed)
    assert isinstance(kept, Computed)
    assert kept.outputs["value"].tobytes() == fresh.outputs["value"].tobytes()
    assert (kept.compute_ns, kept.batch_sequences, fresh.batch_sequences) == (0, 0, 1)
    assert values(await it.submit(sequences(5, 6))) == [5, 6]
    await it.drain()
    assert engine.runs == [[5], [6]]
    gauges = it.gauges()
    assert (gauges.cache_hits, gauges.cache_misses) == (2, 2)
    assert 0 < gauges.cache_bytes <= 10_000


async def test_a_delay_holds_a_batch_until_it_is_full_or_the_server_drains() -> None:
    """A text that waits alone is not started; one that fills the batch starts them."""
    engine, clock = HeldEngine(), Clock()
    it = scheduler(engine, clock, max_queue_delay=3600.0)
    engine.let_go()
    first = start(it.submit(sequences(3)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (it.gauges().waiting, it.gauges().batches_running) == (1, 0)
    rest = start(it.submit(sequences(18, 19)))
    assert values(await first + await rest) == [3, 18, 19]
    tight = start(it.submit(sequences(4), clock.now + 0.002))  # no time to wait
    assert values(await tight) == [4]
    last = start(it.submit(sequences(5)))
    await asyncio.sleep(0)
    await it.drain()
    assert values(await last) == [5]
    with pytest.raises(Draining):
        await it.submit(sequences(6))


async def test_statistics_and_timings_tell_the_same_story() -> None:
    """Queue time on the scheduler's clock, batches and texts counted."""
    engine, clock = HeldEngine(), Clock()
    it = scheduler(engine, clock)
    running = start(it.submit(sequences(1)))
    await engine.started()
    waiting = start(it.submit(sequences(5, 6)))
    await asyncio.sleep(0)
    clock.now += 0.25
    engine.let_go()
    await running
    for outcome in await waiting:
        assert isinstance(outcome, Computed)
        assert outcome.queue_ns == 250_000_000
        assert (outcome.batch_sequences, outcome.batch_tokens) == (2, 11)
    await it.drain()
    statistics = it.statistics
    assert (statistics.queue.count, statistics.compute.count) == (3, 2)
    assert statistics.queue.total == pytest.approx(0.5)
    assert statistics.queue.percentile(99) == pytest.approx(0.25, rel=0.2)
    assert statistics.batch_tokens.total == 12


async def test_cached_texts_of_a_refused_call_are_not_counted_as_answered() -> None:
    """The call has no answer at all."""
    engine = HeldEngine()
    it = scheduler(engine, max_queue_tokens=20, cache_bytes=10_000)
    engine.let_go(1)
    await it.submit(sequences(5))
    running = start(it.submit(sequences(6)))
    assert [await engine.started() for _ in range(2)] == [[5], [6]]
    waiting = start(it.submit(sequences(20)))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await it.submit(sequences(5, 7))
    assert it.statistics.answered == 1
    engine.let_go()
    assert values(await running + await waiting) == [6, 20]
    assert values(await it.submit(sequences(5, 6))) == [5, 6]
    await it.drain()
    assert it.statistics.answered == 5


async def test_what_breaks_after_the_engine_neither_loses_nor_poisons_a_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A cache that fails costs nobody an answer; anything else is an error, told at once."""

    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    engine = HeldEngine()
    it = scheduler(engine, cache_bytes=10_000)
    engine.let_go()
    with monkeypatch.context() as broken:
        broken.setattr(ResultCache, "put", fail)
        assert values(await it.submit(sequences(2, 3))) == [2, 3]
    with monkeypatch.context() as broken:
        broken.setattr(Forecast, "observe", fail)
        assert values(await it.submit(sequences(2, 4))) == [EngineFailure] * 2
    assert values(await it.submit(sequences(2, 4))) == [2, 4]
    await it.drain()
    assert not it._in_flight
    assert (it.statistics.answered, it.statistics.failed) == (4, 2)


async def test_a_retry_is_halved_again_for_one_who_has_little_time() -> None:
    """The half is too slow for its most urgent text; alone that one is in time."""
    engine, clock = HeldEngine(), Clock()
    it = scheduler(engine, clock, max_batch_tokens=200, max_batch_sequences=8)
    first = start(it.submit(sequences(1)))
    await engine.started()
    calm = start(it.submit(sequences(13, 40, 41, 42)))
    hurried = start(it.submit(sequences(30), clock.now + 0.1))
    await asyncio.sleep(0)
    engine.let_go(1)
    assert sorted(await engine.started()) == [13, 30, 40, 41, 42]
    clock.now += 0.1 - LANE.seconds(Shape.of([30])) - 1e-4  # just enough for it alone
    engine.let_go()
    assert values(await first + await hurried) == [1, 30]
    assert values(await calm) == [EngineFailure, 40, 41, 42]
    await it.drain()
    assert [30] in engine.runs
    assert it.statistics.expired == 0


class NoThreads:
    """A system that has no thread to give, until told."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._start = Lanes._start
        self._refused: list[Lanes] = []
        self.refused = asyncio.Event()

        def refuse(lanes: Lanes) -> None:
            self._refused.append(lanes)
            self.refused.set()

        patch.setattr(Lanes, "_start", refuse)

    def give(self) -> None:
        for lanes in self._refused:
            self._start(lanes)


async def test_while_no_lane_lives_calls_are_refused_and_those_taken_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """UNAVAILABLE at once, but for what the cache answers; a retry that nobody wants is dropped."""
    engine = HeldEngine()
    it = scheduler(engine, cache_bytes=10_000)
    engine.let_go()
    assert values(await it.submit(sequences(3))) == [3]
    threads = NoThreads(monkeypatch)
    orphan = start(it.submit(sequences(17, 17, token=2)))
    taken = start(it.submit(sequences(4)))
    await threads.refused.wait()
    assert it.gauges().predicted_wait == math.inf
    with pytest.raises(NoLane, match="are being replaced: retry"):
        await it.submit(sequences(3, 5))
    assert values(await it.submit(sequences(3))) == [3]
    orphan.cancel()
    await asyncio.gather(orphan, return_exceptions=True)
    await asyncio.sleep(0)
    assert [one.shape.tokens for part in it._dispatcher._retries for one in part] == [4]
    threads.give()
    assert values(await taken) == [4]
    await it.drain()
    assert not it._in_flight
    assert it.statistics.refused == {"no_lane": 1}


async def test_a_drain_gives_up_what_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is stuck, a text that waits behind it; and nothing at all with no lane alive."""
    engine = HeldEngine()
    it = scheduler(engine, max_batch_sequences=1)
    calls = [start(it.submit(sequences(n))) for n in (5, 6)]
    assert await engine.started() == [5]
    assert not await it.drain(0.0)
    assert [values(await call) for call in calls] == [[Draining]] * 2
    assert it.statistics.abandoned == 2
    assert not it._in_flight
    engine.let_go()  # it comes back after all, and finds nobody
    await it._dispatcher.idle.wait()
    assert it.statistics.answered == 0

    it = scheduler(engine)
    threads = NoThreads(monkeypatch)
    orphan = start(it.submit(sequences(17)))
    await threads.refused.wait()
    orphan.cancel()
    await asyncio.gather(orphan, return_exceptions=True)
    assert await it.drain(60.0)


async def test_a_call_of_many_texts_joins_the_queue_in_turns_and_is_counted_at_once() -> None:
    """What is taken is promised as a whole, while others have the event loop in between."""
    engine = HeldEngine()
    it = scheduler(engine)
    running = start(it.submit(sequences(5)))
    await engine.started()
    distinct = [sequences(3, token=token)[0] for token in range(2, 302)]
    many = start(it.submit(distinct))
    turns, seen = 0, set()
    while it.gauges().waiting < len(distinct):
        await asyncio.sleep(0)
        turns += 1
        gauges = it.gauges()
        if gauges.waiting:
            seen.add(gauges.waiting)
            assert gauges.waiting_tokens == 3 * len(distinct)
    assert turns > 5
    assert max(seen) - min(seen) > len(distinct) / 2  # others saw it on its way
    arrivals = [request.virtual_arrival for request in it._queue]
    assert arrivals == sorted(set(arrivals))
    engine.let_go()
    assert values(await many) == [3] * len(distinct)
    assert values(await running) == [5]
    await it.drain()


async def test_a_call_of_many_texts_leaves_in_turns_however_far_it_has_come() -> None:
    """Cancelled before it is in the queue, on its way there, and when it waits."""
    engine = HeldEngine()
    it = scheduler(engine)
    running = start(it.submit(sequences(5)))
    await engine.started()
    for turns in (1, 3, 8, 30):
        many = start(it.submit([sequences(3, token=token)[0] for token in range(2, 302)]))
        for _ in range(turns):
            await asyncio.sleep(0)
        many.cancel()
        await asyncio.gather(many, return_exceptions=True)
        for _ in range(8):
            await asyncio.sleep(0)
        gauges = it.gauges()
        assert (gauges.waiting, gauges.waiting_tokens) == (0, 0)
        assert len(it._in_flight) == 1
    engine.let_go()
    assert values(await running) == [5]
    await it.drain()
    assert engine.runs == [[5]]


async def test_a_drain_waits_for_calls_that_join_in_turns() -> None:
    """They were taken: each of their texts has its answer."""
    engine = HeldEngine()
    it = scheduler(engine)
    engine.let_go()
    many = start(it.submit([sequences(3, token=token)[0] for token in range(2, 302)]))
    await until(lambda: it.gauges().waiting > 0)
    assert await it.drain()
    assert values(await many) == [3] * 300


async def test_many_late_texts_end_in_turns() -> None:
    """Long ones too, of which one is enough for a batch."""
    engine, clock = HeldEngine(), Clock()
    it = scheduler(engine, clock, max_queue_seconds=1000.0)
    running = start(it.submit(sequences(5)))
    await engine.started()
    many = [sequences(39, token=token)[0] for token in range(2, 302)]
    late = start(it.submit(many, clock.now + 100))
    await until(lambda: it.gauges().waiting == len(many))
    clock.now += 200
    engine.let_go()
    seen = set()
    while it.gauges().waiting:
        await asyncio.sleep(0)
        seen.add(it.gauges().waiting)
    assert len(seen) > 3
    assert set(values(await late)) == {DeadlineMissed}
    assert values(await running) == [5]
    await it.drain()
