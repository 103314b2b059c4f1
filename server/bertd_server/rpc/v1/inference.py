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
from bertd_server.rpc.limits import CallLimits
from bertd_server.rpc.status import abort
from bertd_server.rpc.streams import closed_after_use, in_order
from bertd_server.rpc.v1 import requests, responses
from bertd_server.rpc.v1.responses import Made
from bertd_server.scheduling.executor import at_once
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


class _Asks(Protocol):
    model: str


Request = TypeVar("Request", bound=_Asks)


class InferenceService(inference_pb2_grpc.InferenceServiceServicer):
    """Answers texts."""

    def __init__(self, models: Catalogue, limits: CallLimits, *, closing: asyncio.Event) -> None:
        """Serve models.

        Args:
            models: looked up anew for each call.
            limits: of calls.
            closing: once it is set, streams end with what they have sent.
        """
        self._models = models
        self._max_texts = limits.max_texts
        self._answer_bytes = limits.max_message_bytes
        self._closing = closing

    async def Embed(  # noqa: N802 - the RPC's name
        self, request: pb.EmbedRequest, context: Context[pb.EmbedRequest, pb.EmbedResponse]
    ) -> Any:
        """Embed texts."""
        return await self._answer(self._embed, request, context)

    async def EmbedStream(  # noqa: N802 - the RPC's name
        self,
        request_iterator: AsyncIterator[pb.EmbedRequest],
        context: Context[pb.EmbedRequest, pb.EmbedResponse],
    ) -> AsyncIterator[pb.EmbedResponse]:
        """Embed texts in bulk."""

        async def work(request: pb.EmbedRequest) -> Any:
            try:
                with self._models.find(request.model) as model:
                    made = await self._embed(model, request, context)
                    return await model.jobs.run(made.steps)
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
    ) -> Any:
        """Weigh the vocabulary."""
        return await self._answer(self._embed_sparse, request, context)

    async def EmbedTokens(  # noqa: N802 - the RPC's name
        self,
        request: pb.EmbedTokensRequest,
        context: Context[pb.EmbedTokensRequest, pb.EmbedTokensResponse],
    ) -> Any:
        """Embed tokens."""
        return await self._answer(self._embed_tokens, request, context)

    async def Classify(  # noqa: N802 - the RPC's name
        self, request: pb.ClassifyRequest, context: Context[pb.ClassifyRequest, pb.ClassifyResponse]
    ) -> Any:
        """Classify texts or pairs."""
        return await self._answer(self._classify, request, context)

    async def ZeroShotClassify(  # noqa: N802 - the RPC's name
        self,
        request: pb.ZeroShotClassifyRequest,
        context: Context[pb.ZeroShotClassifyRequest, pb.ZeroShotClassifyResponse],
    ) -> Any:
        """Classify texts by labels of the request."""
        return await self._answer(self._classify_zero_shot, request, context)

    async def Rerank(  # noqa: N802 - the RPC's name
        self, request: pb.RerankRequest, context: Context[pb.RerankRequest, pb.RerankResponse]
    ) -> Any:
        """Order documents by relevance."""
        return await self._answer(self._rerank, request, context)

    async def RerankStream(  # noqa: N802 - the RPC's name
        self,
        request_iterator: AsyncIterator[pb.RerankRequest],
        context: Context[pb.RerankRequest, pb.RerankResponse],
    ) -> AsyncIterator[pb.RerankResponse]:
        """Order documents in bulk."""

        async def work(request: pb.RerankRequest) -> Any:
            try:
                with self._models.find(request.model) as model:
                    made = await self._rerank(model, request, context)
                    return await model.jobs.run(made.steps)
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
    ) -> Any:
        """Find entities."""
        return await self._answer(self._tag, request, context)

    async def Answer(  # noqa: N802 - the RPC's name
        self, request: pb.AnswerRequest, context: Context[pb.AnswerRequest, pb.AnswerResponse]
    ) -> Any:
        """Answer questions."""
        return await self._answer(self._find_answers, request, context)

    async def FillMask(  # noqa: N802 - the RPC's name
        self, request: pb.FillMaskRequest, context: Context[pb.FillMaskRequest, pb.FillMaskResponse]
    ) -> Any:
        """Fill masks."""
        return await self._answer(self._fill, request, context)

    async def Tokenize(  # noqa: N802 - the RPC's name
        self, request: pb.TokenizeRequest, context: Context[pb.TokenizeRequest, pb.TokenizeResponse]
    ) -> Any:
        """Tokenise texts."""
        return await self._answer(self._tokenize, request, context)

    async def Detokenize(  # noqa: N802 - the RPC's name
        self,
        request: pb.DetokenizeRequest,
        context: Context[pb.DetokenizeRequest, pb.DetokenizeResponse],
    ) -> Any:
        """Write token ids as texts."""
        return await self._answer(self._detokenize, request, context)

    async def CountTokens(  # noqa: N802 - the RPC's name
        self,
        request: pb.CountTokensRequest,
        context: Context[pb.CountTokensRequest, pb.CountTokensResponse],
    ) -> Any:
        """Count tokens."""
        return await self._answer(self._count, request, context)

    async def _answer(
        self,
        work: Callable[[Model, Request, Context[Any, Any]], Awaitable[Made]],
        request: Request,
        context: Context[Any, Any],
    ) -> Any:
        """Do the work; end the call with its error, or if none of its inputs has an answer.

        Returns:
            the bytes of the response.
        """
        try:
            with self._models.find(request.model) as model:
                made = await work(model, request, context)
                response = None if made.errors else await model.jobs.run(made.steps)
        except RequestError as error:
            await abort(context, error)
        if made.errors:
            await abort(context, *made.errors)
        return response

    def _failing(self, texts: Sequence[str]) -> int:
        """How many results say that a request of a stream has failed: one at least."""
        return min(max(1, len(texts)), self._max_texts)

    async def _embed(
        self, model: Model, request: pb.EmbedRequest, context: Context[Any, Any]
    ) -> Made:
        check_count(len(request.texts), self._max_texts, "texts")
        form = requests.vector_format(request)
        replies = await embedding.embed(
            model,
            await requests.texts(request.texts),
            requests.fit(request, windows=True),
            requests.caller(request, context, self._answer_bytes),
            prompt_name=requests.optional(request, "prompt_name"),
            form=form,
        )
        head = pb.EmbedResponse(
            **responses.named(model),
            dimensions=form.dimensions or model.manifest.dimensions,
            dtype=request.output_dtype or pb.VECTOR_DTYPE_FLOAT32,
        )
        return responses.made(head, responses.embedding, replies)

    async def _embed_sparse(
        self, model: Model, request: pb.EmbedSparseRequest, context: Context[Any, Any]
    ) -> Made:
        check_count(len(request.texts), self._max_texts, "texts")
        replies = await sparse.embed_sparse(
            model,
            await requests.texts(request.texts),
            requests.fit(request, windows=False),
            requests.caller(request, context, self._answer_bytes),
            prompt_name=requests.optional(request, "prompt_name"),
            max_active_dims=requests.optional(request, "max_active_dims"),
        )
        named, dimensions = responses.named(model), model.manifest.vocab_size
        head = pb.EmbedSparseResponse(**named, dimensions=dimensions)
        return responses.made(head, responses.sparse_vector, replies)

    async def _embed_tokens(
        self, model: Model, request: pb.EmbedTokensRequest, context: Context[Any, Any]
    ) -> Made:
        check_count(len(request.texts), self._max_texts, "texts")
        replies = await embedding.embed_tokens(
            model,
            await requests.texts(request.texts),
            requests.fit(request, windows=True),
            requests.caller(request, context, self._answer_bytes),
            prompt_name=requests.optional(request, "prompt_name"),
        )
        named, dimensions = responses.named(model), model.manifest.hidden_size
        head = pb.EmbedTokensResponse(**named, dimensions=dimensions)
        return responses.made(head, responses.token_vectors, replies, request.texts)

    async def _classify(
        self, model: Model, request: pb.ClassifyRequest, context: Context[Any, Any]
    ) -> Made:
        check_count(len(request.inputs), self._max_texts, "inputs")
        replies = await classification.classify(
            model,
            await requests.inputs(request.inputs),
            requests.fit(request, windows=False),
            requests.caller(request, context, self._answer_bytes),
            top_k=request.top_k,
            score_function=requests.score_function(request, softmax=True),
        )
        head = pb.ClassifyResponse(**responses.named(model))
        return responses.made(head, responses.labels, replies)

    async def _classify_zero_shot(
        self, model: Model, request: pb.ZeroShotClassifyRequest, context: Context[Any, Any]
    ) -> Made:
        check_count(len(request.texts), self._max_texts, "texts")
        pairs = len(request.texts) * len(request.labels)
        if pairs:
            check_count(pairs, self._max_texts, "texts", "pairs with the labels")
        replies = await classification.classify_zero_shot(
            model,
            await requests.texts(request.texts),
            request.labels,
            requests.fit(request, windows=False),
            requests.caller(request, context, self._answer_bytes),
            hypothesis_template=request.hypothesis_template or classification.HYPOTHESIS,
            multi_label=request.multi_label,
        )
        head = pb.ZeroShotClassifyResponse(**responses.named(model))
        return responses.made(head, responses.labels, replies)

    async def _rerank(
        self, model: Model, request: pb.RerankRequest, context: Context[Any, Any]
    ) -> Made:
        check_count(len(request.documents), self._max_texts, "documents")
        replies = await ranking.score_pairs(
            model,
            await requests.documents(request.query, request.documents),
            requests.fit(request, windows=True),
            requests.caller(request, context, self._answer_bytes),
            score_function=requests.score_function(request, softmax=False),
            prompt_name=requests.optional(request, "prompt_name"),
        )
        head = pb.RerankResponse(**responses.named(model))
        return responses.ranking(head, replies, request.top_n)

    async def _tag(
        self, model: Model, request: pb.TagTokensRequest, context: Context[Any, Any]
    ) -> Made:
        check_count(len(request.texts), self._max_texts, "texts")
        replies = await tagging.tag(
            model,
            await requests.texts(request.texts),
            requests.fit(request, windows=True),
            requests.caller(request, context, self._answer_bytes),
            aggregation=requests.aggregation(request),
            include_outside=request.include_outside,
        )
        head = pb.TagTokensResponse(**responses.named(model))
        return responses.made(head, responses.entities, replies, request.texts)

    async def _find_answers(
        self, model: Model, request: pb.AnswerRequest, context: Context[Any, Any]
    ) -> Made:
        check_count(len(request.inputs), self._max_texts, "inputs")
        replies = await answering.answer(
            model,
            await requests.questions(request.inputs),
            requests.fit(request, windows=True, second_only=True),
            requests.caller(request, context, self._answer_bytes),
            top_k=request.top_k or 1,
            max_answer_tokens=request.max_answer_tokens or answering.ANSWER_TOKENS,
            allow_no_answer=request.allow_no_answer,
        )
        contexts = [one.context for one in request.inputs]
        head = pb.AnswerResponse(**responses.named(model))
        return responses.made(head, responses.spans, replies, contexts)

    async def _fill(
        self, model: Model, request: pb.FillMaskRequest, context: Context[Any, Any]
    ) -> Made:
        check_count(len(request.texts), self._max_texts, "texts")
        replies = await filling.fill_masks(
            model,
            await requests.texts(request.texts),
            requests.fit(request, windows=False),
            requests.caller(request, context, self._answer_bytes),
            top_k=request.top_k or filling.CANDIDATES,
            targets=request.targets,
        )
        head = pb.FillMaskResponse(**responses.named(model))
        return responses.made(head, responses.masks, replies, request.texts)

    async def _tokenize(
        self, model: Model, request: pb.TokenizeRequest, context: Context[Any, Any]
    ) -> Made:
        check_count(len(request.inputs), self._max_texts, "inputs")
        inputs = await requests.inputs(request.inputs)
        requests.check_characters(inputs, "inputs")
        await memory.reserve(model, *footprint.of_tokens(inputs), context, "inputs")
        encodings = await model.encode(
            inputs,
            special=not request.without_special_tokens,
            answer_bytes=self._answer_bytes,
        )
        head = pb.TokenizeResponse(**responses.named(model))
        return responses.tokenized(head, model.tokenizer, inputs, encodings)

    async def _detokenize(
        self, model: Model, request: pb.DetokenizeRequest, context: Context[Any, Any]
    ) -> Made:
        check_count(len(request.sequences), self._max_texts, "sequences")
        count = sum(len(one.ids) for one in request.sequences)
        await memory.reserve(model, footprint.of_ids(count), 0, context, "sequences")
        ids = await requests.token_ids(request.sequences, model, self._answer_bytes)
        head = pb.DetokenizeResponse(**responses.named(model), errors=responses.errors(ids))
        special = request.with_special_tokens
        return responses.decoded(head, model.tokenizer, ids, skip_special_tokens=not special)

    async def _count(
        self, model: Model, request: pb.CountTokensRequest, context: Context[Any, Any]
    ) -> Made:
        check_count(len(request.inputs), self._max_texts, "inputs")
        inputs = await requests.inputs(request.inputs)
        await memory.reserve(model, *footprint.of_tokens(inputs, kept=False), context, "inputs")
        counts = await model.count(inputs)
        response = pb.CountTokensResponse(
            **responses.named(model),
            counts=[one if isinstance(one, int) else 0 for one in counts],
            max_tokens=model.manifest.max_tokens,
            errors=responses.errors(counts),
        )
        return Made(at_once(response.SerializeToString()), responses.failed(counts))
