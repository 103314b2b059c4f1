"""The client of a contestant: puts rates on it from a cheap process, and says what came of them.

::

    Asker, here ──load──> put_load, in a process of its own ──bytes──> server
                <─records─                                  <─bytes──

The process shares cores with the server, so what it costs is taken from what is measured: requests
are serialised before the clock starts, and answers stay bytes there.
"""

from __future__ import annotations

import asyncio
import math
import multiprocessing
import os
import time
from collections.abc import Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass

import grpc
import numpy as np
from bertd.v1 import inference_pb2
from numpy.typing import NDArray

from bertd_bench.compare.process import PeerError
from bertd_bench.load.generator import (
    Closed,
    Open,
    RequestOutcome,
    SendResult,
    TimedRequest,
    poisson,
    run,
    steady_rate,
)
from bertd_bench.load.ramp import Step, step_of
from bertd_bench.load.spawned import SpawnedServer
from bertd_bench.load.traffic import seeded, serialize

EMBED = "/bertd.v1.InferenceService/Embed"
# What gRPC itself says when the client's own timer ends a call.
_LOCAL_DEADLINE = "Deadline Exceeded"
_PRIORITY = -5  # stands for a client on a machine of its own, which would not wait for a core
_WORKERS = 32  # of the closed loop that finds about what a contestant does
_PATIENCE = 10  # objectives; who waits longer goes away, so that a step ends
_LEAST_PATIENCE = 1.0  # seconds
_LEAST_REQUESTS = 300  # of a step: three of them may be late
_MOST_SECONDS = 3.0  # so many times a step's own, to get there
_LOOK_SECONDS = 0.1
_IDLE = 0.05  # of a core: whoever uses less has nothing left to do
_SETTLE_SECONDS = 60.0  # at most
_OPTIONS = (("grpc.max_receive_message_length", -1),)


@dataclass(frozen=True, slots=True)
class ClientLoad:
    """A load, and the requests that it cycles through.

    Attributes:
        load: when requests are sent.
        requests: as on the wire.
        method: that they are of.
        keep: whether what is reported holds the answers.
    """

    load: Closed | Open
    requests: tuple[bytes, ...]
    method: str = EMBED
    keep: bool = False


def process_pool() -> ProcessPoolExecutor:
    """One process for :func:`put_load`; a fresh one, without torch in it."""
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _prefer)


def put_load(address: str, load: ClientLoad) -> tuple[list[TimedRequest], float]:
    """Put a load on the server at an address; gives its requests, and how many seconds it took."""
    return asyncio.run(_put_load(address, load))


async def _put_load(address: str, load: ClientLoad) -> tuple[list[TimedRequest], float]:
    async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
        await channel.channel_ready()
        ask: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(load.method)

        async def send(number: int, within: float) -> SendResult:
            if within <= 0:
                return SendResult(RequestOutcome.EXPIRED)
            timeout = None if within == math.inf else within
            try:
                answer = await ask(load.requests[number % len(load.requests)], timeout=timeout)
            except grpc.aio.AioRpcError as error:
                return _failed(error)
            return SendResult(RequestOutcome.ANSWERED, answer=answer if load.keep else b"")

        begin = time.perf_counter()
        return await run(load.load, send), time.perf_counter() - begin


def _failed(error: grpc.aio.AioRpcError) -> SendResult:
    code, detail = error.code(), error.details() or ""
    if code is grpc.StatusCode.DEADLINE_EXCEEDED and detail == _LOCAL_DEADLINE:
        return SendResult(RequestOutcome.EXPIRED)
    if code in {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED}:
        return SendResult(RequestOutcome.REFUSED, detail)
    return SendResult(RequestOutcome.FAILED, f"{code.name}: {detail}")


def _prefer() -> None:
    try:
        os.setpriority(os.PRIO_PROCESS, 0, _PRIORITY)
    except OSError:  # an ordinary user may not
        return


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
        plan = poisson(rate, seconds, [patience], seeded(seed))
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
        rows = []
        for each in sorted(requests, key=lambda each: each.request):
            if each.reply.outcome is not RequestOutcome.ANSWERED:
                raise PeerError(f"a text was {each.reply.outcome.value}: {each.reply.detail}"[:300])
            [result] = inference_pb2.EmbedResponse.FromString(each.reply.answer).results
            rows.append(np.frombuffer(result.embedding, "<f4").astype(np.float32))
        return np.stack(rows)

    def _put(self, plan: Closed | Open, *, keep: bool = False) -> tuple[list[TimedRequest], float]:
        requests = tuple(serialize(self.texts, 1))
        load = ClientLoad(plan, requests, keep=keep)
        return self.pool.submit(put_load, self.server.address, load).result()
