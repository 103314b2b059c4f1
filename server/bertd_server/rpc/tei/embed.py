"""tei.v1.Embed: vectors of a text, of its tokens, and weights of the vocabulary."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import numpy as np
from bertd.bundle.arrays import Float32Array
from bertd.tei.v1 import tei_pb2 as pb
from bertd.tei.v1 import tei_pb2_grpc
from grpc.aio import ServicerContext as Context

from bertd_server.errors import InvalidInput
from bertd_server.models.model import Model
from bertd_server.rpc.tei import requests
from bertd_server.rpc.tei.metadata import Tally
from bertd_server.rpc.tei.service import TeiService, answered, holding, streamed
from bertd_server.tasks import embedding, sparse
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
        _check_dimensions(request, model)
        (reply,) = await embedding.embed(
            model,
            [_text(request)],
            requests.fit(request),
            requests.caller(context),
            prompt_name=_prompt(request),
        )
        vector = tally.add(reply, len(request.inputs))
        if request.HasField("dimensions") and request.dimensions < len(vector):
            vector = vector[: request.dimensions]
            normalized = False
        else:
            normalized = model.manifest.normalized
        if request.normalize and not normalized:
            vector = of_length_one(vector)
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
            requests.caller(context),
            prompt_name=_prompt(request),
        )
        found = tally.add(reply, len(request.inputs))
        return pb.EmbedSparseResponse(
            sparse_embeddings=[
                pb.SparseValue(index=index, value=value)
                for index, value in zip(found.indices.tolist(), found.values.tolist(), strict=True)
            ],
            metadata=tally.metadata(),
        )

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
            requests.caller(context),
            prompt_name=_prompt(request),
        )
        found = tally.add(reply, len(request.inputs))
        return pb.EmbedAllResponse(
            token_embeddings=[pb.TokenEmbedding(embeddings=row) for row in found.vectors.tolist()],
            metadata=tally.metadata(),
        )


def of_length_one(vector: Float32Array) -> Float32Array:
    """A vector scaled as the protocol's server does: the length in float64; zero stays zero."""
    length = float(np.sqrt(np.square(vector, dtype=np.float64).sum()))
    return vector * np.float32(1 / length) if length else vector


def _text(request: Any) -> Input:
    requests.check_text(request.inputs)
    return Input(request.inputs, field="inputs")


def _prompt(request: Any) -> str | None:
    return request.prompt_name if request.HasField("prompt_name") else None


def _check_dimensions(request: pb.EmbedRequest, model: Model) -> None:
    most = model.manifest.dimensions
    if request.HasField("dimensions") and not 1 <= request.dimensions <= most:
        raise InvalidInput(
            f"dimensions is {request.dimensions}: ask for 1 to {most}, or leave it out",
            field="dimensions",
        )
