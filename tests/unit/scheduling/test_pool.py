"""Models that share lanes: who gets the lane that is free, and what is promised meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from bertd.bundle.arrays import Float32Array
from bertd_server.engine.packing import TokenSequence
from bertd_server.errors import Overloaded
from bertd_server.scheduling.cost import Shape
from bertd_server.scheduling.lanes import BatchJob
from bertd_server.scheduling.pool import Pool
from bertd_server.scheduling.scheduler import Scheduler, SchedulerOptions
from helpers.held import LANE, Clock, HeldEngine, calibration, sequences, values

A, B = 10, 11  # tokens of texts of the two models: so it is seen whose run it is
SLOW = 20
ONE = LANE.seconds(Shape.of([SLOW]))


class TimedEngine(HeldEngine):
    """Its runs take as long as predicted, on the test's clock."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def answer(
        self,
        batch: Sequence[TokenSequence],
        outputs: Sequence[str] | None = None,
        *,
        wide: bool = False,
    ) -> list[dict[str, Float32Array]]:
        answers = super().answer(batch, outputs, wide=wide)
        self.clock.now += LANE.weights[0] + LANE.weights[3] * sum(map(len, batch))
        return answers


class Shared:
    """Two models on one engine, and on the lanes of one pool."""

    def __init__(
        self, *, lanes: int = 1, share: float = 1.0, wide: bool = False, batch: int = 1
    ) -> None:
        self.clock = Clock()
        self.pool = Pool(lanes, clock=self.clock)
        self.engine = TimedEngine(self.clock)
        options = SchedulerOptions(max_batch_tokens=40, max_batch_sequences=batch)
        self.a, self.b = (
            Scheduler(
                self.engine,
                calibration(wide=wide),
                options,
                clock=self.clock,
                pool=self.pool,
                share=part,
            )
            for part in (share, 1.0)
        )

    async def close(self) -> None:
        self.engine.let_go()
        assert await self.a.drain()
        assert await self.b.drain()
        self.pool.close()


def some(tokens: int, count: int) -> list[TokenSequence]:
    """Texts of so many tokens, none equal to another."""
    return [one for token in range(1, count + 1) for one in sequences(tokens, token=token)]


@pytest.mark.parametrize(("share", "of_twelve"), [(1.0, 6), (3.0, 9), (0.5, 4)])
async def test_lanes_are_shared_by_shares(share: float, of_twelve: int) -> None:
    """Of the first runs, as long as both have texts, each model has its part."""
    shared = Shared(share=share)
    calls = [
        asyncio.create_task(shared.a.submit(some(A, 15))),
        asyncio.create_task(shared.b.submit(some(B, 15))),
    ]
    await shared.engine.started()
    shared.engine.let_go()
    for call, tokens in zip(calls, (A, B), strict=True):
        assert values(await call) == [tokens] * 15
    ran = [tokens for (tokens,) in shared.engine.runs[:12]]
    assert abs(ran.count(A) - of_twelve) <= 1
    await shared.close()


async def test_nothing_is_saved_up_by_a_model_that_had_no_texts() -> None:
    """It starts level with the other, which is not kept waiting until it has caught up."""
    shared = Shared()
    shared.engine.let_go()
    await shared.b.submit(some(B, 40))
    del shared.engine.runs[:]
    await asyncio.gather(shared.a.submit(some(A, 10)), shared.b.submit(some(B, 10)))
    assert 4 <= [tokens for (tokens,) in shared.engine.runs[:10]].count(A) <= 6
    await shared.close()


async def test_all_lanes_are_for_a_model_that_is_alone() -> None:
    """The wide session runs when nobody else waits, and not otherwise."""
    shared = Shared(lanes=2, wide=True)
    shared.engine.let_go()
    await shared.a.submit(some(A, 1))
    assert shared.engine.wide_runs == 1
    await asyncio.gather(shared.a.submit(some(A, 2)), shared.b.submit(some(B, 2)))
    assert shared.engine.wide_runs == 1
    await shared.close()


async def test_a_call_that_would_be_late_because_of_the_other_model_is_refused() -> None:
    """What waits for the same lanes counts, as far as its share goes."""
    shared = Shared(batch=2)
    calls = [asyncio.create_task(shared.a.submit(some(A, 1)))]
    await shared.engine.started()
    mine, soon = some(SLOW, 20), 20 * ONE
    calls.append(asyncio.create_task(shared.a.submit(some(SLOW, 100))))
    for _ in range(10):  # so many join in several turns of the loop
        await asyncio.sleep(0)
    assert shared.a.gauges().waiting == 100
    with pytest.raises(Overloaded, match="the deadline is in"):
        await shared.b.submit(mine, shared.clock.now + soon)
    shared.engine.let_go()
    await asyncio.gather(*calls)
    assert values(await shared.b.submit(mine, shared.clock.now + soon)) == [SLOW] * 20
    await shared.close()


async def test_a_model_leaves_and_the_other_goes_on() -> None:
    """Its batch that runs is waited for; the lanes stay."""
    shared = Shared()
    call = asyncio.create_task(shared.a.submit(some(A, 1)))
    await shared.engine.started()
    drained = asyncio.create_task(shared.a.drain())
    await asyncio.sleep(0)
    assert not drained.done()
    other = asyncio.create_task(shared.b.submit(some(B, 1)))
    shared.engine.let_go()
    assert await drained
    assert values(await call) == [A]
    assert values(await other) == [B]
    assert values(await shared.b.submit(some(B, 2))) == [B, B]
    await shared.close()


async def test_guests_have_lanes_while_nobody_wants_them_and_end_when_somebody_does() -> None:
    """Calibration goes on behind traffic; they count as some ms of every lane."""
    shared = Shared(lanes=2)
    pool, engine, clock = shared.pool, shared.engine, shared.clock
    clock.now += 5.0
    assert pool.quiet_seconds() == 5.0
    ended: list[str] = []
    jobs = [
        BatchJob(engine, sequences(7), None, wide=False, done=lambda _: ended.append("guest"))
        for _ in range(2)
    ]
    pool.lend(jobs, lambda: ended.append("told"))
    assert await engine.started() == await engine.started() == [7]
    assert pool.quiet_seconds() == 0.0
    assert pool.busy(clock.now) == pytest.approx([0.02, 0.02])
    call = asyncio.create_task(shared.a.submit(sequences(A)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert ended == ["told"]
    engine.let_go()
    assert values(await call) == [A]  # beside the guests, or after them
    while len(ended) < 3:  # noqa: ASYNC110 - it is turns of the loop that are awaited
        await asyncio.sleep(0)
    assert ended == ["told", "guest", "guest"]
    assert engine.runs == [[7], [7], [A]]
    await shared.a.drain()
    await shared.b.drain()
    assert pool.quiet_seconds() <= 2 * ONE  # since its last batch; guests may end after it
    pool.close()
