"""`bertd bench front-end`: CPU time of the server for a call, without the model's.

::

    client process ──same bytes, in turns──┬──> bertd without a model ──┐
    closed loop                            └──> echo of the same sizes ─┴──> CPU seconds a message

The CPU time is that of the whole process: event loop, gRPC's threads, and the lane.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import grpc
from bertd import bundle
from bertd_server.system import cpu
from pydantic import BaseModel

from bertd_bench.harness import machine
from bertd_bench.load import traffic
from bertd_bench.load.client import EMBED, ClientLoad, process_pool, put_load
from bertd_bench.load.generator import Closed, Open, RequestOutcome
from bertd_bench.load.spawned import FunctionTimes, SpawnedServer, spawn
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
_SHOWN = 25  # functions of the profile, by their own time and with callees
_TRANSPORT_NAMES = ("grpc", "event_engine", "timer_manager", "resolver", "lifeguard")


class FrontError(RuntimeError):
    """A call was not answered."""


class FrontEndTurn(BaseModel, frozen=True):
    """One load on one server: messages answered, and CPU seconds of the server by its threads."""

    messages: int
    seconds: dict[str, float]

    @property
    def each(self) -> float:
        """CPU seconds of one message."""
        return sum(self.seconds.values()) / self.messages


class MessageCost(BaseModel, frozen=True):
    """Calls, or messages of streams, of one kind, on both servers in turns.

    Attributes:
        request_bytes: of a message.
        answer_bytes: of its answer.
    """

    name: str
    texts: int
    request_bytes: int
    answer_bytes: int
    bertd: list[FrontEndTurn]
    echo: list[FrontEndTurn]

    @property
    def cost(self) -> float:
        """Median CPU seconds of a message."""
        return statistics.median(turn.each for turn in self.bertd)

    @property
    def echo_cost(self) -> float:
        """The same of the echo."""
        return statistics.median(turn.each for turn in self.echo)

    @property
    def ratio(self) -> float:
        """Median, over the rounds, of ours over the echo."""
        pairs = zip(self.bertd, self.echo, strict=True)
        return statistics.median(ours.each / bare.each for ours, bare in pairs)


class ProfiledFunction(BaseModel, frozen=True):
    """A function of the profile; microseconds a call of the RPC, and how often it was called."""

    name: str
    calls: float
    own: float
    cumulative: float


class FrontReport(BaseModel, frozen=True):
    """One run of `bertd bench front-end`."""

    benchmark: Literal["front-end"] = "front-end"
    model: str
    tokens: int
    workers: int
    machine: machine.Machine
    rows: list[MessageCost]
    profile: list[ProfiledFunction]

    @property
    def echo_call(self) -> float:
        """CPU seconds of an echo of the sizes of a unary call of one text."""
        return next(row.echo_cost for row in self.rows if row.name == UNARY)


@dataclass(frozen=True, slots=True)
class _MessageKind:
    """What messages carry, and how; `echo` is the echo's method for them."""

    name: str
    echo: str
    texts: int
    streamed: bool


_KINDS = (
    _MessageKind(UNARY, "One", 1, streamed=False),
    _MessageKind(f"Embed, {_BULK} texts", "Many", _BULK, streamed=False),
    _MessageKind("EmbedStream, 1 text", "One", 1, streamed=True),
    _MessageKind(f"EmbedStream, {_BULK} texts", "Many", _BULK, streamed=True),
)


def measure(
    folder: Path, *, seconds: float, rounds: int, progress: Callable[[str], None]
) -> FrontReport:
    """Measure the front end with the tokenizer of a bundle.

    Args:
        folder: the bundle, for feature-extraction.
        seconds: length of one turn.
        rounds: turns of each kind of message on each server.
        progress: told what is being measured.

    Raises:
        SpawnError: a server did not start.
        FrontError: a call failed.
    """
    here = machine.describe(cpu.usable_threads())
    texts = traffic.texts_for(folder, _TEXTS, (_TOKENS,))
    requests = {size: traffic.serialize(texts, size) for size in (1, _BULK)}
    turns: dict[tuple[str, SpawnedServer], list[FrontEndTurn]] = {}
    with ExitStack() as stack:
        pool = stack.enter_context(process_pool())
        ours = spawn(f"{_SERVERS}:bertd", folder)
        stack.callback(ours.close)
        answers = {
            kind.echo: pool.submit(_answer, ours.address, requests[kind.texts][0]).result()
            for kind in _KINDS
        }
        echo = spawn(f"{_SERVERS}:echo", answers)
        stack.callback(echo.close)
        for number in range(-1, rounds):
            progress(f"round {number + 1} of {rounds}" if number >= 0 else "warm-up")
            length = seconds if number >= 0 else _WARM_SHARE * seconds
            for kind in _KINDS:
                for server in (ours, echo) if number % 2 else (echo, ours):
                    method = f"/{ECHO}/{kind.echo}" if server is echo else EMBED
                    turn = _turn(pool, server, method, kind, requests[kind.texts], length)
                    if number >= 0:
                        turns.setdefault((kind.name, server), []).append(turn)
        progress("profile")
        profiled = spawn(f"{_SERVERS}:bertd", folder, profile=True)
        calls = pool.submit(_calls, profiled.address, EMBED, requests[1], 2 * seconds).result()
        profile = _most(profiled.close(), calls)
    return FrontReport(
        model=bundle.read_manifest(folder).name,
        tokens=_TOKENS,
        workers=_WORKERS,
        machine=here,
        rows=[
            MessageCost(
                name=kind.name,
                texts=kind.texts,
                request_bytes=len(requests[kind.texts][0]),
                answer_bytes=len(answers[kind.echo]),
                bertd=turns[kind.name, ours],
                echo=turns[kind.name, echo],
            )
            for kind in _KINDS
        ],
        profile=profile,
    )


def _turn(  # noqa: PLR0913, PLR0917 - one cell of the measurement
    pool: Executor,
    server: SpawnedServer,
    method: str,
    kind: _MessageKind,
    requests: Sequence[bytes],
    seconds: float,
) -> FrontEndTurn:
    put, method = (_streams, f"{method}Stream") if kind.streamed else (_calls, method)
    before = thread_seconds(server.pid)
    messages = pool.submit(put, server.address, method, requests, seconds).result()
    used = thread_seconds(server.pid)
    return FrontEndTurn(
        messages=messages,
        seconds={thread: used[thread] - before.get(thread, 0.0) for thread in used},
    )


def thread_seconds(pid: int) -> dict[str, float]:
    """CPU seconds that a process has used so far, by kind of thread; empty without /proc.

    By `schedstat`, whose first number is nanoseconds: `stat` counts ticks of 10 ms.
    """
    seconds: Counter[str] = Counter()
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            name = (task / "comm").read_text(encoding="utf-8", errors="replace")
            spent = int((task / "schedstat").read_text(encoding="ascii").split()[0])
        except OSError:  # it has just ended
            continue
        kind = "gRPC threads" if name.startswith(_TRANSPORT_NAMES) else "lanes and tokeniser"
        seconds["event loop" if task.name == str(pid) else kind] += spent
    return {kind: spent / 1e9 for kind, spent in seconds.items()}


def _most(functions: FunctionTimes, calls: int) -> list[ProfiledFunction]:
    """Functions called about once a call or more, those with most time of their own first."""
    found = [
        ProfiledFunction(
            name=_label(file, name),
            calls=times / calls,
            own=own / calls * 1e6,
            cumulative=cumulative / calls * 1e6,
        )
        for file, _, name, times, own, cumulative in functions
        if 2 * times >= calls
    ]
    by_own = sorted(found, key=lambda each: -each.own)[:_SHOWN]
    by_cumulative = sorted(found, key=lambda each: -each.cumulative)[:_SHOWN]
    return list({each.name: each for each in (*by_own, *by_cumulative)}.values())


def _label(file: str, name: str) -> str:
    """The function, with its module as far as that says something."""
    if file == "~":  # built in
        return name.strip("<>")
    path = Path(file).with_suffix("").parts
    return f"{'.'.join(path[-2:])}.{name}"


def _answer(address: str, request: bytes) -> bytes:
    """What our server answers."""
    load = ClientLoad(Open((0.0,), (60.0,)), (request,), keep=True)
    [asked], _ = put_load(address, load)
    return asked.reply.answer


def _calls(address: str, method: str, requests: Sequence[bytes], seconds: float) -> int:
    """Unary calls in a closed loop; returns how many were answered."""
    load = ClientLoad(Closed(_WORKERS, seconds), tuple(requests), method)
    asked, _ = put_load(address, load)
    for each in asked:
        if each.reply.outcome is not RequestOutcome.ANSWERED:
            raise FrontError(f"a call of {method} failed: {each.reply.detail}")
    return len(asked)


def _streams(address: str, method: str, requests: Sequence[bytes], seconds: float) -> int:
    """One stream in a closed loop; returns how many messages were answered."""
    return asyncio.run(_stream(address, method, requests, time.perf_counter() + seconds))


async def _stream(address: str, method: str, requests: Sequence[bytes], end: float) -> int:
    room = asyncio.Semaphore(_AHEAD)
    answered = 0

    async def messages() -> AsyncIterator[bytes]:
        number = 0
        while time.perf_counter() < end:
            await room.acquire()
            yield requests[number % len(requests)]
            number += 1

    async with grpc.aio.insecure_channel(address) as channel:
        call: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(method)
        async for _ in call(messages()):
            answered += 1
            room.release()
    return answered
