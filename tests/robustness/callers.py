"""Callers that never rest: their calls retry as the client's do, and every answer is looked at.

::

    Embed ───────────┐  the channel of the client library: retries, round robin, health checks
    EmbedStream ─────┤
    ModelInfer (v2) ─┼──> servers ──> answer ──> Timeline: whose bits, which version
    AsyncClient ─────┘                     └───> Callers: how many, and what was wrong
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import AsyncIterator, Sequence
from typing import Any, Self

import grpc
import numpy as np
from bertd.oip import grpc_service_pb2, grpc_service_pb2_grpc
from bertd.v1 import inference_pb2, inference_pb2_grpc
from bertd_client import AsyncClient, BertdError
from bertd_client.connection.channel import target
from bertd_client.connection.security import OPEN, open_async_channel
from robustness.timeline import TEXTS, Timeline

NAME = "swapped"  # of the model
LIBRARY, UNARY, STREAM, TENSORS = "AsyncClient", "Embed", "EmbedStream", "ModelInfer"
MOST_TEXTS = 8  # of a call
MOST_REQUESTS = 8  # of a stream
PAUSE = 0.01  # seconds, at most, between two calls of one caller
TIMEOUT = 60.0


class Callers:
    """Load, from when it is entered until it is left.

    Attributes:
        answered: calls, or requests of streams, by kind.
        wrong: what should not have happened.
    """

    def __init__(self, addresses: Sequence[str], timeline: Timeline, kinds: Sequence[str]) -> None:
        """Call nobody yet; of each kind there is one caller, and servers take turns."""
        self.answered: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._timeline = timeline
        self._kinds = kinds
        self._over = False
        self._changed = asyncio.Event()
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
            asyncio.create_task(self._work(kind, call[kind], random.Random(seed)))
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
        goal = self.answered.total() + len(self._kinds) + calls
        while self.answered.total() < goal and not self.wrong:
            self._changed.clear()
            await self._changed.wait()

    async def _work(self, kind: str, call: Any, rng: random.Random) -> None:
        while not self._over:
            try:
                await call(rng)
            except (grpc.aio.AioRpcError, BertdError) as error:
                self.wrong.append(f"{kind} failed: {error}")
                self._changed.set()
            await asyncio.sleep(rng.uniform(0.0, PAUSE))

    async def _ask_library(self, rng: random.Random) -> None:
        texts, began = self._begin(rng)
        vectors = await self._client.embed(texts, timeout=TIMEOUT)
        self._end(LIBRARY, self._timeline.wrong(began, texts, [each.tobytes() for each in vectors]))

    async def _ask(self, rng: random.Random) -> None:
        texts, began = self._begin(rng)
        request = inference_pb2.EmbedRequest(texts=texts)
        response = await self._inference.Embed(request, timeout=TIMEOUT)
        self._judge(UNARY, texts, began, response)

    async def _stream(self, rng: random.Random) -> None:
        asked: deque[tuple[list[str], int]] = deque()

        async def requests() -> AsyncIterator[inference_pb2.EmbedRequest]:
            for _ in range(MOST_REQUESTS):
                asked.append(self._begin(rng))
                yield inference_pb2.EmbedRequest(texts=asked[-1][0])
                await asyncio.sleep(rng.uniform(0.0, PAUSE))

        async for response in self._inference.EmbedStream(requests(), timeout=TIMEOUT):
            self._judge(STREAM, *asked.popleft(), response)
        if asked:
            self.wrong.append(f"a stream ended with {len(asked)} requests unanswered")

    async def _infer(self, rng: random.Random) -> None:
        texts, began = self._begin(rng)
        request = grpc_service_pb2.ModelInferRequest(model_name=NAME)
        tensor = request.inputs.add(name="text", datatype="BYTES", shape=[len(texts), 1])
        tensor.contents.bytes_contents.extend(text.encode() for text in texts)
        request.outputs.add(name="sentence_embedding")
        answer = await self._tensors.ModelInfer(request, timeout=TIMEOUT)
        values = np.array(answer.outputs[0].contents.fp32_contents, np.float32)
        vectors = [each.tobytes() for each in values.reshape(len(texts), -1)]
        self._end(TENSORS, self._timeline.wrong(began, texts, vectors, answer.model_version))

    def _begin(self, rng: random.Random) -> tuple[list[str], int]:
        return rng.sample(TEXTS, rng.randint(1, MOST_TEXTS)), self._timeline.settled

    def _judge(
        self, kind: str, texts: Sequence[str], began: int, response: inference_pb2.EmbedResponse
    ) -> None:
        errors = [one.error.message for one in response.results if one.HasField("error")]
        vectors = [one.embedding for one in response.results]
        wrong = self._timeline.wrong(began, texts, vectors, response.model_version)
        self._end(kind, f"a text failed: {errors[0]}" if errors else wrong)

    def _end(self, kind: str, wrong: str) -> None:
        if wrong:
            self.wrong.append(f"{kind}: {wrong}")
        else:
            self.answered[kind] += 1
        self._changed.set()
