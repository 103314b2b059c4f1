"""Callers that never rest: their calls retry as the client's do, and every answer is looked at.

::

    Embed ───────────┐  the channel of the client library: retries, round robin, health checks
    EmbedStream ─────┤
    ModelInfer (v2) ─┼──> servers ──> answer ──> Timeline: whose bits, which version
    AsyncClient ─────┘                     └───> CallersSeen: counts, latencies, what was wrong
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import grpc
import numpy as np
from bertd.oip import grpc_service_pb2, grpc_service_pb2_grpc
from bertd.v1 import inference_pb2, inference_pb2_grpc
from bertd_client import AsyncClient, BertdError
from bertd_client.connection.channel import target
from bertd_client.connection.security import OPEN, open_async_channel

from bertd_bench.drills.models import NAME, TEXTS
from bertd_bench.drills.timeline import Timeline

LIBRARY, UNARY, STREAM, TENSORS = "AsyncClient", "Embed", "EmbedStream", "ModelInfer"
_MOST_TEXTS = 8  # of a call
_MOST_REQUESTS = 8  # of a stream
_PAUSE = 0.01  # seconds, at most, between two calls of one caller
_TIMEOUT = 60.0


@dataclass(slots=True)
class CallersSeen:
    """What came of the calls.

    Attributes:
        answered: calls, or requests of streams, by kind.
        texts: that were answered.
        wrong: what should not have happened.
        latencies: of calls that are no streams: when they began, and their seconds.
    """

    answered: Counter[str] = field(default_factory=Counter)
    texts: int = 0
    wrong: list[str] = field(default_factory=list)
    latencies: list[tuple[float, float]] = field(default_factory=list)

    def milliseconds(self, share: float, begin: float, end: float) -> float:
        """A quantile of the latency of calls that began between two moments."""
        within = [1e3 * took for when, took in self.latencies if begin <= when < end]
        return float(np.quantile(within, share)) if within else float("nan")


class Callers:
    """Load, from when it is entered until it is left."""

    def __init__(self, addresses: Sequence[str], timeline: Timeline, kinds: Sequence[str]) -> None:
        """Call nobody yet.

        Args:
            addresses: of the servers; several take turns.
            timeline: says which answers are right.
            kinds: one caller each.
        """
        self.seen = CallersSeen()
        self._timeline = timeline
        self._kinds = kinds
        self._over = False
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        where, options = target(addresses)
        self._channel = open_async_channel(where, options, OPEN)
        self._inference: Any = inference_pb2_grpc.InferenceServiceStub(self._channel)
        self._tensors: Any = grpc_service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._client = AsyncClient(addresses)

    async def __aenter__(self) -> Self:
        call = {
            LIBRARY: self._ask_library,
            UNARY: self._ask,
            STREAM: self._stream,
            TENSORS: self._infer,
        }
        self._tasks = [
            asyncio.create_task(self._work(kind, call[kind], random.Random(seed)))  # noqa: S311
            for seed, kind in enumerate(self._kinds)
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._over = True
        await asyncio.gather(*self._tasks)
        await self._client.close()
        await self._channel.close()

    async def answers(self, calls: int) -> None:
        """Wait until so many more calls have begun and been answered, or something was wrong."""
        goal = self.seen.answered.total() + len(self._kinds) + calls
        while self.seen.answered.total() < goal and not self.seen.wrong:
            self._changed.clear()
            await self._changed.wait()

    async def _work(self, kind: str, call: Any, rng: random.Random) -> None:
        while not self._over:
            try:
                await call(rng)
            except (grpc.aio.AioRpcError, BertdError) as error:
                code = error.code() if isinstance(error, grpc.aio.AioRpcError) else error.code
                self.seen.wrong.append(f"{kind} failed: {code.name}: {error}")
                self._changed.set()
            await asyncio.sleep(rng.uniform(0.0, _PAUSE))

    async def _ask_library(self, rng: random.Random) -> None:
        texts, began, start = self._begin(rng)
        vectors = await self._client.embed(texts, timeout=_TIMEOUT)
        self._end(LIBRARY, start, texts, self._timeline.wrong(began, texts, [*map(_bits, vectors)]))

    async def _ask(self, rng: random.Random) -> None:
        texts, began, start = self._begin(rng)
        request = inference_pb2.EmbedRequest(texts=texts)
        self._judge(
            UNARY, texts, began, await self._inference.Embed(request, timeout=_TIMEOUT), start
        )

    async def _stream(self, rng: random.Random) -> None:
        asked: deque[tuple[list[str], int]] = deque()

        async def requests() -> AsyncIterator[inference_pb2.EmbedRequest]:
            for _ in range(_MOST_REQUESTS):
                texts, began, _start = self._begin(rng)
                asked.append((texts, began))
                yield inference_pb2.EmbedRequest(texts=texts)
                await asyncio.sleep(rng.uniform(0.0, _PAUSE))

        async for response in self._inference.EmbedStream(requests(), timeout=_TIMEOUT):
            self._judge(STREAM, *asked.popleft(), response)
        if asked:
            self.seen.wrong.append(f"a stream ended with {len(asked)} requests unanswered")

    async def _infer(self, rng: random.Random) -> None:
        texts, began, start = self._begin(rng)
        request = grpc_service_pb2.ModelInferRequest(model_name=NAME)
        tensor = request.inputs.add(name="text", datatype="BYTES", shape=[len(texts), 1])
        tensor.contents.bytes_contents.extend(text.encode() for text in texts)
        request.outputs.add(name="sentence_embedding")
        answer = await self._tensors.ModelInfer(request, timeout=_TIMEOUT)
        values = np.array(answer.outputs[0].contents.fp32_contents, np.float32)
        vectors = [*map(_bits, values.reshape(len(texts), -1))]
        wrong = self._timeline.wrong(began, texts, vectors, answer.model_version)
        self._end(TENSORS, start, texts, wrong)

    def _begin(self, rng: random.Random) -> tuple[list[str], int, float]:
        texts = rng.sample(TEXTS, rng.randint(1, _MOST_TEXTS))
        return texts, self._timeline.settled, time.monotonic()

    def _judge(
        self,
        kind: str,
        texts: Sequence[str],
        began: int,
        response: inference_pb2.EmbedResponse,
        start: float | None = None,
    ) -> None:
        errors = [one.error.message for one in response.results if one.HasField("error")]
        vectors = [one.embedding for one in response.results]
        wrong = self._timeline.wrong(began, texts, vectors, response.model_version)
        self._end(kind, start, texts, f"a text failed: {errors[0]}" if errors else wrong)

    def _end(self, kind: str, start: float | None, texts: Sequence[str], wrong: str) -> None:
        self._changed.set()
        if wrong:
            self.seen.wrong.append(f"{kind}: {wrong}")
            return
        self.seen.answered[kind] += 1
        self.seen.texts += len(texts)
        if start is not None:
            self.seen.latencies.append((start, time.monotonic() - start))


def _bits(vector: Any) -> bytes:
    return bytes(vector.tobytes())
