"""Two ways to ask bertd: over gRPC, and its model in this process with the same scheduler.

::

    gRPC         ready bytes ──channel──> bertd serve ──> bytes
    in process   texts ──reader, scheduler, lanes──> arrays ──> bytes

Embeddings come by Embed, several texts a call. Other tasks with one text come by ModelInfer, a
text a call.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from pathlib import Path

import grpc
from bertd import bundle
from bertd.oip import grpc_service_pb2 as oip
from bertd.v1 import inference_pb2
from bertd_server.config.settings import Settings
from bertd_server.engine.packing import TokenSequence
from bertd_server.errors import InvalidInput, Overloaded, RequestError
from bertd_server.models.loading import Loader
from bertd_server.models.model import Model
from bertd_server.scheduling.deduplication import Computed
from bertd_server.tokenization.reader import FIT, Reading, texts_of

from bertd_bench.load.client import EMBED
from bertd_bench.mlperf.loadgen import RefusedError

INFER = "/inference.GRPCInferenceService/ModelInfer"
TASKS = ("feature-extraction", "text-classification", "token-classification")
_TEXTS = 32
_EMBEDDING = "feature-extraction"


class OverGrpc:
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
        self._embeds = manifest.task == _EMBEDDING
        self._texts = texts
        self.texts_per_call = _TEXTS if self._embeds else 1
        method = EMBED if self._embeds else INFER
        self._call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
        self._call = self._channel.unary_unary(method)
        requests = self._embed_request if self._embeds else self._infer_request
        self._single = [requests([number]) for number in range(len(texts))]

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


class InProcess:
    """The model and the scheduler of the server, without its front end; on one event loop.

    Args:
        folder: the bundle.
        settings: of a server.
        texts: of the samples.
    """

    def __init__(self, folder: Path, settings: Settings, texts: Sequence[str]) -> None:
        self._loader = Loader(settings)
        self._model: Model = self._loader.load(folder)
        self._texts = texts
        self._outputs = outputs_of(self._model.manifest)
        self.texts_per_call = _TEXTS

    async def ask(self, samples: Sequence[int]) -> list[bytes]:
        """See :class:`~bertd_bench.mlperf.loadgen.System`."""
        inputs = texts_of([self._texts[sample] for sample in samples])
        try:
            readings = await self._model.read(inputs, FIT, math.inf)
            sequences = [self._sequence(reading) for reading in readings]
            answers = await self._model.compute(sequences, math.inf, 0, self._outputs)
        except Overloaded as error:
            raise RefusedError from error
        return [self._bytes(answer) for answer in answers]

    async def close(self) -> None:
        """End its lanes."""
        await self._model.drain()
        self._loader.close()

    @staticmethod
    def _sequence(reading: Reading | InvalidInput) -> TokenSequence:
        if isinstance(reading, InvalidInput):
            raise reading
        return reading.windows[0].sequence

    def _bytes(self, answer: Computed | RequestError) -> bytes:
        if isinstance(answer, Overloaded):
            raise RefusedError
        if isinstance(answer, RequestError):
            raise answer
        return b"".join(answer.outputs[name].tobytes() for name in self._outputs)


def outputs_of(manifest: bundle.Manifest) -> tuple[str, ...]:
    """What the engine computes by default."""
    if bundle.SENTENCE_EMBEDDING in manifest.outputs:
        return (bundle.SENTENCE_EMBEDDING,)
    return tuple(manifest.outputs)
