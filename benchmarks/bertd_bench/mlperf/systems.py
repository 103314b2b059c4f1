"""How LoadGen asks bertd: ready bytes over gRPC, answers as bytes.

Embeddings come by Embed, several texts a call. Other tasks with one text come by ModelInfer, a
text a call.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import grpc
from bertd import bundle
from bertd.oip import grpc_service_pb2 as oip
from bertd.v1 import inference_pb2

from bertd_bench.load.client import EMBED
from bertd_bench.mlperf.loadgen import RefusedError

EMBEDDINGS = "feature-extraction"
TASKS = (EMBEDDINGS, "text-classification", "token-classification")
_INFER = "/inference.GRPCInferenceService/ModelInfer"
_TEXTS = 32


class ServerUnderTest:
    """A running server; construct it on the event loop that uses it.

    Args:
        address: of the server.
        manifest: of its model.
        texts: of the samples.
    """

    def __init__(self, address: str, manifest: bundle.Manifest, texts: Sequence[str]) -> None:
        self._channel = grpc.aio.insecure_channel(
            address, options=(("grpc.max_receive_message_length", -1),)
        )
        self._embeds = manifest.task == EMBEDDINGS
        self._texts = texts
        self.texts_per_call = _TEXTS if self._embeds else 1
        self._call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
        self._call = self._channel.unary_unary(EMBED if self._embeds else _INFER)
        request = self._embed_request if self._embeds else self._infer_request
        self._single = [request([number]) for number in range(len(texts))]

    async def ask(self, samples: Sequence[int]) -> list[bytes]:
        """See :class:`~bertd_bench.mlperf.loadgen.System`."""
        single = len(samples) == 1
        request = self._single[samples[0]] if single else self._embed_request(samples)
        try:
            answer = await self._call(request)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise RefusedError from error
            raise
        if not self._embeds:
            return [b"".join(oip.ModelInferResponse.FromString(answer).raw_output_contents)]
        results = inference_pb2.EmbedResponse.FromString(answer).results
        if any(result.HasField("error") for result in results):
            raise RefusedError
        return [result.embedding for result in results]

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()

    def _embed_request(self, samples: Sequence[int]) -> bytes:
        texts = [self._texts[sample] for sample in samples]
        return inference_pb2.EmbedRequest(texts=texts, prompt_name="").SerializeToString()

    def _infer_request(self, samples: Sequence[int]) -> bytes:
        [sample] = samples
        request = oip.ModelInferRequest()
        request.inputs.add(name="text", datatype="BYTES", shape=[1, 1])
        text = self._texts[sample].encode()
        request.raw_input_contents.append(struct.pack("<I", len(text)) + text)
        return request.SerializeToString()
