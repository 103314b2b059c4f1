"""tei.v1.Embed: vectors of a text, of its tokens, and weights of the vocabulary."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from bertd.bundle.arrays import Float32Array
from bertd.tei.v1 import tei_pb2 as pb
from bertd.tei.v1 import tei_pb2_grpc
from grpc.aio import ServicerContext as Context

from bertd_server.models.model import Model
from bertd_server.rpc.encoding import PARTS, within
from bertd_server.rpc.tei import requests
from bertd_server.rpc.tei.metadata import Tally
from bertd_server.rpc.tei.service import TeiService, answered, holding, streamed
from bertd_server.scheduling.executor import Steps
from bertd_server.tasks import embedding, sparse, vectors
from bertd_server.tasks.ask import require
from bertd_server.tokenization.reader import Input


class EmbedService(TeiService, tei_pb2_grpc.EmbedServicer):
    """Embeds texts."""

    async def Embed(  # noqa: N802 - the RPC's name
        self, request: pb.EmbedRequest, context: Context[pb.EmbedRequest, pb.EmbedResponse]
    ) -> pb.EmbedResponse:
        """Embed a text."""
        return await answered(self._embed, request, context)

    async def EmbedStream(  # noqa: N802 - the RPC's name
        self,
        request_iterator: AsyncIterator[pb.EmbedRequest],
        context: Context[pb.EmbedRequest, pb.EmbedResponse],
    ) -> AsyncIterator[pb.EmbedResponse]:
        """Embed texts."""
        async for response in streamed(self._embed, request_iterator, context, self._closing):
            yield response

    async def EmbedSparse(  # noqa: N802 - the RPC's name
        self,
        request: pb.EmbedSparseRequest,
        context: Context[pb.EmbedSparseRequest, pb.EmbedSparseResponse],
    ) -> pb.EmbedSparseResponse:
        """Weigh the vocabulary for a text."""
        return await answered(self._embed_sparse, request, context)

    async def EmbedSparseStream(  # noqa: N802 - the RPC's name
        self,
        request_iterator: AsyncIterator[pb.EmbedSparseRequest],
        context: Context[pb.EmbedSparseRequest, pb.EmbedSparseResponse],
    ) -> AsyncIterator[pb.EmbedSparseResponse]:
        """Weigh the vocabulary for texts."""
        async for response in streamed(
            self._embed_sparse, request_iterator, context, self._closing
        ):
            yield response

    async def EmbedAll(  # noqa: N802 - the RPC's name
        self, request: pb.EmbedAllRequest, context: Context[pb.EmbedAllRequest, pb.EmbedAllResponse]
    ) -> pb.EmbedAllResponse:
        """Embed the tokens of a text."""
        return await answered(self._embed_all, request, context)

    async def EmbedAllStream(  # noqa: N802 - the RPC's name
        self,
        request_iterator: AsyncIterator[pb.EmbedAllRequest],
        context: Context[pb.EmbedAllRequest, pb.EmbedAllResponse],
    ) -> AsyncIterator[pb.EmbedAllResponse]:
        """Embed the tokens of texts."""
        async for response in streamed(self._embed_all, request_iterator, context, self._closing):
            yield response

    @holding
    async def _embed(
        self, model: Model, request: pb.EmbedRequest, context: Context[Any, Any]
    ) -> pb.EmbedResponse:
        tally = Tally()
        require(model, "Embed", "feature-extraction")
        wanted = request.dimensions if request.HasField("dimensions") else None
        vectors.check_dimensions(wanted, model.manifest.dimensions)
        (reply,) = await embedding.embed(
            model,
            [_text(request)],
            requests.fit(request),
            requests.caller(context, self._limits.max_message_bytes),
            prompt_name=_prompt(request),
        )
        vector = shaped(
            tally.add(reply, len(request.inputs)), model, wanted, normalize=request.normalize
        )
        return pb.EmbedResponse(embeddings=vector.tolist(), metadata=tally.metadata())

    @holding
    async def _embed_sparse(
        self, model: Model, request: pb.EmbedSparseRequest, context: Context[Any, Any]
    ) -> pb.EmbedSparseResponse:
        tally = Tally()
        require(model, "EmbedSparse", "fill-mask")
        (reply,) = await sparse.embed_sparse(
            model,
            [_text(request)],
            requests.fit(request),
            requests.caller(context, self._limits.max_message_bytes),
            prompt_name=_prompt(request),
        )
        found = tally.add(reply, len(request.inputs))
        response = pb.EmbedSparseResponse(metadata=tally.metadata())
        return await model.jobs.run(_weighed(response, found))

    @holding
    async def _embed_all(
        self, model: Model, request: pb.EmbedAllRequest, context: Context[Any, Any]
    ) -> pb.EmbedAllResponse:
        tally = Tally()
        require(model, "EmbedAll", "feature-extraction")
        (reply,) = await embedding.embed_tokens(
            model,
            [_text(request)],
            requests.fit(request),
            requests.caller(context, self._limits.max_message_bytes),
            prompt_name=_prompt(request),
        )
        found = tally.add(reply, len(request.inputs))
        response = pb.EmbedAllResponse(metadata=tally.metadata())
        return await model.jobs.run(_of_tokens(response, found.vectors))


def shaped(
    vector: Float32Array, model: Model, wanted: int | None, *, normalize: bool
) -> Float32Array:
    """A model's vector as the protocol gives it: its first values, then of length one if asked."""
    normalized = model.manifest.normalized
    if wanted is not None and wanted < len(vector):
        vector, normalized = vector[:wanted], False
    return vectors.of_length_one(vector) if normalize and not normalized else vector


def _weighed(
    response: pb.EmbedSparseResponse, found: sparse.SparseVector
) -> Steps[pb.EmbedSparseResponse]:
    """A response with weights."""
    for start in range(0, len(found.indices), PARTS):
        part = slice(start, start + PARTS)
        pairs = zip(found.indices[part].tolist(), found.values[part].tolist(), strict=True)
        response.sparse_embeddings.extend(
            [pb.SparseValue(index=index, value=value) for index, value in pairs]
        )
        yield
    return response


def _of_tokens(response: pb.EmbedAllResponse, vectors: Float32Array) -> Steps[pb.EmbedAllResponse]:
    """A response with the vectors of tokens: packed floats, as they are in memory."""
    for row in vectors.astype("<f4", copy=False):
        packed = within(pb.TokenEmbedding, "embeddings", [row.tobytes()])
        response.token_embeddings.add().MergeFromString(b"".join(packed))
        yield
    return response


def _text(request: Any) -> Input:
    requests.check_text(request.inputs)
    return Input(request.inputs, field="inputs")


def _prompt(request: Any) -> str | None:
    return request.prompt_name if request.HasField("prompt_name") else None
