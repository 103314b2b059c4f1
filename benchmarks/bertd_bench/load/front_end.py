"""`bertd bench front-end`: CPU time of the server for a call, without the model's.

::

    client process ──same bytes, in turns──┬──> bertd without a model ──┐
    closed loop                            └──> echo of the same sizes ─┴──> CPU seconds a message

The CPU time is that of the whole process: event loop, gRPC's threads, tokeniser and lane.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import grpc
from bertd import bundle
from bertd_server.system import cpu
from pydantic import BaseModel

from bertd_bench.compare.process import PeerError
from bertd_bench.harness import machine
from bertd_bench.load import traffic
from bertd_bench.load.client import EMBED, ClientLoad, process_pool, put_load
from bertd_bench.load.generator import Closed, RequestOutcome
from bertd_bench.load.spawned import SpawnedServer, spawn
from bertd_bench.load.without_model import ECHO

_SERVERS = "bertd_bench.load.without_model"
UNARY_LIMIT = 1.6  # of the echo, in calls of one text
BULK_LIMIT = 0.2  # of the same echo, for each text
UNARY = "Embed, 1 text"

_TOKENS = 16
_WORKERS = 4
_BULK = 32
_TEXTS = 512  # more than are in flight, so that no two of those are equal
_AHEAD = 8  # messages of a stream without an answer; as many as the server works on at once
_WARM_SHARE = 0.25  # of a turn, before the first


class MessageCost(BaseModel, frozen=True):
    """Calls, or messages of streams, of one kind, on both servers in turns.

    Attributes:
        bertd: CPU seconds of a message, round by round.
        echo: the same of the echo.
    """

    name: str
    texts: int
    bertd: list[float]
    echo: list[float]

    @property
    def cost(self) -> float:
        """Median CPU seconds of a message."""
        return statistics.median(self.bertd)

    @property
    def echo_cost(self) -> float:
        """The same of the echo."""
        return statistics.median(self.echo)

    @property
    def ratio(self) -> float:
        """Median, over the rounds, of ours over the echo."""
        pairs = zip(self.bertd, self.echo, strict=True)
        return statistics.median(ours / bare for ours, bare in pairs)


class FrontReport(BaseModel, frozen=True):
    """One run of `bertd bench front-end`."""

    benchmark: Literal["front-end"] = "front-end"
    model: str
    tokens: int
    workers: int
    machine: machine.Machine
    rows: list[MessageCost]

    @property
    def echo_call(self) -> float:
        """CPU seconds of an echo of the sizes of a unary call of one text."""
        return next(row.echo_cost for row in self.rows if row.name == UNARY)


# What messages are called: how many texts they carry, and whether they are of a stream.
_KINDS = {
    UNARY: (1, False),
    f"Embed, {_BULK} texts": (_BULK, False),
    "EmbedStream, 1 text": (1, True),
    f"EmbedStream, {_BULK} texts": (_BULK, True),
}


def measure(
    folder: Path, *, seconds: float, rounds: int, progress: Callable[[str], None]
) -> FrontReport:
    """Measure the front end with the tokenizer of a bundle for embeddings.

    Args:
        folder: the bundle.
        seconds: length of one turn.
        rounds: turns of each kind of message on each server.
        progress: told what is being measured.

    Raises:
        PeerError: a server did not start, or a call failed.
        grpc.RpcError: a stream failed.
    """
    here = machine.describe(cpu.usable_threads())
    texts = traffic.texts_for(folder, _TEXTS, (_TOKENS,))
    requests = {size: traffic.serialize(texts, size) for size in (1, _BULK)}
    turns: dict[tuple[str, SpawnedServer], list[float]] = {}
    with ExitStack() as stack:
        pool = stack.enter_context(process_pool())
        ours = spawn(f"{_SERVERS}:bertd", folder)
        stack.callback(ours.close)
        with grpc.insecure_channel(ours.address) as channel:
            call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(EMBED)
            answers = {f"Of{size}": call(asked[0]) for size, asked in requests.items()}
        echo = spawn(f"{_SERVERS}:echo", answers)
        stack.callback(echo.close)
        for number in range(-1, rounds):
            progress(f"measuring round {number + 1} of {rounds}" if number >= 0 else "warm-up")
            length = seconds if number >= 0 else _WARM_SHARE * seconds
            for name, (texts_each, streamed) in _KINDS.items():
                for server in (ours, echo) if number % 2 else (echo, ours):
                    method = f"/{ECHO}/Of{texts_each}" if server is echo else EMBED
                    put = _streams if streamed else _calls
                    before = server.cpu_seconds()
                    load = pool.submit(put, server.address, method, requests[texts_each], length)
                    answered = load.result()
                    if number >= 0:
                        each = (server.cpu_seconds() - before) / answered
                        turns.setdefault((name, server), []).append(each)
    return FrontReport(
        model=bundle.read_manifest(folder).name,
        tokens=_TOKENS,
        workers=_WORKERS,
        machine=here,
        rows=[
            MessageCost(name=name, texts=count, bertd=turns[name, ours], echo=turns[name, echo])
            for name, (count, _) in _KINDS.items()
        ],
    )


def _calls(address: str, method: str, requests: Sequence[bytes], seconds: float) -> int:
    """Unary calls in a closed loop; returns how many were answered."""
    load = ClientLoad(Closed(_WORKERS, seconds), tuple(requests), method=method)
    calls, _ = put_load(address, load)
    for each in calls:
        if each.reply.outcome is not RequestOutcome.ANSWERED:
            raise PeerError(f"a call was {each.reply.outcome.value}: {each.reply.detail}")
    return len(calls)


def _streams(address: str, method: str, requests: Sequence[bytes], seconds: float) -> int:
    """One stream in a closed loop; returns how many messages were answered."""

    async def main() -> int:
        answered, end = 0, time.perf_counter() + seconds
        room = asyncio.Semaphore(_AHEAD)

        async def messages() -> AsyncIterator[bytes]:
            for request in itertools.cycle(requests):
                await room.acquire()
                if time.perf_counter() > end:
                    return
                yield request

        async with grpc.aio.insecure_channel(address) as channel:
            call: grpc.aio.StreamStreamMultiCallable[bytes, bytes]
            call = channel.stream_stream(f"{method}Stream")
            async for _ in call(messages()):
                answered += 1
                room.release()
        return answered

    return asyncio.run(main())
