"""What follows a model's run: in slices, in turn, and dropped once nobody wants it."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import AsyncIterator, Callable

import numpy as np
import pytest
from bertd_server.errors import DeadlineMissed, Draining
from bertd_server.scheduling.executor import LONG, JobQueue, SlicedExecutor, Steps, at_once
from bertd_server.scheduling.statistics import Statistics
from helpers.held import Clock
from helpers.patience import PATIENCE

Begun = Callable[[], JobQueue]


class Gate:
    """Holds the executor's thread in a step."""

    def __init__(self) -> None:
        self.entered, self.opened = threading.Event(), threading.Event()

    def steps(self) -> Steps[str]:
        self.entered.set()
        assert self.opened.wait(PATIENCE)
        yield
        return "held"


@pytest.fixture
async def executor() -> AsyncIterator[SlicedExecutor]:
    """One that does a step at a time, all on its thread."""
    made = SlicedExecutor(clock=Clock(), slice_seconds=0, inline_seconds=0)
    yield made
    made.close()


def queue(executor: SlicedExecutor) -> JobQueue:
    """Of another model."""
    return JobQueue(executor, Statistics())


def noting(said: list[str], name: str, count: int) -> Steps[str]:
    """Steps that say when they are done."""
    for number in range(count):
        said.append(f"{name}{number}")
        yield
    return name


async def test_few_steps_are_done_at_once_and_many_on_the_thread() -> None:
    """A step that is long goes there whatever came before it."""
    executor = SlicedExecutor(inline_seconds=PATIENCE)
    jobs = queue(executor)
    threads = list[str]()

    def steps(*given: object) -> Steps[int]:
        for one in given:
            threads.append(threading.current_thread().name)
            yield one
        threads.append(threading.current_thread().name)
        return len(given)

    main = threading.current_thread().name
    assert await jobs.run(at_once("x")) == "x"
    assert await jobs.run(steps(None, None)) == 2
    assert threads == [main] * 3
    threads.clear()
    assert await jobs.run(steps(None, LONG, None)) == 3
    assert threads == [main, main, "bertd-conclude", "bertd-conclude"]
    assert jobs.statistics.slices.count == 1
    executor.close()


async def test_models_and_calls_take_turns(executor: SlicedExecutor) -> None:
    """A model with many calls delays another's by a slice of one of them."""
    gate, said = Gate(), list[str]()
    first, second = queue(executor), queue(executor)
    held = first.submit(gate.steps())
    await asyncio.to_thread(gate.entered.wait, PATIENCE)
    calls = [first.submit(noting(said, name, 2)) for name in "abc"]
    calls.append(second.submit(noting(said, "z", 3)))
    assert len(first.waiting) == 3
    gate.opened.set()
    assert await asyncio.gather(held, *calls) == ["held", "a", "b", "c", "z"]
    assert said == ["a0", "z0", "b0", "z1", "c0", "z2", "a1", "b1", "c1"]
    assert not first.waiting


async def test_what_nobody_wants_any_more_is_dropped_at_once(executor: SlicedExecutor) -> None:
    """2,000 abandoned calls, and one that is late; what they held is free before their turn."""
    gate, jobs = Gate(), queue(executor)
    held = jobs.submit(gate.steps())
    await asyncio.to_thread(gate.entered.wait, PATIENCE)
    outputs = np.zeros(1)
    kept = weakref.ref(outputs)

    def steps(given: np.ndarray) -> Steps[float]:
        yield
        return float(given[0])

    abandoned = [jobs.submit(steps(outputs)) for _ in range(2_000)]
    late = jobs.submit(steps(np.zeros(1)), deadline=Clock.now)
    del outputs
    for call in abandoned:
        call.cancel()
    await asyncio.wait(abandoned)
    del abandoned, call
    gc.collect()
    assert kept() is None
    assert len(jobs.waiting) == 1
    gate.opened.set()
    with pytest.raises(DeadlineMissed, match="allow more time, or send fewer or shorter texts"):
        await late
    assert await held == "held"
    assert jobs.statistics.dropped == 2_000
    assert jobs.statistics.refused == {"deadline": 1}
    assert jobs.statistics.slices.count == 2  # of the held one alone


async def test_a_job_that_is_cancelled_in_a_slice_ends_with_it(executor: SlicedExecutor) -> None:
    """Its other steps are not done; the next job is."""
    gate, said, jobs = Gate(), list[str](), queue(executor)

    def steps() -> Steps[None]:
        yield from gate.steps()
        said.append("more")

    held = jobs.submit(steps())
    await asyncio.to_thread(gate.entered.wait, PATIENCE)
    held.cancel()
    gate.opened.set()
    assert await jobs.run(noting(said, "a", 1)) == "a"
    assert said == ["a0"]


async def test_an_error_is_the_jobs(executor: SlicedExecutor) -> None:
    """Whatever it is; the thread goes on."""
    jobs = queue(executor)

    def steps(error: BaseException) -> Steps[None]:
        yield
        raise error

    with pytest.raises(ZeroDivisionError):
        await jobs.run(steps(ZeroDivisionError()))
    with pytest.raises(GeneratorExit):
        await jobs.run(steps(GeneratorExit()))
    assert await jobs.run(at_once(1)) == 1


async def test_a_stop_ends_what_waits_and_waits_for_nothing(executor: SlicedExecutor) -> None:
    """Not even for a step that never ends."""
    gate, jobs = Gate(), queue(executor)
    held, waiting = jobs.submit(gate.steps()), jobs.submit(at_once(1))
    await asyncio.to_thread(gate.entered.wait, PATIENCE)
    executor.close()
    for call in (held, waiting, asyncio.ensure_future(jobs.run(at_once(1)))):
        with pytest.raises(Draining):
            await call
    gate.opened.set()
