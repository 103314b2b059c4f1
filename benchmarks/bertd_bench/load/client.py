"""A cheap client in a process of its own: bytes out, bytes in, nothing decoded.

It shares cores with the server, so what it costs is taken from what is measured: requests are
serialised before the clock starts, and answers stay bytes.
"""

from __future__ import annotations

import asyncio
import math
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import grpc

from bertd_bench.load.generator import (
    Closed,
    Open,
    RequestOutcome,
    SendResult,
    TimedRequest,
    run,
)

EMBED = "/bertd.v1.InferenceService/Embed"
# What gRPC itself says when the client's own timer ends a call.
_LOCAL_DEADLINE = "Deadline Exceeded"
_PRIORITY = -5  # stands for a client on a machine of its own, which would not wait for a core
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
