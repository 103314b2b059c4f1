"""A cheap client in a process of its own: bytes out, bytes in, nothing decoded.

It shares cores with the server, so what it costs is taken from what is measured. Requests are
serialised before the clock starts and answers stay bytes; its CPU time is reported.
"""

from __future__ import annotations

import asyncio
import math
import multiprocessing
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import grpc

from bertd_bench.load.generator import Closed, Open, Outcome, Record, Reply, Send, run

EMBED = "/bertd.v1.InferenceService/Embed"
PUSHBACK = "grpc-retry-pushback-ms"
# What gRPC itself says when the client's own timer ends a call.
LOCAL_DEADLINE = "Deadline Exceeded"
_PRIORITY = -5  # stands for a client on a machine of its own, which would not wait for a core
_OPTIONS = (("grpc.max_receive_message_length", -1),)


@dataclass(frozen=True, slots=True)
class Stream:
    """One load, and the requests that it cycles through.

    Attributes:
        answer_bytes: what the vectors of one whole answer take; one with less lacks some.
        keep: whether records hold the answers.
        method: that is called.
    """

    load: Closed | Open
    requests: tuple[bytes, ...]
    answer_bytes: int
    keep: bool = False
    method: str = EMBED


@dataclass(frozen=True, slots=True)
class ClientRun:
    """What a client saw.

    Attributes:
        records: of each stream.
        cpu_seconds: that the client's process used.
        seconds: from start to end.
    """

    records: list[list[Record]]
    cpu_seconds: float
    seconds: float


def process_pool() -> ProcessPoolExecutor:
    """One process for :func:`put_load`; a fresh one, without torch in it."""
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _prefer)


def put_load(address: str, streams: Sequence[Stream]) -> ClientRun:
    """Run all streams at once against the server at an address."""
    return asyncio.run(_put_load(address, streams))


async def _put_load(address: str, streams: Sequence[Stream]) -> ClientRun:
    async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
        await channel.channel_ready()
        cpu, begin = time.process_time(), time.perf_counter()
        records = await asyncio.gather(
            *(run(stream.load, sender(channel, stream)) for stream in streams)
        )
        return ClientRun(records, time.process_time() - cpu, time.perf_counter() - begin)


def sender(channel: grpc.aio.Channel, stream: Stream) -> Send:
    """Sends serialised Embed calls, in turn."""
    embed: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(stream.method)
    requests = stream.requests

    async def send(number: int, within: float) -> Reply:
        if within <= 0:
            return Reply(Outcome.EXPIRED)
        timeout = None if within == math.inf else within
        try:
            answer = await embed(requests[number % len(requests)], timeout=timeout)
        except grpc.aio.AioRpcError as error:
            return _reply(error)
        if len(answer) < stream.answer_bytes:
            return Reply(Outcome.PARTIAL)
        return Reply(Outcome.ANSWERED, answer=answer if stream.keep else b"")

    return send


def _reply(error: grpc.aio.AioRpcError) -> Reply:
    code, detail = error.code(), error.details() or ""
    if code is grpc.StatusCode.DEADLINE_EXCEEDED and detail == LOCAL_DEADLINE:
        return Reply(Outcome.EXPIRED)
    if code in {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED}:
        metadata = error.trailing_metadata() or ()
        return Reply(Outcome.REFUSED, any(key == PUSHBACK for key, _ in metadata), detail)
    return Reply(Outcome.FAILED, detail=f"{code.name}: {detail}")


def _prefer() -> None:
    try:
        os.setpriority(os.PRIO_PROCESS, 0, _PRIORITY)
    except OSError:  # an ordinary user may not
        return
