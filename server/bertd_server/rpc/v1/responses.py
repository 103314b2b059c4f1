"""Replies of tasks as results of bertd.v1, in bytes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypedDict

from bertd.v1 import inference_pb2
from google.protobuf.message import Message
from google.rpc import status_pb2
from tokenizers import Tokenizer

from bertd_server.errors import InvalidInput, RequestError
from bertd_server.models.model import Model
from bertd_server.rpc.encoding import PARTS, Pieces, encoded, in_parts, within
from bertd_server.rpc.status import to_status
from bertd_server.scheduling.executor import Steps, at_once
from bertd_server.tasks.answering import Span
from bertd_server.tasks.ask import Reply
from bertd_server.tasks.classification import LabelScore
from bertd_server.tasks.decoding import written
from bertd_server.tasks.embedding import TokenVectors
from bertd_server.tasks.filling import Candidate, Mask, fill
from bertd_server.tasks.sparse import SparseVector
from bertd_server.tasks.tagging import Entity
from bertd_server.tasks.vectors import Vector
from bertd_server.tokenization.details import Details
from bertd_server.tokenization.reader import Input
from bertd_server.tokenization.token_list import TokenList
from bertd_server.tokenization.tokens import Offsets, Places, Token

_IS_LITTLE = sys.byteorder == "little"
_COPIED_BYTES = 1_048_576  # in a step: some tenths of a ms


class Named(TypedDict):
    """The fields of a response that say who answered."""

    model: str
    model_version: str


def named(model: Model) -> Named:
    """Who answers."""
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


class Made(NamedTuple):
    """A response that is to be made, or why no input has an answer: then `errors` of all."""

    steps: Steps[bytes]
    errors: list[RequestError]


def made(
    head: Message, make: Callable[..., Steps[Pieces]], replies: list[Reply[Any]], *given: Any
) -> Made:
    """A response with the results that are made of replies.

    Args:
        head: the response without them.
        make: the pieces of a result, from a reply and what is given for it.
        replies: of the call, in order; they are taken out, as their values may be large.
        given: further arguments of `make`, each a sequence as long as the replies.
    """
    errors = failed([reply.outcome for reply in replies])
    rows = zip(*given, strict=True) if given else ((),) * len(replies)
    replies.reverse()
    steps = encoded(head, "results", (make(replies.pop(), *row) for row in rows))
    return Made(steps, errors)


def failed(outcomes: Sequence[object]) -> list[RequestError]:
    """The errors of a call without any answer; none if it has one."""
    errors = [one for one in outcomes if isinstance(one, RequestError)]
    return errors if len(errors) == len(outcomes) else []


def _whole(result: Message) -> Steps[Pieces]:
    """A result that is small."""
    return at_once([result.SerializeToString()])


def embedding(reply: Reply[Vector]) -> Steps[Pieces]:
    """The vector of a text."""
    if isinstance(reply.outcome, RequestError):
        return _whole(inference_pb2.EmbedResult(**parts(reply)))
    vector = reply.outcome
    if not _IS_LITTLE:
        vector = vector.astype(vector.dtype.newbyteorder("<"))
    return _whole(inference_pb2.EmbedResult(embedding=vector.tobytes(), **parts(reply)))


def sparse_vector(reply: Reply[SparseVector]) -> Steps[Pieces]:
    """The weights of a text's vocabulary."""
    if isinstance(reply.outcome, RequestError):
        return _whole(inference_pb2.EmbedSparseResult(**parts(reply)))
    vector = inference_pb2.SparseVector(
        indices=reply.outcome.indices.tolist(), values=reply.outcome.values.tolist()
    )
    return _whole(inference_pb2.EmbedSparseResult(vector=vector, **parts(reply)))


def token_vectors(reply: Reply[TokenVectors], text: str) -> Steps[Pieces]:
    """The vectors of a text's tokens."""
    pieces = [inference_pb2.EmbedTokensResult(**parts(reply)).SerializeToString()]
    if isinstance(reply.outcome, RequestError):
        return pieces
    values: Pieces = []
    vectors = reply.outcome.vectors
    rows = max(1, _COPIED_BYTES // max(1, vectors[:1].nbytes))
    for start in range(0, len(vectors), rows):
        values.append(vectors[start : start + rows].astype("<f4", copy=False).tobytes())
        yield
    kind = inference_pb2.TokenVectors
    of_tokens = yield from in_parts(kind, "tokens", reply.outcome.tokens, tokens(text))
    inner = [*within(kind, "vectors", values), *of_tokens]
    return [*pieces, *within(inference_pb2.EmbedTokensResult, "vectors", inner)]


def labels(reply: Reply[list[LabelScore]]) -> Steps[Pieces]:
    """Labels with scores."""
    if isinstance(reply.outcome, RequestError):
        return _whole(inference_pb2.ClassifyResult(**parts(reply)))
    scores = [inference_pb2.LabelScore(label=o.label, score=o.score) for o in reply.outcome]
    return _whole(
        inference_pb2.ClassifyResult(
            labels=inference_pb2.LabelScores(labels=scores), **parts(reply)
        )
    )


def ranking(
    head: inference_pb2.RerankResponse, replies: Sequence[Reply[float]], top_n: int
) -> Made:
    """Documents, best first, those with errors last."""
    scored = [
        (reply.outcome, place, reply)
        for place, reply in enumerate(replies)
        if not isinstance(reply.outcome, RequestError)
    ]
    scored.sort(key=lambda one: (-one[0], one[1]))
    chosen: list[tuple[int, Reply[float], dict[str, Any]]] = [
        *((place, reply, {"score": score}) for score, place, reply in scored[: top_n or None]),
        *(
            (place, reply, {})
            for place, reply in enumerate(replies)
            if isinstance(reply.outcome, RequestError)
        ),
    ]
    results = (
        _whole(inference_pb2.RerankResult(index=place, **score, **parts(reply)))
        for place, reply, score in chosen
    )
    return Made(encoded(head, "results", results), failed([reply.outcome for reply in replies]))


def entities(reply: Reply[list[Entity]], text: str) -> Steps[Pieces]:
    """The entities of a text."""
    pieces = [inference_pb2.TagTokensResult(**parts(reply)).SerializeToString()]
    if isinstance(reply.outcome, RequestError):
        return pieces
    places = Places(text)

    def describe(one: Entity) -> inference_pb2.Entity:
        return inference_pb2.Entity(
            label=one.label,
            score=one.score,
            offsets=_offsets(places.offsets(one.start, one.end)),
            text=text[one.start : one.end],
            word=one.word,
        )

    found = yield from in_parts(inference_pb2.Entities, "entities", reply.outcome, describe)
    return [*pieces, *within(inference_pb2.TagTokensResult, "entities", found)]


def spans(reply: Reply[list[Span]], context: str) -> Steps[Pieces]:
    """Answers from a context."""
    if isinstance(reply.outcome, RequestError):
        return _whole(inference_pb2.AnswerResult(**parts(reply)))
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
    return _whole(
        inference_pb2.AnswerResult(spans=inference_pb2.Spans(spans=found), **parts(reply))
    )


def masks(reply: Reply[list[Mask]], text: str) -> Steps[Pieces]:
    """What fits the masks of a text."""
    pieces = [inference_pb2.FillMaskResult(**parts(reply)).SerializeToString()]
    if isinstance(reply.outcome, RequestError):
        return pieces
    places = Places(text)
    count = max(1, min(PARTS, _COPIED_BYTES // (1 + len(text))))  # each has the whole text
    found: Pieces = []
    for mask in reply.outcome:

        def describe(one: Candidate, mask: Mask = mask) -> inference_pb2.Candidate:
            return inference_pb2.Candidate(
                id=one.id, text=one.text, score=one.score, sequence=fill(text, mask, one)
            )

        kind = inference_pb2.Mask
        where = kind(offsets=_offsets(places.offsets(mask.start, mask.end)))
        fitting = yield from in_parts(kind, "candidates", mask.candidates, describe, count)
        found += within(inference_pb2.Masks, "masks", [where.SerializeToString(), *fitting])
    return [*pieces, *within(inference_pb2.FillMaskResult, "masks", found)]


def tokenized(
    head: inference_pb2.TokenizeResponse,
    vocabulary: Tokenizer,
    inputs: Sequence[Input],
    encodings: list[Details | InvalidInput],
) -> Made:
    """The tokens of texts and pairs; the encodings are taken out of their list."""

    def result(one: Input) -> Steps[Pieces]:
        encoding = encodings.pop()
        if isinstance(encoding, RequestError):
            return [inference_pb2.TokenizeResult(error=error(encoding)).SerializeToString()]
        found = TokenList.of(encoding, vocabulary)
        del encoding
        yield
        describe = tokens(one.text, one.pair or "")
        return (yield from in_parts(inference_pb2.TokenizeResult, "tokens", found, describe))

    errors = failed(encodings)
    encodings.reverse()
    return Made(encoded(head, "results", map(result, inputs)), errors)


def decoded(
    head: inference_pb2.DetokenizeResponse,
    vocabulary: Tokenizer,
    sequences: Sequence[list[int] | InvalidInput],
    *,
    skip_special_tokens: bool,
) -> Made:
    """The texts of token ids; empty for those that have an error."""

    def text(one: list[int] | InvalidInput) -> Steps[Pieces]:
        ids = [] if isinstance(one, RequestError) else one
        found = yield from written(vocabulary, ids, skip_special_tokens=skip_special_tokens)
        return [found.encode()]

    return Made(encoded(head, "texts", map(text, sequences)), failed(sequences))


def errors(outcomes: Sequence[object]) -> dict[int, status_pb2.Status]:
    """Why inputs of a call have no answer, by their index."""
    return {
        index: error(one) for index, one in enumerate(outcomes) if isinstance(one, RequestError)
    }


def tokens(text: str, pair: str = "") -> Callable[[Token], inference_pb2.Token]:
    """What makes messages of the tokens of a text or a pair."""
    places, of_pair = Places(text), Places(pair)

    def describe(token: Token) -> inference_pb2.Token:
        where = (of_pair if token.second else places).offsets(token.start, token.end)
        return inference_pb2.Token(
            id=token.id, token=token.token, offsets=_offsets(where), special=token.special
        )

    return describe


def _offsets(offsets: Offsets) -> inference_pb2.Offsets:
    return inference_pb2.Offsets(
        start=offsets.start,
        end=offsets.end,
        start_byte=offsets.start_byte,
        end_byte=offsets.end_byte,
    )
