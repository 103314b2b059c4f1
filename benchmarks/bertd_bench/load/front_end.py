"""`bertd bench front-end`: CPU time of the server for a call, without the model's.

::

    client process ──same bytes, in turns──┬──> bertd without a model ──┐
    closed loop                            └──> echo of the same sizes ─┴──> CPU seconds a message

The CPU time is that of the whole process: event loop, gRPC's threads, and the lane.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import grpc
from bertd import bundle
from bertd_server.system import cpu as cores
from tokenizers import Tokenizer

from bertd_bench.harness import machine
from bertd_bench.load import bare, cpu, front_servers, mix
from bertd_bench.load.client import EMBED, Stream, process_pool, put_load
from bertd_bench.load.front_results import UNARY, Frame, FrontReport, Row, Turn
from bertd_bench.load.front_servers import ECHO, Frames, Front, FrontError
from bertd_bench.load.generator import Closed, Outcome

TOKENS = 16
WORKERS = 4
_BULK = 32
_TEXTS = 512  # more than are in flight, so that no two of those are equal
_AHEAD = 8  # messages of a stream without an answer; as many as the server works on at once
_WARM_SHARE = 0.25  # of a turn, before the first


@dataclass(frozen=True, slots=True)
class _Kind:
    """Messages of one kind: what they carry, and how."""

    name: str
    echo: str
    texts: int
    streamed: bool


_KINDS = (
    _Kind(UNARY, "One", 1, streamed=False),
    _Kind(f"Embed, {_BULK} texts", "Many", _BULK, streamed=False),
    _Kind("EmbedStream, 1 text", "One", 1, streamed=True),
    _Kind(f"EmbedStream, {_BULK} texts", "Many", _BULK, streamed=True),
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
        FrontError: a server did not start, or a call failed.
    """
    here = machine.describe(cores.usable_threads())
    manifest = bundle.read_manifest(folder)
    requests = _requests(folder)
    with process_pool() as pool:
        with front_servers.bertd(folder) as ours:
            answers = {
                kind.echo: pool.submit(_answer, ours.address, requests[kind.texts][0]).result()
                for kind in _KINDS
            }
            with front_servers.echo(answers) as echo:
                turns: dict[tuple[str, Front], list[Turn]] = {}
                for number in range(-1, rounds):
                    progress(f"round {number + 1} of {rounds}" if number >= 0 else "warm-up")
                    length = seconds if number >= 0 else _WARM_SHARE * seconds
                    for kind in _KINDS:
                        for front in (ours, echo) if number % 2 else (echo, ours):
                            turn = _turn(pool, front, front is echo, kind, requests, length)
                            if number >= 0:
                                turns.setdefault((kind.name, front), []).append(turn)
                echo.stop()
            ours.stop()
        progress("profile")
        profile = _profile(pool, folder, requests, seconds)
    return FrontReport(
        model=manifest.name,
        tokens=TOKENS,
        workers=WORKERS,
        machine=here,
        rows=[
            Row(
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


def _requests(folder: Path) -> dict[int, list[bytes]]:
    """Serialised calls, by how many texts they have."""
    tokenizer = Tokenizer.from_file(str(folder / bundle.TOKENIZER_NAME))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    texts = mix.build_texts(tokenizer, _TEXTS, bare.seeded(0), (TOKENS,))
    return {size: mix.serialize(texts, size) for size in {kind.texts for kind in _KINDS}}


def _turn(  # noqa: PLR0913, PLR0917 - one cell of the measurement
    pool: Executor,
    front: Front,
    bare_echo: bool,
    kind: _Kind,
    requests: dict[int, list[bytes]],
    seconds: float,
) -> Turn:
    method = f"/{ECHO}/{kind.echo}" if bare_echo else EMBED
    if kind.streamed:
        method += "Stream"
    put = _put_streams if kind.streamed else _put_calls
    before = cpu.thread_seconds(front.pid)
    messages = pool.submit(put, front.address, method, requests[kind.texts], seconds).result()
    return Turn(messages=messages, seconds=cpu.difference(before, cpu.thread_seconds(front.pid)))


def _profile(
    pool: Executor, folder: Path, requests: dict[int, list[bytes]], seconds: float
) -> list[Frame]:
    """Functions of the event loop's thread that took most, in unary calls of one text."""
    with front_servers.bertd(folder, profile=True) as front:
        calls = pool.submit(_put_calls, front.address, EMBED, requests[1], 2 * seconds).result()
        frames = front.stop()
    return _most(frames, calls)


def _most(frames: Frames, calls: int) -> list[Frame]:
    """Functions called about once a call or more, those with most time first."""
    found = [
        Frame(
            name=_label(file, name),
            calls=times / calls,
            own=own / calls * 1e6,
            cumulative=cumulative / calls * 1e6,
        )
        for file, _, name, times, own, cumulative in frames
        if 2 * times >= calls
    ]
    found.sort(key=lambda frame: -frame.own)
    kept = {frame.name: frame for frame in found[:25]}
    by_cumulative = sorted(found, key=lambda frame: -frame.cumulative)
    return list((kept | {frame.name: frame for frame in by_cumulative[:25]}).values())


def _label(file: str, name: str) -> str:
    """The function, with its module as far as that says something."""
    if file == "~":  # built in
        return name.strip("<>")
    path = Path(file).with_suffix("").parts
    return f"{'.'.join(path[-2:])}.{name}"


def _answer(address: str, request: bytes) -> bytes:
    """What our server answers."""

    async def ask() -> bytes:
        async with grpc.aio.insecure_channel(address) as channel:
            call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(EMBED)
            return await call(request)

    return asyncio.run(ask())


def _put_calls(address: str, method: str, requests: Sequence[bytes], seconds: float) -> int:
    """Unary calls in a closed loop; returns how many were answered."""
    stream = Stream(Closed(WORKERS, seconds), tuple(requests), answer_bytes=1, method=method)
    (records,) = put_load(address, [stream]).records
    for record in records:
        if record.reply.outcome is not Outcome.ANSWERED:
            raise FrontError(f"a call of {method} failed: {record.reply.detail}")
    return len(records)


def _put_streams(address: str, method: str, requests: Sequence[bytes], seconds: float) -> int:
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
