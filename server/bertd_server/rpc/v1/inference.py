"""The inference service of bertd.v1: each call to its task, each reply to its result."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar

from bertd.v1 import inference_pb2 as pb
from bertd.v1 import inference_pb2_grpc
from grpc.aio import ServicerContext as Context

from bertd_server.errors import RequestError
from bertd_server.models.catalogue import Catalogue
from bertd_server.models.model import Model
from bertd_server.rpc import memory
from bertd_server.rpc.checks import check_count
from bertd_server.rpc.status import abort
from bertd_server.rpc.streams import closed_after_use, in_order
from bertd_server.rpc.v1 import requests, responses
from bertd_server.tasks import (
    answering,
    classification,
    embedding,
    filling,
    footprint,
    ranking,
    sparse,
    tagging,
)
from bertd_server.tasks.ask import Reply
from bertd_server.tokenization.reader import texts_of


class _Asks(Protocol):
    model: str


Request = TypeVar("Request", bound=_Asks)
Response = TypeVar("Response")
Replies = Sequence[Reply[Any]]


class InferenceService(inference_pb2_grpc.InferenceServiceServicer):
    """Answers texts."""

    def __init__(self, models: Catalogue, *, max_texts: int, closing: asyncio.Event) -> None:
        """Serve models.

        Args:
            models: looked up anew for each call.
            max_texts: inputs that a call may have.
            closing: once it is set, streams end with what they have sent.
        """
        self._models = models
        self._max_texts = max_texts
        self._closing = closing

    async def Embed(  # noqa: N802 - the RPC's name
        self, request: pb.EmbedRequest, context: Context[pb.EmbedRequest, pb.EmbedResponse]
    ) -> pb.EmbedResponse:
        """Embed texts."""
        return await self._answer(self._embed, request, context)

    async def EmbedStream(  # noqa: N802 - the RPC's name
        self,
        request_iterator: AsyncIterator[pb.EmbedRequest],
        context: Context[pb.EmbedRequest, pb.EmbedResponse],
    ) -> AsyncIterator[pb.EmbedResponse]:
        """Embed texts in bulk."""

        async def work(request: pb.EmbedRequest) -> pb.EmbedResponse:
            try:
                with self._models.find(request.model) as model:
                    return (await self._embed(model, request, context))[0]
            except RequestError as error:
                failed = pb.EmbedResult(error=responses.error(error))
                return pb.EmbedResponse(results=[failed] * self._failing(request.texts))

        stream = in_order(request_iterator, work, self._closing)
        async with closed_after_use(stream) as answers:
            async for response in answers:
                yield response

    async def EmbedSparse(  # noqa: N802 - the RPC's name
        self,
        request: pb.EmbedSparseRequest,
        context: Context[pb.EmbedSparseRequest, pb.EmbedSparseResponse],
    ) -> pb.EmbedSparseResponse:
        """Weigh the vocabulary."""
        return await self._answer(self._embed_sparse, request, context)

    async def EmbedTokens(  # noqa: N802 - the RPC's name
        self,
        request: pb.EmbedTokensRequest,
        context: Context[pb.EmbedTokensRequest, pb.EmbedTokensResponse],
    ) -> pb.EmbedTokensResponse:
        """Embed tokens."""
        return await self._answer(self._embed_tokens, request, context)

    async def Classify(  # noqa: N802 - the RPC's name
        self, request: pb.ClassifyRequest, context: Context[pb.ClassifyRequest, pb.ClassifyResponse]
    ) -> pb.ClassifyResponse:
        """Classify texts or pairs."""
        return await self._answer(self._classify, request, context)

    async def ZeroShotClassify(  # noqa: N802 - the RPC's name
        self,
        request: pb.ZeroShotClassifyRequest,
        context: Context[pb.ZeroShotClassifyRequest, pb.ZeroShotClassifyResponse],
    ) -> pb.ZeroShotClassifyResponse:
        """Classify texts by labels of the request."""
        return await self._answer(self._classify_zero_shot, request, context)

    async def Rerank(  # noqa: N802 - the RPC's name
        self, request: pb.RerankRequest, context: Context[pb.RerankRequest, pb.RerankResponse]
    ) -> pb.RerankResponse:
        """Order documents by relevance."""
        return await self._answer(self._rerank, request, context)

    async def RerankStream(  # noqa: N802 - the RPC's name
        self,
        request_iterator: AsyncIterator[pb.RerankRequest],
        context: Context[pb.RerankRequest, pb.RerankResponse],
    ) -> AsyncIterator[pb.RerankResponse]:
        """Order documents in bulk."""

        async def work(request: pb.RerankRequest) -> pb.RerankResponse:
            try:
                with self._models.find(request.model) as model:
                    return (await self._rerank(model, request, context))[0]
            except RequestError as error:
                status = responses.error(error)
                count = self._failing(request.documents)
                failed = [pb.RerankResult(index=place, error=status) for place in range(count)]
                return pb.RerankResponse(results=failed)

        stream = in_order(request_iterator, work, self._closing)
        async with closed_after_use(stream) as answers:
            async for response in answers:
                yield response

    async def TagTokens(  # noqa: N802 - the RPC's name
        self,
        request: pb.TagTokensRequest,
        context: Context[pb.TagTokensRequest, pb.TagTokensResponse],
    ) -> pb.TagTokensResponse:
        """Find entities."""
        return await self._answer(self._tag, request, context)

    async def Answer(  # noqa: N802 - the RPC's name
        self, request: pb.AnswerRequest, context: Context[pb.AnswerRequest, pb.AnswerResponse]
    ) -> pb.AnswerResponse:
        """Answer questions."""
        return await self._answer(self._find_answers, request, context)

    async def FillMask(  # noqa: N802 - the RPC's name
        self, request: pb.FillMaskRequest, context: Context[pb.FillMaskRequest, pb.FillMaskResponse]
    ) -> pb.FillMaskResponse:
        """Fill masks."""
        return await self._answer(self._fill, request, context)

    async def Tokenize(  # noqa: N802 - the RPC's name
        self, request: pb.TokenizeRequest, context: Context[pb.TokenizeRequest, pb.TokenizeResponse]
    ) -> pb.TokenizeResponse:
        """Tokenise texts."""
        return await self._answer(self._tokenize, request, context)

    async def Detokenize(  # noqa: N802 - the RPC's name
        self,
        request: pb.DetokenizeRequest,
        context: Context[pb.DetokenizeRequest, pb.DetokenizeResponse],
    ) -> pb.DetokenizeResponse:
        """Write token ids as texts."""
        return await self._answer(self._detokenize, request, context)

    async def CountTokens(  # noqa: N802 - the RPC's name
        self,
        request: pb.CountTokensRequest,
        context: Context[pb.CountTokensRequest, pb.CountTokensResponse],
    ) -> pb.CountTokensResponse:
        """Count tokens."""
        return await self._answer(self._count, request, context)

    async def _answer(
        self,
        work: Callable[[Model, Request, Context[Any, Any]], Awaitable[tuple[Response, Replies]]],
        request: Request,
        context: Context[Any, Any],
    ) -> Response:
        """Do the work; end the call with its error, or if none of its inputs has an answer."""
        try:
            with self._models.find(request.model) as model:
                response, replies = await work(model, request, context)
        except RequestError as error:
            await abort(context, error)
        if replies and isinstance(replies[0].outcome, RequestError):
            errors = [one.outcome for one in replies if isinstance(one.outcome, RequestError)]
            if len(errors) == len(replies):
                await abort(context, *errors)
        return response

    def _failing(self, texts: Sequence[str]) -> int:
        """How many results say that a request of a stream has failed: one at least."""
        return min(max(1, len(texts)), self._max_texts)

    async def _embed(
        self, model: Model, request: pb.EmbedRequest, context: Context[Any, Any]
    ) -> tuple[pb.EmbedResponse, Replies]:
        check_count(len(request.texts), self._max_texts, "texts")
        form = requests.vector_format(request)
        replies = await embedding.embed(
            model,
            texts_of(request.texts),
            requests.fit(request, windows=True),
            requests.caller(request, context),
            prompt_name=requests.optional(request, "prompt_name"),
            form=form,
        )
        response = pb.EmbedResponse(
            **responses.named(model),
            dimensions=form.dimensions or model.manifest.dimensions,
            results=await responses.made(responses.embedding, replies),
            dtype=request.output_dtype or pb.VECTOR_DTYPE_FLOAT32,
        )
        return response, replies

    async def _embed_sparse(
        self, model: Model, request: pb.EmbedSparseRequest, context: Context[Any, Any]
    ) -> tuple[pb.EmbedSparseResponse, Replies]:
        check_count(len(request.texts), self._max_texts, "texts")
        replies = await sparse.embed_sparse(
            model,
            texts_of(request.texts),
            requests.fit(request, windows=False),
            requests.caller(request, context),
            prompt_name=requests.optional(request, "prompt_name"),
            max_active_dims=requests.optional(request, "max_active_dims"),
        )
        results = await responses.made(responses.sparse_vector, replies)
        named, dimensions = responses.named(model), model.manifest.vocab_size
        return pb.EmbedSparseResponse(**named, dimensions=dimensions, results=results), replies

    async def _embed_tokens(
        self, model: Model, request: pb.EmbedTokensRequest, context: Context[Any, Any]
    ) -> tuple[pb.EmbedTokensResponse, Replies]:
        check_count(len(request.texts), self._max_texts, "texts")
        replies = await embedding.embed_tokens(
            model,
            texts_of(request.texts),
            requests.fit(request, windows=True),
            requests.caller(request, context),
            prompt_name=requests.optional(request, "prompt_name"),
        )
        results = await responses.made(responses.token_vectors, request.texts, replies)
        named, dimensions = responses.named(model), model.manifest.hidden_size
        return pb.EmbedTokensResponse(**named, dimensions=dimensions, results=results), replies

    async def _classify(
        self, model: Model, request: pb.ClassifyRequest, context: Context[Any, Any]
    ) -> tuple[pb.ClassifyResponse, Replies]:
        check_count(len(request.inputs), self._max_texts, "inputs")
        replies = await classification.classify(
            model,
            requests.inputs(request.inputs),
            requests.fit(request, windows=False),
            requests.caller(request, context),
            top_k=request.top_k,
            score_function=requests.score_function(request, softmax=True),
        )
        results = await responses.made(responses.labels, replies)
        return pb.ClassifyResponse(**responses.named(model), results=results), replies

    async def _classify_zero_shot(
        self, model: Model, request: pb.ZeroShotClassifyRequest, context: Context[Any, Any]
    ) -> tuple[pb.ZeroShotClassifyResponse, Replies]:
        check_count(len(request.texts), self._max_texts, "texts")
        pairs = len(request.texts) * len(request.labels)
        if pairs:
            check_count(pairs, self._max_texts, "texts", "pairs with the labels")
        replies = await classification.classify_zero_shot(
            model,
            texts_of(request.texts),
            request.labels,
            requests.fit(request, windows=False),
            requests.caller(request, context),
            hypothesis_template=request.hypothesis_template or classification.HYPOTHESIS,
            multi_label=request.multi_label,
        )
        results = await responses.made(responses.labels, replies)
        return pb.ZeroShotClassifyResponse(**responses.named(model), results=results), replies

    async def _rerank(
        self, model: Model, request: pb.RerankRequest, context: Context[Any, Any]
    ) -> tuple[pb.RerankResponse, Replies]:
        check_count(len(request.documents), self._max_texts, "documents")
        replies = await ranking.score_pairs(
            model,
            requests.documents(request.query, request.documents),
            requests.fit(request, windows=True, second_only=True),
            requests.caller(request, context),
            score_function=requests.score_function(request, softmax=False),
            prompt_name=requests.optional(request, "prompt_name"),
        )
        results = responses.ranking(replies, request.top_n)
        return pb.RerankResponse(**responses.named(model), results=results), replies

    async def _tag(
        self, model: Model, request: pb.TagTokensRequest, context: Context[Any, Any]
    ) -> tuple[pb.TagTokensResponse, Replies]:
        check_count(len(request.texts), self._max_texts, "texts")
        replies = await tagging.tag(
            model,
            texts_of(request.texts),
            requests.fit(request, windows=True),
            requests.caller(request, context),
            aggregation=requests.aggregation(request),
            include_outside=request.include_outside,
        )
        results = await responses.made(responses.entities, request.texts, replies)
        return pb.TagTokensResponse(**responses.named(model), results=results), replies

    async def _find_answers(
        self, model: Model, request: pb.AnswerRequest, context: Context[Any, Any]
    ) -> tuple[pb.AnswerResponse, Replies]:
        check_count(len(request.inputs), self._max_texts, "inputs")
        replies = await answering.answer(
            model,
            requests.questions(request.inputs),
            requests.fit(request, windows=True, second_only=True),
            requests.caller(request, context),
            top_k=request.top_k or 1,
            max_answer_tokens=request.max_answer_tokens or answering.ANSWER_TOKENS,
            allow_no_answer=request.allow_no_answer,
        )
        results = await responses.made(
            responses.spans, [one.context for one in request.inputs], replies
        )
        return pb.AnswerResponse(**responses.named(model), results=results), replies

    async def _fill(
        self, model: Model, request: pb.FillMaskRequest, context: Context[Any, Any]
    ) -> tuple[pb.FillMaskResponse, Replies]:
        check_count(len(request.texts), self._max_texts, "texts")
        replies = await filling.fill_masks(
            model,
            texts_of(request.texts),
            requests.fit(request, windows=False),
            requests.caller(request, context),
            top_k=request.top_k or filling.CANDIDATES,
            targets=request.targets,
        )
        results = await responses.made(responses.masks, request.texts, replies)
        return pb.FillMaskResponse(**responses.named(model), results=results), replies

    async def _tokenize(
        self,
        model: Model,
        request: pb.TokenizeRequest,
        context: Context[Any, Any],
    ) -> tuple[pb.TokenizeResponse, Replies]:
        check_count(len(request.inputs), self._max_texts, "inputs")
        inputs = requests.inputs(request.inputs)
        requests.check_characters(inputs, "inputs")
        await memory.reserve(model, *footprint.of_tokens(inputs), context, "inputs")
        encodings = await model.encode(inputs, special=not request.without_special_tokens)
        results = await responses.tokenized(model.tokenizer, inputs, encodings)
        response = pb.TokenizeResponse(**responses.named(model), results=results)
        return response, list(map(Reply, encodings))

    async def _detokenize(
        self,
        model: Model,
        request: pb.DetokenizeRequest,
        context: Context[Any, Any],
    ) -> tuple[pb.DetokenizeResponse, Replies]:
        check_count(len(request.sequences), self._max_texts, "sequences")
        count = sum(len(one.ids) for one in request.sequences)
        await memory.reserve(model, footprint.of_ids(count), 0, context, "sequences")
        ids = requests.token_ids(request.sequences, model.manifest.vocab_size)
        texts = await responses.decoded(
            model.tokenizer, ids, skip_special_tokens=not request.with_special_tokens
        )
        response = pb.DetokenizeResponse(
            **responses.named(model), texts=texts, errors=responses.errors(ids)
        )
        return response, list(map(Reply, ids))

    async def _count(
        self,
        model: Model,
        request: pb.CountTokensRequest,
        context: Context[Any, Any],
    ) -> tuple[pb.CountTokensResponse, Replies]:
        check_count(len(request.inputs), self._max_texts, "inputs")
        inputs = requests.inputs(request.inputs)
        await memory.reserve(model, *footprint.of_tokens(inputs, kept=False), context, "inputs")
        counts = await model.count(inputs)
        response = pb.CountTokensResponse(
            **responses.named(model),
            counts=[one if isinstance(one, int) else 0 for one in counts],
            max_tokens=model.manifest.max_tokens,
            errors=responses.errors(counts),
        )
        return response, list(map(Reply, counts))
