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
from typing import Literal, NamedTuple

import grpc
from bertd import bundle
from bertd_server.system import cpu
from pydantic import BaseModel

from bertd_bench.harness import machine
from bertd_bench.load import traffic
from bertd_bench.load.client import EMBED, process_pool
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


class _MessageKind(NamedTuple):
    """What messages carry, and how."""

    name: str
    texts: int
    streamed: bool


_KINDS = (
    _MessageKind(UNARY, 1, streamed=False),
    _MessageKind(f"Embed, {_BULK} texts", _BULK, streamed=False),
    _MessageKind("EmbedStream, 1 text", 1, streamed=True),
    _MessageKind(f"EmbedStream, {_BULK} texts", _BULK, streamed=True),
)


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
        SpawnError: a server did not start.
        grpc.RpcError: a call failed.
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
            for kind in _KINDS:
                for server in (ours, echo) if number % 2 else (echo, ours):
                    method = f"/{ECHO}/Of{kind.texts}" if server is echo else EMBED
                    put = _streams if kind.streamed else _calls
                    before = server.cpu_seconds()
                    load = pool.submit(put, server.address, method, requests[kind.texts], length)
                    answered = load.result()
                    if number >= 0:
                        each = (server.cpu_seconds() - before) / answered
                        turns.setdefault((kind.name, server), []).append(each)
    return FrontReport(
        model=bundle.read_manifest(folder).name,
        tokens=_TOKENS,
        workers=_WORKERS,
        machine=here,
        rows=[
            MessageCost(
                name=kind.name,
                texts=kind.texts,
                bertd=turns[kind.name, ours],
                echo=turns[kind.name, echo],
            )
            for kind in _KINDS
        ],
    )


def _calls(address: str, method: str, requests: Sequence[bytes], seconds: float) -> int:
    """Unary calls in a closed loop; returns how many were answered."""

    async def main() -> int:
        answered, end = 0, time.perf_counter() + seconds
        async with grpc.aio.insecure_channel(address) as channel:
            call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)

            async def work() -> None:
                nonlocal answered
                while time.perf_counter() < end:
                    answered += 1
                    await call(requests[answered % len(requests)])

            await asyncio.gather(*(work() for _ in range(_WORKERS)))
        return answered

    return asyncio.run(main())


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
