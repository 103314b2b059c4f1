"""Two models on the lanes of one pool: what happens to one is no matter of the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from bertd_server.errors import Draining, EngineFailure
from bertd_server.scheduling.pool import Pool
from bertd_server.scheduling.scheduler import Scheduler, SchedulerOptions
from helpers.held import FAILS, KILLS, HeldEngine, calibration, sequences, values


def member(engine: HeldEngine, pool: Pool) -> Scheduler:
    return Scheduler(engine, calibration(), SchedulerOptions(max_queue_seconds=1e6), pool=pool)


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    """One lane."""
    made = Pool(1)
    yield made
    made.close()


async def test_a_model_that_is_unloaded_in_mid_batch_leaves_the_lane_to_the_other(
    pool: Pool,
) -> None:
    """Its time is up, its callers are told; the batch ends some time, and the lane goes on."""
    stuck, well = HeldEngine(), HeldEngine()
    leaving, staying = member(stuck, pool), member(well, pool)
    call = asyncio.ensure_future(leaving.submit(sequences(5)))
    assert await stuck.started() == [5]
    other = asyncio.ensure_future(staying.submit(sequences(3)))
    well.let_go()
    assert not await leaving.drain(0)
    assert values(await call) == [Draining]
    with pytest.raises(Draining):
        await leaving.submit(sequences(1))
    stuck.let_go()
    assert values(await other) == [3]
    assert await leaving.drain()  # also once more, by a server that stops meanwhile
    assert values(await staying.submit(sequences(4))) == [4]
    assert await staying.drain()


async def test_a_model_whose_batches_fail_and_kill_costs_the_other_nothing(pool: Pool) -> None:
    """Every text of one has its error, every text of the other its answer; the lane is there."""
    bad, well = HeldEngine(), HeldEngine()
    bad.let_go()
    well.let_go()
    failing, staying = member(bad, pool), member(well, pool)
    outcomes = await asyncio.gather(
        *(failing.submit(sequences(*[FAILS] * n, KILLS)) for n in range(1, 6)),
        *(staying.submit(sequences(n, n + 1)) for n in range(1, 6)),
    )
    for n, outcome in enumerate(outcomes[:5], 1):
        assert values(outcome) == [EngineFailure] * (n + 1)
    for n, outcome in enumerate(outcomes[5:], 1):
        assert values(outcome) == [n, n + 1]
    assert pool.alive == 1
    assert failing.statistics.lane_deaths > 0
    assert staying.statistics.batch_failures == 0
    assert await failing.drain()
    assert values(await staying.submit(sequences(9))) == [9]
    assert await staying.drain()
