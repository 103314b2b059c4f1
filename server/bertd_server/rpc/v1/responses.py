"""Replies of tasks as messages of bertd.v1."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from bertd.v1 import inference_pb2
from google.rpc import status_pb2
from tokenizers import Tokenizer

from bertd_server.errors import RequestError
from bertd_server.models.model import Model
from bertd_server.rpc.offload import INLINE_PARTS, offloaded
from bertd_server.rpc.status import to_status
from bertd_server.tasks.answering import Span
from bertd_server.tasks.ask import Reply
from bertd_server.tasks.classification import LabelScore
from bertd_server.tasks.embedding import TokenVectors
from bertd_server.tasks.filling import Mask, fill
from bertd_server.tasks.sparse import SparseVector
from bertd_server.tasks.tagging import Entity
from bertd_server.tasks.vectors import Vector
from bertd_server.tokenization.details import Details
from bertd_server.tokenization.reader import Input
from bertd_server.tokenization.tokens import Offsets, Places, Token, tokens_of

Result = TypeVar("Result")

_NUMBERS_OF_A_MESSAGE = 50  # in a list, that take as long to write as a message


def named(model: Model) -> dict[str, str]:
    """The fields of a response that say who answered."""
    return {"model": model.name, "model_version": model.version}


def parts(reply: Reply[Any]) -> dict[str, Any]:
    """The fields of a result that say how it came about, and its error if it is one.

    As plain values: a message made first would be copied into the result.
    """
    fields: dict[str, Any] = {
        "tokens": {
            "total": reply.tokens,
            "read": reply.read,
            "truncated": reply.tokens - reply.read if reply.read else 0,
            "windows": reply.windows,
        }
    }
    if isinstance(reply.outcome, RequestError):
        fields["error"] = error(reply.outcome)
    if reply.trace is not None:
        trace = reply.trace
        fields["timings"] = {
            "tokenize_ns": trace.tokenize_ns,
            "queue_ns": trace.queue_ns,
            "compute_ns": trace.compute_ns,
            "total_ns": trace.total_ns,
        }
        fields["batch"] = {"sequences": trace.batch_sequences, "tokens": trace.batch_tokens}
    return fields


def error(problem: RequestError) -> status_pb2.Status:
    """Why one input has no answer."""
    return to_status(problem)


async def made(make: Callable[..., Result], *arguments: Sequence[Any]) -> list[Result]:
    """Results of a call, made from its replies, the last argument, off the event loop if many."""
    if sum(map(_size, arguments[-1])) <= INLINE_PARTS:
        return list(map(make, *arguments))
    return await asyncio.to_thread(lambda: list(map(make, *arguments)))


def _size(reply: Reply[Any]) -> int:
    """How many messages a reply becomes."""
    if isinstance(reply.outcome, TokenVectors):
        return len(reply.outcome.tokens)
    if isinstance(reply.outcome, SparseVector):
        return 1 + len(reply.outcome.indices) // _NUMBERS_OF_A_MESSAGE
    if not isinstance(reply.outcome, list):
        return 1
    return sum(len(one.candidates) if isinstance(one, Mask) else 1 for one in reply.outcome)


def embedding(reply: Reply[Vector]) -> inference_pb2.EmbedResult:
    """The vector of a text."""
    if isinstance(reply.outcome, RequestError):
        return inference_pb2.EmbedResult(**parts(reply))
    vector = reply.outcome
    little = vector.astype(vector.dtype.newbyteorder("<"), copy=False)
    return inference_pb2.EmbedResult(embedding=little.tobytes(), **parts(reply))


def sparse_vector(reply: Reply[SparseVector]) -> inference_pb2.EmbedSparseResult:
    """The weights of a text's vocabulary."""
    if isinstance(reply.outcome, RequestError):
        return inference_pb2.EmbedSparseResult(**parts(reply))
    vector = inference_pb2.SparseVector(
        indices=reply.outcome.indices.tolist(), values=reply.outcome.values.tolist()
    )
    return inference_pb2.EmbedSparseResult(vector=vector, **parts(reply))


def token_vectors(text: str, reply: Reply[TokenVectors]) -> inference_pb2.EmbedTokensResult:
    """The vectors of a text's tokens."""
    if isinstance(reply.outcome, RequestError):
        return inference_pb2.EmbedTokensResult(**parts(reply))
    vectors = inference_pb2.TokenVectors(
        vectors=reply.outcome.vectors.astype("<f4", copy=False).tobytes(),
        tokens=tokens(reply.outcome.tokens, text),
    )
    return inference_pb2.EmbedTokensResult(vectors=vectors, **parts(reply))


def labels(reply: Reply[list[LabelScore]]) -> inference_pb2.ClassifyResult:
    """Labels with scores."""
    if isinstance(reply.outcome, RequestError):
        return inference_pb2.ClassifyResult(**parts(reply))
    scores = [inference_pb2.LabelScore(label=o.label, score=o.score) for o in reply.outcome]
    return inference_pb2.ClassifyResult(
        labels=inference_pb2.LabelScores(labels=scores), **parts(reply)
    )


def ranking(replies: Sequence[Reply[float]], top_n: int) -> list[inference_pb2.RerankResult]:
    """Documents, best first, those with errors last."""
    scored = [
        (reply.outcome, place, reply)
        for place, reply in enumerate(replies)
        if not isinstance(reply.outcome, RequestError)
    ]
    scored.sort(key=lambda one: (-one[0], one[1]))
    failed = [
        (place, reply)
        for place, reply in enumerate(replies)
        if isinstance(reply.outcome, RequestError)
    ]
    return [
        *(
            inference_pb2.RerankResult(index=place, score=score, **parts(reply))
            for score, place, reply in scored[: top_n or None]
        ),
        *(inference_pb2.RerankResult(index=place, **parts(reply)) for place, reply in failed),
    ]


def entities(text: str, reply: Reply[list[Entity]]) -> inference_pb2.TagTokensResult:
    """The entities of a text."""
    if isinstance(reply.outcome, RequestError):
        return inference_pb2.TagTokensResult(**parts(reply))
    places = Places(text)
    found = [
        inference_pb2.Entity(
            label=one.label,
            score=one.score,
            offsets=_offsets(places.offsets(one.start, one.end)),
            text=text[one.start : one.end],
            word=one.word,
        )
        for one in reply.outcome
    ]
    return inference_pb2.TagTokensResult(
        entities=inference_pb2.Entities(entities=found), **parts(reply)
    )


def spans(context: str, reply: Reply[list[Span]]) -> inference_pb2.AnswerResult:
    """Answers from a context."""
    if isinstance(reply.outcome, RequestError):
        return inference_pb2.AnswerResult(**parts(reply))
    places = Places(context)
    found = [
        inference_pb2.Span(
            text=context[one.start : one.end],
            score=one.score,
            offsets=_offsets(places.offsets(one.start, one.end)),
            no_answer=not one.is_answer,
        )
        for one in reply.outcome
    ]
    return inference_pb2.AnswerResult(spans=inference_pb2.Spans(spans=found), **parts(reply))


def masks(text: str, reply: Reply[list[Mask]]) -> inference_pb2.FillMaskResult:
    """What fits the masks of a text."""
    if isinstance(reply.outcome, RequestError):
        return inference_pb2.FillMaskResult(**parts(reply))
    places = Places(text)
    found = [
        inference_pb2.Mask(
            offsets=_offsets(places.offsets(mask.start, mask.end)),
            candidates=[
                inference_pb2.Candidate(
                    id=one.id, text=one.text, score=one.score, sequence=fill(text, mask, one)
                )
                for one in mask.candidates
            ],
        )
        for mask in reply.outcome
    ]
    return inference_pb2.FillMaskResult(masks=inference_pb2.Masks(masks=found), **parts(reply))


async def tokenized(
    vocabulary: Tokenizer, inputs: Sequence[Input], encodings: Sequence[Details | RequestError]
) -> list[inference_pb2.TokenizeResult]:
    """The tokens of texts and pairs."""

    def describe(one: Input, encoding: Details | RequestError) -> inference_pb2.TokenizeResult:
        if isinstance(encoding, RequestError):
            return inference_pb2.TokenizeResult(error=error(encoding))
        found = tokens_of(encoding, vocabulary)
        return inference_pb2.TokenizeResult(tokens=tokens(found, one.text, one.pair or ""))

    return await offloaded(
        lambda: list(map(describe, inputs, encodings)),
        parts=sum(1 if isinstance(one, RequestError) else len(one) for one in encodings),
    )


async def decoded(
    vocabulary: Tokenizer,
    sequences: Sequence[list[int] | RequestError],
    *,
    skip_special_tokens: bool,
) -> list[str]:
    """The texts of token ids; empty for those that have an error."""
    ids = [[] if isinstance(one, RequestError) else one for one in sequences]

    def decode() -> list[str]:
        texts: list[str] = vocabulary.decode_batch(ids, skip_special_tokens=skip_special_tokens)
        return texts

    return await offloaded(decode, parts=sum(map(len, ids)))


def errors(outcomes: Sequence[object]) -> dict[int, status_pb2.Status]:
    """Why inputs of a call have no answer, by their index."""
    return {
        index: error(one) for index, one in enumerate(outcomes) if isinstance(one, RequestError)
    }


def tokens(given: Sequence[Token], text: str, pair: str = "") -> list[inference_pb2.Token]:
    """Tokens of a text or a pair."""
    places, of_pair = Places(text), Places(pair)
    return [
        inference_pb2.Token(
            id=token.id,
            token=token.token,
            offsets=_offsets((of_pair if token.second else places).offsets(token.start, token.end)),
            special=token.special,
        )
        for token in given
    ]


def _offsets(offsets: Offsets) -> inference_pb2.Offsets:
    return inference_pb2.Offsets(
        start=offsets.start,
        end=offsets.end,
        start_byte=offsets.start_byte,
        end_byte=offsets.end_byte,
    )
