"""A lone text is computed on the event loop's own thread, while nothing else is to do."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Sequence

import numpy as np
import pytest
from bertd.bundle.arrays import Float32Array
from bertd_server.engine.packing import TokenSequence
from bertd_server.errors import EngineFailure
from bertd_server.scheduling.batching import BatchPolicy, Costs, form_alone
from bertd_server.scheduling.classes import size_class
from bertd_server.scheduling.cost import CostModel, Shape
from bertd_server.scheduling.scheduler import Scheduler
from helpers.held import FAILS, KILLS, LANE, Clock, scheduler, sequences, values

LIMITS = BatchPolicy(2048, 64)
FASTER = CostModel(tuple(weight / 2 for weight in LANE.weights))
OF_EIGHT = LANE.seconds(Shape.single(8))


class Text:
    """A text that waits."""

    priority, virtual_arrival, passed_over, probe = 0, 0.0, 0, False
    shape = Shape.single(8)

    def __init__(self, deadline: float = math.inf) -> None:
        self.deadline = deadline


@pytest.mark.parametrize(
    ("most", "rested", "within", "runs"),
    [
        (OF_EIGHT, 1.0, math.inf, True),
        (0.99 * OF_EIGHT, 1.0, math.inf, False),  # too long
        (1.0, 0.5 * OF_EIGHT, math.inf, True),
        (1.0, 0.49 * OF_EIGHT, math.inf, False),  # calls overlap
        (1.0, 1.0, 1.01 * OF_EIGHT, True),
        (1.0, 1.0, 0.99 * OF_EIGHT, False),  # late: admission says so
    ],
)
def test_a_text_runs_here_if_it_is_short_and_alone(
    *, most: float, rested: float, within: float, runs: bool
) -> None:
    text = Text(5.0 + within)
    found = form_alone(text, LIMITS, Costs(LANE), 5.0, rested=rested, most=most)
    assert (found is not None) == runs
    if found is not None:
        assert (found.batch, found.wide, found.seconds) == ([text], False, OF_EIGHT)


def test_it_runs_on_the_session_that_is_faster_or_due() -> None:
    costs = Costs(LANE, FASTER)
    found = form_alone(Text(), LIMITS, costs, 5.0, rested=1.0, most=1.0)
    assert found is not None
    assert (found.wide, found.seconds) == (True, FASTER.seconds(Text.shape))
    kind = size_class(Text.shape)
    due = Costs(LANE, FASTER, wide_factors={kind: 1.5}, due={kind: False})
    found = form_alone(Text(), LIMITS, due, 5.0, rested=1.0, most=1.0)
    assert found is not None
    assert not found.wide


class PromptEngine:
    """The value of a sequence is its length. It notes which thread ran it."""

    def __init__(self) -> None:
        self.threads: list[int] = []

    def answer(
        self,
        batch: Sequence[TokenSequence],
        outputs: Sequence[str] | None = None,  # noqa: ARG002 - there is one
        *,
        wide: bool = False,  # noqa: ARG002 - on either session alike
    ) -> list[dict[str, Float32Array]]:
        self.threads.append(threading.get_ident())
        lengths = [len(sequence) for sequence in batch]
        if FAILS in lengths:
            raise RuntimeError("thirteen")
        if KILLS in lengths and len(self.threads) == 1:
            raise SystemExit("seventeen")
        return [{"value": np.array([n], np.float32)} for n in lengths]


def rested(engine: PromptEngine, **options: float) -> tuple[Scheduler, Clock]:
    """A scheduler whose lanes have rested for long."""
    clock = Clock()
    it = scheduler(engine, clock, **{"loop_run_seconds": 0.1, **options})  # type: ignore[arg-type]
    clock.now += 100.0
    return it, clock


async def test_a_lone_text_is_computed_here_and_counted_like_others() -> None:
    engine = PromptEngine()
    it, clock = rested(engine, cache_bytes=1 << 16)
    for number in range(20):
        clock.now += 0.1
        assert values(await it.submit(sequences(3, token=number))) == [3]
    assert engine.threads == [threading.get_ident()] * 20
    statistics = it.statistics
    assert (statistics.answered, statistics.compute.count, statistics.queue.count) == (20, 20, 20)
    assert statistics.batch_tokens.total == 60
    assert values(await it.submit(sequences(3, token=7))) == [3]
    assert (len(engine.threads), it.gauges().cache_hits, it.gauges().cache_misses) == (20, 1, 20)
    await it.drain()


@pytest.mark.parametrize("option", [0.0, 0.1])
async def test_what_is_not_alone_goes_to_lanes(option: float) -> None:
    """Two texts, a text beside another call, right after a batch, or where it is switched off."""
    engine, here = PromptEngine(), threading.get_ident()
    it, clock = rested(engine, loop_run_seconds=option)
    assert values(await it.submit(sequences(3, 4))) == [3, 4]
    assert values(await it.submit(sequences(3))) == [3]  # nobody has rested
    clock.now += 1.0
    it.statistics.in_flight.calls = 2
    assert values(await it.submit(sequences(5))) == [5]
    assert here not in engine.threads
    it.statistics.in_flight.calls = 1
    clock.now += 1.0
    assert values(await it.submit(sequences(6))) == [6]
    assert (here in engine.threads) == (option > 0)
    together = await asyncio.gather(it.submit(sequences(7)), it.submit(sequences(8)))
    assert [value for one in together for value in values(one)] == [7, 8]
    await it.drain()


async def test_a_text_that_may_wait_for_others_waits() -> None:
    engine = PromptEngine()
    it, _ = rested(engine, max_queue_delay=3600.0)
    first = asyncio.ensure_future(it.submit(sequences(3)))
    await asyncio.sleep(0)
    assert not engine.threads
    await it.drain()
    assert values(await first) == [3]
    assert threading.get_ident() not in engine.threads


async def test_a_text_that_fails_here_has_its_error_and_one_that_kills_is_tried_on_a_lane() -> None:
    engine, here = PromptEngine(), threading.get_ident()
    it, clock = rested(engine)
    assert values(await it.submit(sequences(KILLS))) == [KILLS]
    assert engine.threads[0] == here != engine.threads[1]
    clock.now += 1.0
    assert values(await it.submit(sequences(FAILS))) == [EngineFailure]
    clock.now += 1.0
    assert values(await it.submit(sequences(3))) == [3]
    statistics = it.statistics
    assert (statistics.failed, statistics.batch_failures, statistics.answered) == (1, 2, 2)
    await it.drain()


async def test_what_ran_here_is_learnt_when_the_call_has_its_answer_or_somebody_asks() -> None:
    """A surprise at once, else eight at a time."""
    it, clock = rested(PromptEngine())
    forecast, shape = it._forecast, Shape.single(5)
    before = forecast.costs.on_lane(shape)
    await it.submit(sequences(5))  # in no time, as the clock has it
    await asyncio.sleep(0)
    assert forecast.costs.on_lane(shape) <= before
    for number in range(1, 8):
        expected = forecast.costs.on_lane(shape)
        assert not forecast.note(shape, expected, clock.now, wide=False, way=0.0), number
    assert forecast.note(shape, forecast.costs.on_lane(shape), clock.now, wide=False, way=0.0)
    it.gauges()
    assert not forecast._noted
    await it.drain()
