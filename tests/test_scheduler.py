"""The scheduler's own book-keeping, with an engine whose runs the test holds back."""

from __future__ import annotations

import asyncio
import math
import random
import threading
from collections.abc import Iterator
from typing import cast

import numpy as np
import pytest
from bertd_server.batching import Limits
from bertd_server.engine import Engine, Float32Array
from bertd_server.errors import DeadlineMissed, EngineFailure, Overloaded
from bertd_server.packing import TokenSequence
from bertd_server.scheduler import Answer, Scheduler


class HeldEngine:
    """Each sequence's vector is its length; runs wait until the gate is open."""

    def __init__(self) -> None:
        self.gate = threading.Event()

    def embed(self, sequences: list[TokenSequence]) -> Float32Array:
        assert self.gate.wait(60)
        lengths = np.array([len(sequence) for sequence in sequences], np.float32)
        if 13 in lengths:
            raise RuntimeError("thirteen")
        return lengths.reshape(-1, 1)


@pytest.fixture
def engine() -> Iterator[HeldEngine]:
    held = HeldEngine()
    yield held
    held.gate.set()


def scheduler(engine: HeldEngine, *, max_queue_tokens: int = 10_000) -> Scheduler:
    return Scheduler(
        cast("Engine", engine),
        lanes=1,
        limits=Limits(tokens=40, sequences=4),
        max_queue_tokens=max_queue_tokens,
    )


def sequences(*lengths: int) -> list[TokenSequence]:
    return [TokenSequence(np.ones(n, np.int64), np.zeros(n, np.int64)) for n in lengths]


def counted_and_waiting(it: Scheduler) -> tuple[int, int]:
    """The running count of queued tokens, and the sum that it stands for."""
    return it._queue_tokens, sum(text.tokens for text in it._queue)


async def test_the_count_of_queued_tokens_is_their_sum(engine: HeldEngine) -> None:
    """After arrivals, dispatches, expiries and cancellations, and at the end of draining."""
    it = scheduler(engine)
    rng = random.Random(5)
    calls: list[asyncio.Task[list[Answer | EngineFailure]]] = []
    seen = set()
    for turn in range(60):
        lengths = rng.choices(range(1, 20), k=rng.randint(1, 5))
        deadline = -1.0 if turn % 7 == 3 else math.inf
        work = it.submit(sequences(*lengths), deadline)
        calls.append(asyncio.create_task(work))  # type: ignore[arg-type]
        if turn % 5 == 4:
            rng.choice(calls).cancel()
        if turn == 30:
            engine.gate.set()
        await asyncio.sleep(0)
        counted, waiting = counted_and_waiting(it)
        assert counted == waiting
        seen.add(counted)
    assert len(seen) > 10  # texts did wait
    await it.drain()
    assert counted_and_waiting(it) == (0, 0)
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert any(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
    single = [one for outcome in outcomes if isinstance(outcome, list) for one in outcome]
    assert {type(one) for one in single} == {Answer, DeadlineMissed, EngineFailure}


async def test_a_full_queue_refuses_and_has_room_again_after_a_cancellation(
    engine: HeldEngine,
) -> None:
    """What a cancelled call had taken in the queue is free at once."""
    it = scheduler(engine, max_queue_tokens=50)
    running = asyncio.create_task(it.submit(sequences(5)))
    await asyncio.sleep(0.01)  # it is in the lane now, and the gate is shut
    waiting = asyncio.create_task(it.submit(sequences(30, 20)))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="50 tokens are waiting and the limit is 50"):
        await it.submit(sequences(1))
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    later = asyncio.create_task(it.submit(sequences(50)))
    await asyncio.sleep(0)
    engine.gate.set()
    answers = [*await running, *await later]
    await it.drain()
    assert [float(a.vector[0]) for a in answers if isinstance(a, Answer)] == [5, 50]
