"""Puts rates on a running contestant, over the protocol that it speaks, and reads its answers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
from bertd.v1 import inference_pb2
from numpy.typing import NDArray

from bertd_bench.compare.process import PeerError
from bertd_bench.load import client, traffic
from bertd_bench.load.generator import (
    Closed,
    Open,
    RequestOutcome,
    TimedRequest,
    poisson,
    steady_rate,
)
from bertd_bench.load.ramp import Step, step_of
from bertd_bench.load.spawned import SpawnedServer

_WORKERS = 32  # of the closed loop that finds about what a contestant does
_PATIENCE = 10  # objectives; who waits longer goes away, so that a step ends
_LEAST_PATIENCE = 1.0  # seconds
_LEAST_REQUESTS = 300  # of a step: three of them may be late
_MOST_SECONDS = 3.0  # so many times a step's own, to get there
_LOOK_SECONDS = 0.1
_IDLE = 0.05  # of a core: whoever uses less has nothing left to do
_SETTLE_SECONDS = 60.0  # at most


@dataclass(frozen=True, slots=True)
class Asker:
    """The client of one contestant.

    Attributes:
        server: that is asked.
        pool: of one process that asks.
        texts: of the traffic, all different.
        objective: seconds.
        seconds: length of a step.
    """

    server: SpawnedServer
    pool: Executor
    texts: Sequence[str]
    objective: float
    seconds: float

    def capacity(self, seconds: float) -> float:
        """Texts a second of a closed loop.

        Raises:
            PeerError: it answers nothing.
        """
        load = Closed(_WORKERS, seconds)
        requests, _ = self._put(load)
        if not any(each.reply.outcome is RequestOutcome.ANSWERED for each in requests):
            raise PeerError(f"it answers nothing: {requests[0].reply.detail}"[:300])
        return steady_rate(requests, load)

    def hold(self, rate: float, seed: int) -> Step:
        """One step: this rate, with Poisson arrivals that a seed decides, on an idle server."""
        self._settle()
        enough = _LEAST_REQUESTS / rate
        seconds = min(max(self.seconds, enough), _MOST_SECONDS * self.seconds)
        patience = max(_LEAST_PATIENCE, _PATIENCE * self.objective)
        plan = poisson(rate, seconds, [patience], traffic.seeded(seed))
        before = self.server.cpu_seconds()
        requests, took = self._put(plan)
        cores = (self.server.cpu_seconds() - before) / took
        return step_of(rate, seconds, requests, cores)

    def _settle(self) -> None:
        """Wait until it rests: a server may go on with requests that nobody waits for any more.

        What one step left would otherwise be counted against the next, lower one.
        """
        end = time.monotonic() + _SETTLE_SECONDS
        before = self.server.cpu_seconds()
        while time.monotonic() < end:
            time.sleep(_LOOK_SECONDS)
            now = self.server.cpu_seconds()
            if now - before < _IDLE * _LOOK_SECONDS:
                return
            before = now

    def vectors(self, count: int) -> NDArray[np.float32]:
        """What it says of the first texts: float32 `[count, dimensions]`.

        Raises:
            PeerError: it says nothing.
        """
        plan = Open(tuple(0.01 * number for number in range(count)), (60.0,) * count)
        requests, _ = self._put(plan, keep=True)
        return np.stack(
            [self._vector(each) for each in sorted(requests, key=lambda each: each.request)]
        )

    @staticmethod
    def _vector(request: TimedRequest) -> NDArray[np.float32]:
        reply = request.reply
        if reply.outcome is not RequestOutcome.ANSWERED:
            raise PeerError(f"a text was {reply.outcome.value}: {reply.detail}"[:300])
        [result] = inference_pb2.EmbedResponse.FromString(reply.answer).results
        return np.frombuffer(result.embedding, "<f4").astype(np.float32)

    def _put(self, plan: Closed | Open, *, keep: bool = False) -> tuple[list[TimedRequest], float]:
        requests = tuple(traffic.serialize(self.texts, 1))
        load = client.ClientLoad(plan, requests, keep=keep)
        return self.pool.submit(client.put_load, self.server.address, load).result()
