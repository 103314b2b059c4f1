"""Two servers without a model, that tell what the front end costs.

::

    bertd    services, tokenizer, scheduler and a lane, over an engine that answers at once
    echo     grpc.aio alone: any bytes in, bytes of the same length as bertd's answer out

Both run on the event loop of `bertd serve`. Nothing here imports torch: its objects would make
every garbage collection of a server longer.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from bertd import bundle
from bertd.bundle.arrays import Float32Array
from bertd_server.config.settings import Settings
from bertd_server.engine.engine import NO_LIMIT, EngineOptions
from bertd_server.engine.packing import TokenSequence
from bertd_server.models.calibration import Calibration
from bertd_server.models.startup import StartOptions
from bertd_server.scheduling.cost import Measurement, Shape
from bertd_server.serving.server import Server

from bertd_bench.load.spawned import ANYWHERE, Starter

ECHO = "bertd.bench.Echo"
_INSTANT = 2e-5  # seconds that a lane spends on any batch


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


async def bertd(starter: Starter, folder: Path) -> None:
    """Our server over a bundle, without its model."""
    settings = Settings(address=ANYWHERE, http_address=ANYWHERE, threads=1)
    server = Server(folder, settings, instant)
    await starter.serve(await server.start())
    await server.drain()


async def echo(starter: Starter, answers: Mapping[str, bytes]) -> None:
    """A bare server: the methods `/bertd.bench.Echo/NAME` and `/…/NAMEStream` give these bytes."""
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
    for name, answer in answers.items():

        async def one(_: bytes, __: Any, answer: bytes = answer) -> bytes:
            return answer

        async def many(
            requests: AsyncIterator[bytes], _: Any, answer: bytes = answer
        ) -> AsyncIterator[bytes]:
            async for _request in requests:
                yield answer

        handlers[name] = grpc.unary_unary_rpc_method_handler(one)
        handlers[f"{name}Stream"] = grpc.stream_stream_rpc_method_handler(many)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(ECHO, handlers),))
    port = server.add_insecure_port(ANYWHERE)
    await server.start()
    await starter.serve(port)
    await server.stop(None)
