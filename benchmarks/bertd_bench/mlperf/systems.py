"""How LoadGen asks bertd: calls of Embed as ready bytes over gRPC, vectors as bytes."""

from __future__ import annotations

from collections.abc import Sequence

import grpc
from bertd.v1 import inference_pb2

from bertd_bench.load import traffic
from bertd_bench.load.client import EMBED
from bertd_bench.mlperf.loadgen import RefusedError


class ServerUnderTest:
    """A running server; construct it on the event loop that uses it.

    Args:
        address: of the server.
        texts: of the samples.
    """

    texts_per_call = 32

    def __init__(self, address: str, texts: Sequence[str]) -> None:
        self._channel = grpc.aio.insecure_channel(
            address, options=(("grpc.max_receive_message_length", -1),)
        )
        self._texts = texts
        self._call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
        self._call = self._channel.unary_unary(EMBED)
        self._single = traffic.serialize(texts, 1)

    async def ask(self, samples: Sequence[int]) -> list[bytes]:
        """See :class:`~bertd_bench.mlperf.loadgen.System`."""
        if len(samples) == 1:
            request = self._single[samples[0]]
        else:
            [request] = traffic.serialize([self._texts[n] for n in samples], len(samples))
        try:
            answer = await self._call(request)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise RefusedError from error
            raise
        results = inference_pb2.EmbedResponse.FromString(answer).results
        if any(result.HasField("error") for result in results):
            raise RefusedError
        return [result.embedding for result in results]

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()
