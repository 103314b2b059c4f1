"""Two servers without a model, each in a process of its own, that tell what the front end costs.

::

    bertd    services, tokenizer, scheduler and a lane, over an engine that answers at once
    echo     grpc.aio alone: any bytes in, bytes of the same length as bertd's answer out

Both run on the event loop of `bertd serve`. Nothing here imports torch: its objects would make
every garbage collection of a server longer.
"""

from __future__ import annotations

import asyncio
import contextlib
import cProfile
import multiprocessing
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from bertd import bundle
from bertd_server.config.settings import Settings
from bertd_server.engine.engine import NO_LIMIT, EngineOptions, Float32Array
from bertd_server.engine.packing import TokenSequence
from bertd_server.models.calibration import Calibration
from bertd_server.models.startup import StartOptions
from bertd_server.process import process
from bertd_server.process.app import settle
from bertd_server.scheduling.cost import Measurement, Shape
from bertd_server.serving.server import Server

ECHO = "bertd.bench.Echo"
_START_SECONDS = 60.0
_ANYWHERE = "127.0.0.1:0"
_INSTANT = 2e-5  # seconds that a lane spends on any batch

FunctionTimes = list[tuple[str, int, str, int, float, float]]
"""Of a profile, for each function: file, line, name, calls, own seconds, seconds with callees."""


class FrontError(RuntimeError):
    """A server did not start, or does not answer."""


class InstantEngine:
    """Gives each sequence the same vector: all that is left of a model is its shape."""

    lanes = 1
    max_batch_tokens = NO_LIMIT
    provider = "none"

    def __init__(self, dimensions: int) -> None:
        self._vectors = np.full((1, dimensions), dimensions**-0.5, np.float32)

    def answer(
        self,
        sequences: Sequence[TokenSequence],
        outputs: Sequence[str] | None = None,  # noqa: ARG002 - the models here have one output
        *,
        wide: bool = False,  # noqa: ARG002 - there is no other session
    ) -> list[dict[str, Float32Array]]:
        """The same vector for each sequence."""
        return [{bundle.SENTENCE_EMBEDDING: self._vectors} for _ in sequences]


def instant(
    folder: Path,  # noqa: ARG001 - nothing is loaded
    manifest: bundle.Manifest,
    options: EngineOptions,  # noqa: ARG001 - nothing computes
    starting: StartOptions,  # noqa: ARG001 - nothing to warm up
) -> tuple[InstantEngine, Calibration]:
    """An engine that answers at once, and says so."""
    shapes = [Shape.of([length] * count) for length in (8, 64, 512) for count in (1, 8, 64)]
    return InstantEngine(manifest.dimensions), Calibration(
        [Measurement(shape, _INSTANT) for shape in shapes]
    )


@dataclass(frozen=True, slots=True)
class Front:
    """A server process that listens."""

    pid: int
    address: str
    connection: Connection

    def stop(self) -> FunctionTimes:
        """End it; gives its profile, empty unless it was asked for."""
        self.connection.send(None)
        frames: FunctionTimes = self.connection.recv()
        return frames


@contextlib.contextmanager
def bertd(folder: Path, *, profile: bool = False) -> Iterator[Front]:
    """Our server over a bundle, without its model.

    Raises:
        FrontError: it did not start.
    """
    with _process(_run, _serve_bertd, (folder,), profile) as front:
        yield front


@contextlib.contextmanager
def echo(answers: Mapping[str, bytes]) -> Iterator[Front]:
    """A bare server: the methods `/bertd.bench.Echo/NAME` and `/…/NAMEStream` give these bytes.

    Raises:
        FrontError: it did not start.
    """
    with _process(_run, _serve_echo, (dict(answers),), False) as front:
        yield front


@contextlib.contextmanager
def _process(target: Callable[..., None], *arguments: Any) -> Iterator[Front]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(theirs, *arguments), daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(_START_SECONDS):
            raise FrontError(f"a server did not listen within {_START_SECONDS:.0f} s")
        yield Front(process.pid or 0, f"127.0.0.1:{ours.recv()}", ours)
    except EOFError as error:
        raise FrontError("a server ended before it listened: see its output above") from error
    finally:
        ours.close()
        process.terminate()
        process.join()


def _run(
    connection: Connection,
    serve: Callable[..., Coroutine[Any, Any, None]],
    arguments: tuple[Any, ...],
    profile: bool,
) -> None:
    """What a process does: serve until told to end."""
    profiler = cProfile.Profile()
    main = serve(connection, *arguments)
    if profile:
        profiler.runcall(process.run, main)
    else:
        process.run(main)
    connection.send(_frames(profiler) if profile else [])


def _frames(profiler: cProfile.Profile) -> FunctionTimes:
    profiler.create_stats()
    stats: dict[tuple[str, int, str], Any] = profiler.stats
    return [
        (file, line, name, calls, own, cumulative)
        for (file, line, name), (_, calls, own, cumulative, _) in stats.items()
    ]


async def _serve_bertd(connection: Connection, folder: Path) -> None:
    settings = Settings(address=_ANYWHERE, http_address=_ANYWHERE, threads=1)
    server = Server(folder, settings, instant)
    port = await server.start()
    settle()
    connection.send(port)
    await _told(connection)
    await server.drain()


async def _serve_echo(connection: Connection, answers: Mapping[str, bytes]) -> None:
    server = grpc.aio.server()
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
    for name, answer in answers.items():
        one, many = _echoes(answer)
        handlers[name] = grpc.unary_unary_rpc_method_handler(one)
        handlers[f"{name}Stream"] = grpc.stream_stream_rpc_method_handler(many)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(ECHO, handlers),))
    port = server.add_insecure_port(_ANYWHERE)
    await server.start()
    connection.send(port)
    await _told(connection)
    await server.stop(None)


def _echoes(answer: bytes) -> tuple[Callable[..., Any], Callable[..., Any]]:
    async def one(_: bytes, __: Any) -> bytes:
        return answer

    async def many(requests: AsyncIterator[bytes], _: Any) -> AsyncIterator[bytes]:
        async for _request in requests:
            yield answer

    return one, many


async def _told(connection: Connection) -> None:
    """Return once the other side has sent something, or has gone."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(connection.fileno(), told.set)
    await told.wait()
    loop.remove_reader(connection.fileno())
