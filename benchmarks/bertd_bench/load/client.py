"""The client of a server: puts rates on it from a cheap process, and says what came of them.

::

    Asker, here ──load──> put_load, in a process of its own ──bytes──> server
                <─records─                                  <─bytes──

The process shares cores with the server, so what it costs is taken from what is measured: requests
are serialised before the clock starts, and answers stay bytes there.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import multiprocessing
import os
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass

import aiohttp
import grpc
import numpy as np
from numpy.typing import NDArray

from bertd_bench.compare.process import PeerError
from bertd_bench.load.generator import (
    Closed,
    Open,
    RequestOutcome,
    Send,
    SendResult,
    TimedRequest,
    poisson,
    run,
    steady_rate,
)
from bertd_bench.load.ramp import Step, step_of
from bertd_bench.load.served import Served
from bertd_bench.load.traffic import seeded

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
_FIRST_SECONDS = 2.0  # of one try while a server starts
_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),  # a new channel does not wait as the last one did
)
_JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class ClientLoad:
    """A load, and the requests that it cycles through.

    Attributes:
        load: when requests are sent.
        requests: as on the wire.
        target: the gRPC method, or the path.
        grpc: whether it is a method.
        keep: whether what is reported holds the answers.
    """

    load: Closed | Open
    requests: tuple[bytes, ...]
    target: str
    grpc: bool
    keep: bool = False


def process_pool() -> ProcessPoolExecutor:
    """One process for :func:`put_load`; a fresh one, without torch in it."""
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _prefer)


def put_load(address: str, load: ClientLoad) -> tuple[list[TimedRequest], float]:
    """Put a load on the server at an address; gives its requests, and how many seconds it took."""
    return asyncio.run(_put_load(address, load))


async def _put_load(address: str, load: ClientLoad) -> tuple[list[TimedRequest], float]:
    connected = _over_grpc if load.grpc else _over_http
    async with connected(address, load) as send:
        begin = time.perf_counter()
        return await run(load.load, send), time.perf_counter() - begin


@contextlib.asynccontextmanager
async def _over_grpc(address: str, load: ClientLoad) -> AsyncIterator[Send]:
    async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
        ask: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(load.target)

        async def send(number: int, within: float) -> SendResult:
            if within <= 0:
                return SendResult(RequestOutcome.EXPIRED)
            timeout = None if within == math.inf else within
            try:
                answer = await ask(load.requests[number % len(load.requests)], timeout=timeout)
            except grpc.aio.AioRpcError as error:
                return _failed(error)
            return SendResult(RequestOutcome.ANSWERED, answer=answer if load.keep else b"")

        yield send


@contextlib.asynccontextmanager
async def _over_http(address: str, load: ClientLoad) -> AsyncIterator[Send]:
    url = f"http://{address}{load.target}"
    pool = aiohttp.TCPConnector(limit=0)  # as many connections as there are requests
    async with aiohttp.ClientSession(connector=pool, headers=_JSON) as session:

        async def send(number: int, within: float) -> SendResult:
            if within <= 0:
                return SendResult(RequestOutcome.EXPIRED)
            body = load.requests[number % len(load.requests)]
            patience = aiohttp.ClientTimeout(None if within == math.inf else within)
            try:
                async with session.post(url, data=body, timeout=patience) as response:
                    answer = await response.read()
            except TimeoutError:
                return SendResult(RequestOutcome.EXPIRED)
            except aiohttp.ClientError as error:
                return SendResult(RequestOutcome.FAILED, repr(error))
            if response.status in {429, 503}:
                return SendResult(RequestOutcome.REFUSED, f"HTTP {response.status}")
            if response.status >= 300:
                said = f"HTTP {response.status}: {answer[:200]!r}"
                return SendResult(RequestOutcome.FAILED, said)
            return SendResult(RequestOutcome.ANSWERED, answer=answer if load.keep else b"")

        yield send


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
    """The client of one server.

    Attributes:
        server: that is asked.
        pool: of one process that asks.
        texts: of the traffic, all different.
        objective: seconds.
        seconds: length of a step.
    """

    server: Served
    pool: Executor
    texts: Sequence[str]
    objective: float
    seconds: float

    def failure(self) -> str:
        """Why one text is not answered now; empty if it is."""
        requests, _ = self._put(Open((0.0,), (_FIRST_SECONDS,)))
        reply = requests[0].reply
        if reply.outcome is RequestOutcome.ANSWERED:
            return ""
        return f"{reply.outcome.value} {reply.detail}".strip()

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
        vector = self.server.kind.protocol.vector
        return np.stack([vector(answer) for answer in self.raw(plan)])

    def raw(self, plan: Open) -> list[bytes]:
        """The answers to a plan's requests, in their order; PeerError if one has none."""
        requests, _ = self._put(plan, keep=True)
        rows: list[bytes] = []
        for each in sorted(requests, key=lambda each: each.request):
            if each.reply.outcome is not RequestOutcome.ANSWERED:
                raise PeerError(f"a text was {each.reply.outcome.value}: {each.reply.detail}"[:300])
            rows.append(each.reply.answer)
        return rows

    def _put(self, plan: Closed | Open, *, keep: bool = False) -> tuple[list[TimedRequest], float]:
        protocol = self.server.kind.protocol
        requests = tuple(protocol.request(text) for text in self.texts)
        load = ClientLoad(plan, requests, protocol.target, protocol.grpc, keep)
        return self.pool.submit(put_load, self.server.address, load).result()
